"""A run's log keeps every line; the steps' events are shown, however the runner indents them."""

from pathlib import Path

from pipelines.journal import Journal


def test_every_line_is_kept_and_events_are_shown(tmp_path: Path) -> None:
    shown: list[str] = []
    with Journal(tmp_path / "log.txt", shown.append) as journal:
        print("step=ingest state=started", file=journal)
        print("    step=ingest state=done\n    other words", file=journal)
        journal.write("half a li")
        journal.write("ne\n")
    assert shown == ["step=ingest state=started", "step=ingest state=done"]
    assert (tmp_path / "log.txt").read_text() == "step=ingest state=started\n    step=ingest state=done\n    other words\nhalf a line\n"
