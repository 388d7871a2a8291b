"""What is said of a run on a cluster: our steps alone, each change once; and when a recurring one comes."""

from types import SimpleNamespace

import pytest

from pipelines.schedule import BadTime
from pipelines.submit import Watched, begun, cron_of

KNOWN = frozenset({"ingest", "gate", "register"})


def seen(state: str, **tasks: str) -> SimpleNamespace:
    """A run as the server tells it; `root_driver` stands for what is not a step of ours, None for a task without a name."""
    told = [SimpleNamespace(display_name=name, state=of) for name, of in tasks.items()]
    return SimpleNamespace(
        state=state, run_details=SimpleNamespace(task_details=[*told, SimpleNamespace(display_name=None, state="RUNNING")])
    )


def test_each_change_of_a_step_of_ours_is_a_line_and_nothing_else_is() -> None:
    watched = Watched()
    assert watched.changed(SimpleNamespace(state="PENDING", run_details=None), KNOWN) == []
    assert watched.changed(seen("RUNNING", root_driver="SUCCEEDED", ingest="RUNNING"), KNOWN) == ["step=ingest state=running"]
    assert watched.changed(seen("RUNNING", ingest="RUNNING"), KNOWN) == []
    after = watched.changed(seen("FAILED", ingest="SUCCEEDED", gate="FAILED", register="SKIPPED"), KNOWN)
    assert after == ["step=ingest state=succeeded", "step=gate state=failed", "step=register state=skipped"]
    assert watched.state == "FAILED"


def test_a_recurring_run_has_kubeflows_six_fields() -> None:
    assert cron_of("03:05", "daily") == "0 5 3 * * *"
    assert cron_of("01:00", "sun,wed") == "0 0 1 * * 0,3"
    with pytest.raises(BadTime, match="no day of the week"):
        cron_of("01:00", "someday")


def test_a_run_of_the_same_name_is_gone_on_with_unless_it_failed() -> None:
    def server(*runs: tuple[str, str | None]) -> SimpleNamespace:
        told = [SimpleNamespace(display_name=name, state=state) for name, state in runs]
        return SimpleNamespace(list_runs=lambda **_: SimpleNamespace(runs=told or None))

    for state in ("PENDING", "RUNNING", "SUCCEEDED", None):
        assert begun(server(("other", "RUNNING"), ("ours", state)), "e", "ours").state == state
    for runs in ((), (("other", "RUNNING"),), (("ours", "FAILED"),), (("ours", "CANCELED"),)):
        assert begun(server(*runs), "e", "ours") is None
    assert begun(server(("ours", "FAILED"), ("ours", "SUCCEEDED")), "e", "ours").state == "SUCCEEDED"
