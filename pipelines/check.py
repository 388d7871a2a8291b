"""`shortlist check SYSTEM --data DIR`: what the system can and cannot use of these tables, in seconds, before anything is learnt."""

import contextlib
import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import typer
from rich.console import Console

from components.data.facts import Facts, facts_of
from components.data.ingest import ingest
from components.data.validate import validate
from components.features.moments import BadMoment, cut_name, moment
from components.features.usable import count, no_positives, too_little
from feature_repo.schema import TABLES
from serving.event_meanings import Again, Ignored, Negative, Never, Positive, Shown, Signal
from serving.retrieval.source import Given, Needs
from serving.retrieval.sources import UnknownSource, source_class
from serving.system import System, UnknownName, load_system

Kind = Literal["used", "unused", "stops"]
LEVEL_OF = {"department": 0, "category": 1, "type": 2}
ORDINAL = ("first", "second", "third")


@dataclass(frozen=True)
class Finding:
    """One thing the check has to say. `stops`: the system cannot be learnt from these tables as they are."""

    kind: Kind
    text: str


def check(system: str, data: Path | None, until: str = "") -> None:
    """Print the findings; exit 1 when one of them stops the learning."""
    found = list(findings(system, data, until))
    console = Console()
    marks = {"used": "[green]+[/]", "unused": "[yellow]-[/]", "stops": "[bold red]x[/]"}
    for finding in found:
        console.print(marks[finding.kind], end=" ")
        console.print(finding.text, soft_wrap=True, highlight=False, markup=False)
    if any(finding.kind == "stops" for finding in found):
        raise typer.Exit(1)


def findings(name: str, data: Path | None, until: str = "") -> Iterator[Finding]:
    """What the named system finds in the tables of `data` (or its own): rows, cut, events, rules, sources, columns."""
    system = load_system(name)
    with tempfile.TemporaryDirectory(prefix="shortlist-check-") as folder:
        given, accepted = Path(folder) / "given", Path(folder) / "accepted"
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # the steps' own lines are said below
                ingest(system, given, data)
                validate(system, given, accepted)
        except ValueError as problem:
            yield Finding("stops", str(problem))
            return
        for note in json.loads((accepted / "report.json").read_text())["notes"]:
            yield Finding("unused", note)
        yield from _about_the_cut(name, system, accepted, until)
        facts = facts_of(accepted)
    yield from _about_users(system, facts)
    yield from _about_events(system, facts)
    yield from _about_rules(system, facts)
    yield from _about_sources(system, facts)
    yield from _about_columns(facts)


def _about_the_cut(name: str, system: System, tables: Path, until: str) -> Iterator[Finding]:
    problem = no_positives(system, tables)
    if problem:
        yield Finding("stops", problem)
        return
    try:
        cut = moment(name, tables, until)
    except BadMoment as error:
        yield Finding("stops", str(error))
        return
    problem = too_little(system, tables, cut, must_judge=until != "end")
    if problem:
        yield Finding("stops", problem)
        return
    found = count(system, tables, datetime.fromisoformat(cut))
    whole, days = system.learning.horizon_days, found.judged_days
    short = f", {days} of the {whole} that a target has" if days < whole else ""
    whom = "user" if system.learning.asked == "users" else "session"
    yield Finding(
        "used",
        f"{found.before:,} positives before {cut_name(datetime.fromisoformat(cut))}, {found.weeks} weeks of them to learn from;"
        f" judged on {found.judged:,} of {found.judged_users:,} {whom}s in the {days} day{'s' * (days != 1)} after{short}",
    )


def _about_users(system: System, facts: Facts) -> Iterator[Finding]:
    if facts.sessions and system.learning.asked == "users":
        told = "no event has a user but its session, and sessions do not come back, so hardly anybody who is asked is known: say"
        yield Finding("unused", f'{told} Learning(asked="amid sessions"), or let `shortlist new` write a system')
    elif facts.sessions:
        yield Finding("used", "no event has a user but its session: each is asked at one moment of it for what it goes on to")
    elif system.learning.asked == "amid sessions":
        told = "each user is taken for one session, but these have sessions of their own, or several: say"
        yield Finding("unused", f'{told} Learning(asked="users"), or leave the column user_id out to forget who they are')


def _about_events(system: System, facts: Facts) -> Iterator[Finding]:
    for name, number in facts.types.items():
        meaning = system.learning.meanings.get(name)
        heads = [head for head, one in system.objectives.items() if any(event.kind == name for event in one.counted)]
        if heads:
            yield Finding("used", f"{number:,} {name}: learnt by the head {' and the head '.join(heads)}")
        if isinstance(meaning, Positive):
            needs = f" where {meaning.value or 'the value'} is at least {meaning.at_least:g}" if meaning.at_least is not None else ""
            yield Finding("used", f"{number:,} {name}: learnt from{needs}")
        elif isinstance(meaning, Signal):
            learnt = "" if heads else "not learnt from; "
            yield Finding("used", f"{number:,} {name}: {learnt}sent to a server, they move the user's next lists ({meaning.weight:g})")
        elif isinstance(meaning, Shown):
            yield Finding("used", f"{number:,} {name}: shown in lists; what was left there is learnt from, less what its position explains")
        elif isinstance(meaning, (Never, Negative, Again)):
            does = {Never: "gone from the user's lists", Negative: "lower in them, its like too"}.get(
                type(meaning), "as if nothing was said"
            )
            yield Finding("used", f"{number:,} {name}: not learnt from; sent to a server, the item is {does}")
        elif isinstance(meaning, Ignored) and not heads:
            yield Finding("unused", f"{number:,} {name}: no sign of liking; counted, not learnt from")
        elif meaning is None and not heads:
            yield Finding("unused", f"{number:,} {name}: not used; name it in the system's `events` to give it a meaning")


def _about_rules(system: System, facts: Facts) -> Iterator[Finding]:
    for rule in system.rules:
        settings = asdict(rule)
        per = settings.get("per")
        if rule.kind == "at_most" and per in LEVEL_OF and not facts.levels[LEVEL_OF[str(per)]]:
            level = LEVEL_OF[str(per)]
            falls = "it counts by the level above" if any(facts.levels[:level]) else "no item has a category, so it never applies"
            yield Finding("unused", f"at_most per {per}: no item has a {ORDINAL[level]} level; {falls}")
        if rule.kind == "at_most" and per == "brand" and not facts.brands:
            yield Finding("unused", "at_most per brand: no item has a brand, so it never applies")
        if settings.get("newer_than_days") and "created_at" in facts.empty["items"]:
            yield Finding("unused", f"{rule.kind} newer_than_days: no item has created_at, so none is new")
        if rule.kind in ("in_stock", "not_recalled", "allowed") and "policy_flags" in facts.empty["items"]:
            yield Finding("unused", f"{rule.kind}: no item has policy_flags; it acts on flags posted to a server")


def _about_sources(system: System, facts: Facts) -> Iterator[Finding]:
    positives = tuple(name for name in system.learning.positives if name in facts.types)
    given = Given(positives, max((facts.again[name] for name in positives), default=0.0), facts.rows["context"])
    for kind in dict.fromkeys(system.kinds):
        try:
            source = source_class(kind)
        except (UnknownSource, UnknownName) as problem:
            yield Finding("stops", str(problem))
            continue
        lacking = source.lacks(given) if isinstance(source, Needs) else ""
        if lacking:
            yield Finding("unused", f"{kind}: {lacking}")


def _about_columns(facts: Facts) -> Iterator[Finding]:
    for name, columns in facts.empty.items():
        if columns and facts.rows[name]:
            noted = [column for column in columns if column in TABLES[name].names]
            yield Finding("unused", f"{name}: nothing in {', '.join(noted)}; what is made of them stays empty")
