"""`shortlist new NAME --data DIR`: write a system file and a feature repo that fit the tables of a folder, and train without an edit."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from components.data.event_types import meaning_of, nearest
from components.data.facts import FEW_EVENTS, Facts, facts_of
from components.data.ingest import ingest
from pipelines.new_features import write_repo
from serving.system import Learning, load_system

LIKED_FIRST = ("purchase", "like", "watch", "add_to_cart", "click", "video_view", "product_view")  # what says most of liking, first
VERBS = {"purchase": "bought", "like": "liked", "watch": "watched", "click": "clicked", "add_to_cart": "put into the cart"}
_LOOKED = ("Positive()", *(f"Signal({weight})" for weight in (0.3, 0.6, 1.0)))  # what `meaning_of` says of types that say liking
REPEATS = 0.05  # share of events on an item the user had before, from which things are had again


class CannotWrite(ValueError):
    """The file is not written; the message says why and what to do."""


@dataclass(frozen=True)
class Choices:
    """What the data decide of a system."""

    events: dict[str, str]  # type -> its meaning, as the file says it
    main: str  # the type learnt from that there is most of
    repeats: float
    promotions: bool
    cap: str  # group of `at_most`, or empty
    dated: bool  # items say when they entered
    sessions: bool  # users are sessions: nobody comes back
    horizon_days: int


def new(name: str, data: Path, folder: Path) -> Path:
    """Write `<folder>/<name>.py` and say what to do next; the file. Raises `CannotWrite`, or `BadData` when the tables cannot be read."""
    if not name.isidentifier() or name.startswith("_"):
        raise CannotWrite(f"{name!r} is no name for a system: use letters, digits and _, for example {_as_name(name)}")
    file = folder / f"{name}.py"
    repo = folder / f"{name}_features"
    for place in (file, repo):
        if place.exists():
            raise CannotWrite(f"{place} is there already: choose another name, or remove it first")
    with tempfile.TemporaryDirectory(prefix="shortlist-new-") as read:
        ingest(load_system("shop"), Path(read), data)
        facts = facts_of(Path(read))
        text = system_file(name, choose(facts))
    folder.mkdir(parents=True, exist_ok=True)
    write_repo(name, facts, repo)
    file.write_text(text)
    console = Console()
    console.print(f"Wrote {file} and {repo}. Read them: each line may be changed. Next:", soft_wrap=True, highlight=False)
    for command in ("check", "train"):
        console.print(f"  shortlist {command} {file} --data {data}", soft_wrap=True, highlight=False)
    return file


def _as_name(text: str) -> str:
    name = "".join(letter if letter.isalnum() else "_" for letter in text).strip("_").lower()
    return name if name.isidentifier() else f"s_{name}".rstrip("_")


def choose(facts: Facts) -> Choices:
    """The meanings of the events, and which sources and rules have something to work on."""
    main = main_type(facts)
    return Choices(
        events={main: positive(main, facts)} | {name: _beside(name, main, facts) for name in facts.types if name != main},
        main=main,
        repeats=facts.again[main],
        promotions=bool(facts.rows["context"]) and bool(facts.levels[0]),
        cap="category" if facts.levels[1] > 2 else "department" if facts.levels[0] > 2 else "",
        dated="created_at" not in facts.empty["items"],
        sessions=facts.sessions,
        horizon_days=7 if facts.days > 21 else max(facts.days // 7, 1),  # a week, or as many as leave some to learn from
    )


def main_type(facts: Facts) -> str:
    """The type that says most of liking among those there is enough of; ratings are learnt from before anything but purchases."""
    if facts.sessions:  # what comes next in a session is asked: of the types that say liking the one there is most of
        return next((name for name in facts.types if meaning_of(name) in _LOOKED or name in facts.grades), next(iter(facts.types)))
    total = sum(facts.types.values())
    enough = [name for name, number in facts.types.items() if number >= min(FEW_EVENTS, 0.05 * total) and meaning_of(name) != "Ignored()"]

    return min(enough or list(facts.types), key=lambda name: LIKED_FIRST.index("like") if name in facts.grades else _said(name))


def _said(name: str) -> int:
    """How much a type says of liking: 0 the most."""
    found = nearest(name)
    return LIKED_FIRST.index(found) if found in LIKED_FIRST else len(LIKED_FIRST)


def positive(name: str, facts: Facts) -> str:
    """How the file says that the type is learnt from."""
    if name in facts.grades:
        again = facts.again.get(name, 0) >= REPEATS
        return f'Positive(value="stars", at_least={facts.grades[name]:g}{"" if again else ", below=Never()"})'  # had, if not liked
    usual = facts.usual.get(name, 0)
    return f'Positive(value="seconds", usual={usual:g})' if nearest(name) == "watch" and usual else "Positive()"


def _beside(name: str, main: str, facts: Facts) -> str:
    """The meaning of a type that is not the main one: as good as it if it says as much of liking, else a hint, or nothing."""
    liked = facts.sessions and _said(name) < _said(main)  # a session goes on to what it puts into its cart as to what it looks at
    if name in facts.grades or meaning_of(name) == "Positive()" or (liked and meaning_of(name) in _LOOKED):
        return positive(name, facts)
    return meaning_of(name)


def system_file(name: str, chosen: Choices) -> str:
    """The file's text."""
    sources = list(_sources(chosen))
    rules = ["in_stock()", "not_recalled()"]
    rules += [f'at_most(3, per="{chosen.cap}")'] if chosen.cap else []
    rules += ["at_least(1, newer_than_days=14)"] if chosen.dated else []
    rules += [] if chosen.repeats >= REPEATS else ["not_seen()"]
    repeat = round(min(max(chosen.repeats, 0.1), 0.7), 1)
    kinds = sorted(source.partition("(")[0] for source in sources)
    used = sorted({rule.partition("(")[0] for rule in rules})
    meanings = sorted({made for meaning in chosen.events.values() for made in re.findall(r"(\w+)\(", meaning)})
    lines = [
        f'"""{name}: written by `shortlist new` to fit its data; every line may be changed."""',
        "",
        "from pathlib import Path",
        "",
        f"from serving.event_meanings import {', '.join(meanings)}",
        "from serving.objectives import Objective",
        *(f"from serving.retrieval.{kind} import {kind}" for kind in kinds),
        f"from serving.rules.specs import {', '.join(used)}",
        "from serving.system import Budget, Learning, System",
        "",
        f"{name.upper()} = System(",
        f'    name="{name}",',
        "    answer_size=10,",
        "    pool_size=1000,",
        "    light_size=200,",
        "    events={  # what each type says of the user's taste: see serving/event_meanings.py",
        *(f"        {_literal(kind)}: {meaning}," for kind, meaning in chosen.events.items()),
        "    },",
        "    sources=(  # where candidates come from, and their shares of the pool",
        *(f"        {source}," for source in sources),
        "    ),",
        "    objectives={",
        f'        "repeat": Objective("again positive", {repeat}),',
        f'        "discover": Objective("first positive", {round(1 - repeat, 1)}, listwise=0.3),',
        "    },",
        f"    rules=({', '.join(rules)}{',' if len(rules) == 1 else ''}),",
        "    budget=Budget(),",
        f"    learning=Learning({_learning(chosen)}),",
        f'    feature_repo=str(Path(__file__).with_name("{name}_features")),  # what is known of users and items: written with this file',
        '    fusion="learnt",  # how much each source says: from the weeks after the cuts',
        '    ingest="components.data.ingest:none_of_its_own",  # its tables come with --data DIR',
        '    noun="item",',
        f'    verb="{VERBS.get(nearest(chosen.main), "chose")}",',
        ")",
    ]
    return "\n".join(lines) + "\n"


def _learning(chosen: Choices) -> str:
    """How it is learnt: who is asked, and after how long it is judged."""
    often = f", every_days={chosen.horizon_days}" if chosen.horizon_days < Learning.every_days else ""
    return f"horizon_days={chosen.horizon_days}{often}, cuts=6" + (', asked="amid sessions"' if chosen.sessions else "")


def _sources(chosen: Choices) -> Iterator[str]:
    """The sources with something to work on; what the others would have had goes to the three that always have."""
    if chosen.sessions:
        yield from ("sessions(share=0.5)", "linear(share=0.3)", "trending(days=28, share=0.2)")
        return
    again, promoted = chosen.repeats >= REPEATS, chosen.promotions
    if again:
        yield "buy_again(tau_days=90, share=0.25)"
    left = 1 - (0.25 if again else 0) - (0.2 if promoted else 0)
    linear, towers = round(left * 0.45, 2), round(left * 0.35, 2)
    yield f"linear(share={linear})"
    yield f"two_tower(share={towers})"
    if promoted:
        yield "category_promotion(share=0.2)"
    yield f"trending(days=28, share={round(left - linear - towers, 2)})"


def _literal(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)
