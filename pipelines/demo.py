"""The whole loop on real data, watched from start to end: learn, judge, answer one household, click once, answer again.

make demo
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from serving.bundle.catalogue import Catalogue
from serving.state.user_state import StateTable
from serving.system import load_system

UNTIL = "2017-11-27"  # later rows are only ever traffic to replay
READY_SECONDS = 60
SHOWN = ("ndcg@10", "recall@100", "recall@1000", "mrr")
PROTOCOLS = {"all": "the week's purchases", "new": "those new to the user"}
Json = dict[str, Any]


def demo(system: str = "shop", until: str = UNTIL, home: Path = Path(".shortlist")) -> None:
    """Train fast, show what was learnt, and let one user click. Everything it makes lies under `home`."""
    from components.release.releases import released
    from pipelines.answers import recommend
    from pipelines.loop import run_loop

    console, began = Console(), time.monotonic()
    console.rule(f"Learning {system} from everything before {until}")
    run = run_loop(system, None, until, True, 0, home)
    console.print(metrics_table(json.loads((run.output("evaluate") / "metrics.json").read_text())))
    found = released(system, home)
    users = StateTable.load(found.users)
    user = typical(users)
    console.rule(f"Answering user {user}")
    recommend(system, user, k=load_system(system).answer_size, why=False, home=home)
    console.rule("One click, and the next answer")
    cut = datetime.fromtimestamp(users.cut_day * 86_400, UTC)
    with serving(system, found.bundle, found.users, home / "demo", cut) as server:
        clicked = click_once(server, user, cut)
    console.print(click_table(Catalogue.load(found.bundle / "item_table"), clicked))
    console.rule(f"{time.monotonic() - began:.0f} seconds")
    console.print(f"Next: [bold]shortlist recommend {system} USER --why[/]   [bold]shortlist serve {system}[/]   [bold]shortlist --help[/]")


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    """Ours beside popularity of 28 days, and what it is ahead by with the error of the difference. Fits 80 columns."""
    days = metrics["judged_days"]
    title = f"Judged on the {days} day{'s' * (days != 1)} after {metrics['cut']}"
    asked = metrics["users_judged"]
    if asked["asked"] < asked["of"]:
        title += f", on {asked['asked']:,} of {asked['of']:,} users"
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("", no_wrap=True)
    for metric in SHOWN:
        table.add_column(metric, justify="right", no_wrap=True)
    for protocol, judged in metrics["protocols"].items():
        table.add_section()
        table.add_row(f"[bold]{PROTOCOLS[protocol]}[/]")
        for name, values in judged["recommenders"].items():
            table.add_row("  ours" if name == "candidate" else f"  {name}", *(f"{values[metric]['value']:.4f}" for metric in SHOWN))
        lead = [judged["against"]["popularity"][metric] for metric in SHOWN]
        table.add_row("  ahead by", *(f"[{'green' if found['value'] > 0 else 'red'}]{found['value']:+.4f}[/]" for found in lead))
        table.add_row(f"  ± error, {judged['users']:,} users", *(f"{found['error']:.4f}" for found in lead))
    return table


def typical(users: StateTable) -> str:
    """The user with the middle number of known items: nobody's best case."""
    sizes = np.diff(users.ends, prepend=0)
    return bytes(users.user_ids[np.argsort(sizes, kind="stable")[len(sizes) // 2]]).decode()


@dataclass(frozen=True)
class Clicked:
    """Two answers and the click between them."""

    item_id: str
    before: Json
    after: Json
    seconds: float  # from sending the click to having the next answer


@contextmanager
def serving(system: str, bundle: Path, users: Path, home: Path, start: datetime, log: Path | None = None) -> Iterator[str]:
    """A server in a process of its own on a free port of this machine, its clock at `start`. Yields its address, stops it after.

    `log`: the folder of its events, which it goes on with; None: a new one. Raises `RuntimeError` with the end of what the server said when
    it stops early or is not ready in time.
    """
    from serving.worker.options import Options
    from serving.worker.supervise import command

    home.mkdir(parents=True, exist_ok=True)
    options = Options(
        bundle=bundle,
        system=system,
        users=users,
        port=_free_port(),
        events=f"dir:{log or home / f'{time.time_ns():x}'}",
        clock=start.isoformat(),
    )
    said = home / "server.log"
    with said.open("wb") as file:
        process = subprocess.Popen(command(options), stdout=file, stderr=file, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        address = f"http://{options.host}:{options.port}"
        _wait_until_ready(address, process, said)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=READY_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urlopen(f"{address}/readyz", timeout=5):
                return
        except (URLError, ConnectionError):  # not listening yet, or not ready: 503
            time.sleep(0.1)
    raise RuntimeError(f"the server is not ready after {READY_SECONDS} s: {log} ends with\n{log.read_text()[-2000:]}")


def click_once(address: str, user: str, now: datetime, k: int | None = None) -> Clicked:
    """Ask for `k` items (none: the system's own number), click the best new thing that the answer does not hold, and ask again."""
    before = ask(address, "recommendations", {"user_id": user, "k": k})
    listed = {item["item_id"] for item in before["items"]}
    offers = ask(address, "recommendations", {"user_id": user, "discover": True, "k": 4 * len(listed)})["items"]
    item_id = next((offer["item_id"] for offer in offers if offer["item_id"] not in listed), before["items"][-1]["item_id"])
    event = {
        "event_id": f"demo-{user}-{item_id}",
        "event_type": "click",
        "user_id": user,
        "item_id": item_id,
        "timestamp": (now + timedelta(seconds=1)).isoformat(),
        "context": {"request_id": before["request_id"]},
    }
    sent = time.perf_counter()
    ask(address, "events", {"events": [event]})
    after = ask(address, "recommendations", {"user_id": user, "k": k})
    return Clicked(item_id, before, after, time.perf_counter() - sent)


def ask(address: str, what: str, body: Json) -> Json:
    """POST to `/v1/<what>` and the answer. Raises `urllib.error.HTTPError` for one that is not 200."""
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(f"{address}/v1/{what}", json.dumps(body).encode(), headers), timeout=30) as response:
        answer: Json = json.loads(response.read())
        return answer


def click_table(catalogue: Catalogue, clicked: Clicked) -> Table:
    """Before and after, side by side; what the click brought stands out."""

    def name(item_id: str) -> str:
        return catalogue.title(catalogue.row_of(item_id)) or item_id

    title = f"A click on [bold]{name(clicked.item_id)}[/], answered {clicked.seconds * 1e3:.0f} ms later"
    table = Table("", "before", "after", "because", title=title, title_justify="left", header_style="bold")
    old = [item["item_id"] for item in clicked.before["items"]]
    for place, (before, after) in enumerate(zip(clicked.before["items"], clicked.after["items"], strict=True), 1):
        item_id = after["item_id"]
        came = old.index(item_id) + 1 if item_id in old else None
        style = "bold green" if came is None else "cyan" if came != place else ""
        note = "new" if came is None else f"was {came}" if came != place else ""
        label = f"{name(item_id)}  ({note})" if note else name(item_id)
        table.add_row(str(place), name(before["item_id"]), f"[{style}]{label}[/]" if style else label, after["reason"])
    return table


if __name__ == "__main__":
    typer.run(demo)
