"""A system: one readable file that says what is asked, from which sources, by which rules, within which time.

`load_system("shop")` reads `serving/systems/shop.py`; `load_system("path/to/file.py")` any other. The file holds exactly one `System`.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

from feature_repo.names import CROSS_FEATURES
from serving.event_meanings import Meaning, Positive, Signal, check_codes, positives_of, signals_of, type_code, types_of, with_usual
from serving.networks import COMPRESSION, HEAVY, LIGHT, Compression, Network
from serving.objectives import DiversityTerm, Objective, check_objectives
from serving.remote import local

Value = float | int | str | bool
Promote = Literal["passed", "by hand"]
Asked = Literal["users", "amid sessions"]
Fusion = Literal["as written", "learnt"]


@dataclass(frozen=True)
class SourceSpec:
    """One candidate source: which kind, its share of the pool, and its settings."""

    kind: str  # of `serving.retrieval.sources.SOURCES` and its twins, or "module:Class" of one's own
    share: float  # of the pool, guaranteed before fused ranks fill the rest; all shares sum to 1
    settings: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def of(cls, kind: str, share: float, weight: float, discover_weight: float, offset: float, **settings: Value) -> Self:
        """A source with its say in fusion (`serving/retrieval/fusion.py`): its weight, that among discoveries, and its offset.

        The kinds' defaults were chosen on the choosing week (2017-11-27). With one weight and offset for all, NDCG@10 over all items falls
        from .32 to .25: the history must be sharp, the others flat.
        """
        return cls(kind, share, {"weight": weight, "discover_weight": discover_weight, "offset": offset, **settings})

    @property
    def folder(self) -> str:
        """Where its arrays lie, beside those of the other sources."""
        return self.kind.replace(":", ".")


@dataclass(frozen=True)
class Rule:
    """One rule: a frozen dataclass of a class in `serving/rules/rule.py`, its fields the settings. Rules run in the order of the file."""

    kind: ClassVar[str] = ""  # of `serving.rules.specs.RULES`, or "module:Class" of one's own

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.kind = f"{cls.__module__}:{cls.__qualname__}"


@dataclass(frozen=True)
class Budget:
    """Milliseconds a request may take, whole and by stage; a spent stage hands over to the next rung."""

    total_ms: float = 100
    features_ms: float = 10  # the online read
    retrieval_ms: float = 30
    models_ms: float = 50  # user side, light and heavy together
    rules_ms: float = 10


@dataclass(frozen=True)
class Learning:
    """How the system is learnt."""

    positives: tuple[str, ...] = ("purchase",)  # event types that count as liking an item
    horizon_days: int = 7  # labels: positives in the days after a cut; also the evaluation's target
    cuts: int = 6  # rolling cuts the rankers learn from
    every_days: int = 7  # between two cuts: a week where weeks repeat themselves, less where all of it happened in a few
    session_weights: Mapping[str, float] = field(  # weight in the history bag of events that are not positives
        default_factory=lambda: {"click": 0.6, "product_view": 0.3, "add_to_cart": 1.0, "like": 1.0}
    )
    session_tau_days: float = 0.5  # decay of those weights
    events: Mapping[str, Meaning] = field(default_factory=dict)  # the system's own table, from which the two above then derive
    processes: int = 1  # that learn towers and rankers together (`components/together.py`); more than one where examples are many
    cross: tuple[str, ...] = ()  # "module:function" of each cross feature of its own (`serving/ranking/features.py`)
    light: Network = LIGHT  # the rankers' widths; --fast learns smaller ones
    heavy: Network = HEAVY
    compression: Compression = COMPRESSION
    diversity: DiversityTerm | None = None  # a term of the rankers' loss
    asked: Asked = "users"  # for whom lists are learnt and judged after a cut: those known by then, or whoever comes, amid their session

    def __post_init__(self) -> None:
        if self.asked not in get_args(Asked):
            raise ValueError(f"asked is {self.asked!r}, expected one of {', '.join(map(repr, get_args(Asked)))}")
        if self.events:
            object.__setattr__(self, "positives", positives_of(self.events))
            object.__setattr__(self, "session_weights", signals_of(self.events))
        names = [*CROSS_FEATURES, *(path.rpartition(":")[2] for path in self.cross)]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise ValueError(f"there is a cross feature {twice!r} twice: name the function in `cross` otherwise")

    @property
    def least_days(self) -> int:
        """Between the last cut that is learnt from and the one that is judged: its labels lie before that."""
        return max(self.every_days, self.horizon_days)

    @cached_property
    def meanings(self) -> Mapping[str, Meaning]:
        """What every type means: the one table that states, labels, sources, session, rules and the server read."""
        made = {name: Signal(weight) for name, weight in self.session_weights.items()} | {name: Positive() for name in self.positives}
        return with_usual(self.events or made)

    @cached_property
    def type_of_code(self) -> Mapping[int, str]:
        """The event type behind each code that a state may hold."""
        return {type_code(name): name for name in types_of(self.meanings)}

    @cached_property
    def own_cross(self) -> Mapping[str, Any]:
        """The function behind each "module:function" of `cross`. Raises `UnknownName` for one that names nothing."""
        return {path: named(path) for path in self.cross}

    @cached_property
    def weight_of_code(self) -> Mapping[int, float]:
        """What a session event of each code weighs."""
        return {type_code(name): weight for name, weight in self.session_weights.items()}


@dataclass(frozen=True)
class System:
    """Everything that makes one recommender different from another."""

    name: str
    answer_size: int  # items in an answer
    pool_size: int  # candidates retrieved
    light_size: int  # candidates the light ranker keeps for the heavy one
    sources: tuple[SourceSpec, ...]
    objectives: Mapping[str, Objective]  # the rankers' heads by name: what each learns, and its weight in the score
    rules: tuple[Rule, ...]
    budget: Budget
    learning: Learning
    feature_repo: str  # folder of its Feast repo, relative to this project or absolute
    ingest: str  # "module:function" that writes the four tables, called with an output folder
    noun: str = "item"  # what one answer entry is called in a sentence
    verb: str = "chose"  # what a positive event is called in a sentence, past tense
    hybrid: bool = False  # True: pools come from the last `shortlist batch`, re-ranked in real time
    promote: Promote = "by hand"  # who makes a bundle champion: the gate, or a person who moves the alias
    events: Mapping[str, Meaning] = field(default_factory=dict)  # what each event type means; empty: as `learning` says
    fusion: Fusion = "as written"  # how much each source says in the fused rank: its weight in `sources`, or what its weeks taught

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the sources, in the file's order: features and fused ranks come in it."""
        return tuple(source.kind for source in self.sources)

    @property
    def event_types(self) -> tuple[str, ...]:
        """The types an event may be of: the schema's, and those this system names itself."""
        return types_of(self.events)

    def __post_init__(self) -> None:
        if self.events:
            if not positives_of(self.events):
                raise ValueError(f"system {self.name}: none of its events is Positive(), so it has nothing to learn: name one in `events`")
            check_codes(self.event_types)
            object.__setattr__(self, "learning", replace(self.learning, events=self.events))
        check_objectives(self.objectives, self.event_types)
        total = sum(source.share for source in self.sources)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"system {self.name}: source shares sum to {total:.3f}, expected 1: correct the shares in its file")
        if self.promote not in get_args(Promote):
            raise ValueError(f"system {self.name}: promote is {self.promote!r}, expected one of {', '.join(map(repr, get_args(Promote)))}")
        if self.fusion not in get_args(Fusion):
            raise ValueError(f"system {self.name}: fusion is {self.fusion!r}, expected one of {', '.join(map(repr, get_args(Fusion)))}")
        if not self.answer_size <= self.light_size <= self.pool_size:
            raise ValueError(
                f"system {self.name}: expected answer_size <= light_size <= pool_size, "
                f"got {self.answer_size}, {self.light_size}, {self.pool_size}: correct its stages"
            )


class UnknownName(ValueError):
    """A "module:name" of a system file names nothing that can be imported here."""


def named(path: str) -> Any:
    """What a "module:name" of a system file names. Raises `UnknownName` saying what is missing."""
    module, _, name = path.partition(":")
    try:
        found = importlib.import_module(module)
    except (ImportError, SyntaxError) as error:
        raise UnknownName(
            f"{path!r} cannot be imported ({error}): install its package here, or put the folder that holds it on PYTHONPATH"
        ) from error
    if not hasattr(found, name):
        raise UnknownName(f"module {module} ({found.__file__}) has no {name!r}: correct the name in the system file")
    return getattr(found, name)


class UnknownSystem(ValueError):
    """The named system has no file."""


def load_system(name: str) -> System:
    """The `System` in `serving/systems/<name>.py`, or in the file `name` when it ends in `.py`; s3://BUCKET/PATH.py is fetched first.

    Raises `UnknownSystem` when there is no such file, or when it does not hold exactly one System.
    """
    folder = Path(__file__).parent / "systems"
    path = Path(local(name)) if name.endswith(".py") else folder / f"{name}.py"
    if not path.is_file():
        known = sorted(file.stem for file in folder.glob("[a-z]*.py"))
        raise UnknownSystem(f"no system {name!r}: known are {', '.join(known)}; or give the path of a system file ending in .py")
    spec = importlib.util.spec_from_file_location(f"_system_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UnknownSystem(f"{path} cannot be imported: check that it is a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = [value for value in vars(module).values() if isinstance(value, System)]
    if len(found) != 1:
        raise UnknownSystem(f"{path} holds {len(found)} systems, expected one: assign exactly one System(...) in it")
    return found[0]
