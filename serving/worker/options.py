"""What a server is told at its start: one frozen dataclass, made from the command line and handed on."""

from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Literal

import tyro
from tyro.conf import FlagConversionOff

from serving.exposures.log import Keeping

Role = Literal["fused", "retrieval", "ranking", "recommender"]
Kernel = Literal["auto", "native", "pure"]
Level = Literal["debug", "info", "warning", "error"]
_DESCRIPTION = "Answer recommendation requests from one bundle."


@dataclass(frozen=True)
class Options:
    """One field an option; `python -m serving --help` prints the meanings below."""

    bundle: Path | None = None  # folder of a bundle; with follow: what to answer from where the file names none that can be
    system: str = "shop"  # name of a system, or path of a system file
    role: Role = "fused"
    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int = 0  # 0: no gRPC
    workers: int = 1  # processes that share the port
    users: Path | None = None  # StateTable folder at the bundle's cut; none: every user starts from their events
    state: str = ""  # sqlite:PATH or redis://…; empty: sqlite beside the events
    features: str = ""  # Feast's online store: sqlite:PATH or redis://HOST:PORT/DB; empty: users' features are those of the cut
    events: str = ""  # dir:PATH or kafka://HOST:PORT/TOPIC; empty: dir:.shortlist/serving
    exposures: Path | None = None  # folder of the exposure log; none: beside the events
    exposures_sample: float = Keeping().sample  # share of answers whose full record is kept; of all others what was shown
    exposures_days: float = Keeping().days  # that exposures are kept
    exposures_mb: int = Keeping().shown_bytes >> 20  # that what was shown may take; full records an eighth of it more
    exposures_to: str = ""  # kafka://HOST:PORT/TOPIC that takes what was shown too; empty: none
    keys: Path | None = None  # keys file (serving/http/auth.py); none: everybody may ask
    clock: str = "now"  # "now"; a timestamp at which the server's clock starts, for replays; "auto": the cut's, if long ago
    retrieval: str = ""  # HOST:PORT of the retrieval server (role recommender)
    ranking: str = ""  # HOST:PORT of the ranking server (role recommender)
    traces: str = ""  # OTLP/HTTP endpoint for traces; empty: none
    kernel: Kernel = "auto"  # native: the compiled loops or no start; pure: without them; auto: where they are installed
    drain_seconds: float = 0.0  # after SIGTERM, keep answering this long while not ready
    log_level: Level = "info"
    follow: Path | None = None  # release file (serving/worker/release.py): answer from what it names, and change when it does
    connections: int = 1024  # the most at a time, each worker
    rates: Path | None = None  # counts that a supervisor's workers share
    digest: str = ""  # sha256:…; a bundle of another digest is not served
    beside: str = ""  # a supervisor's word to its workers of a second bundle (serving/worker/release.py: Beside, as JSON)
    split: str = ""  # and of who answers whom (serving/two_bundles.py: Split, as JSON)
    listen_fd: int = -1  # a supervisor's listening socket, for its workers
    control_fd: int = -1  # a supervisor's end of the talk with this worker
    verify: bool = True  # False: the supervisor has hashed the bundle already
    signed_by: Path | None = None  # a public key, or a folder of them: bundles signed by none are refused

    @property
    def home(self) -> Path:
        """Where what the server writes goes when no other place is named."""
        return Path(self.events.removeprefix("dir:")) if self.events.startswith("dir:") else Path(".shortlist/serving")

    @property
    def keeping(self) -> Keeping:
        """How much of the exposures is kept, and how long."""
        return Keeping(self.exposures_sample, self.exposures_days, self.exposures_mb << 20, self.exposures_mb << 17)

    @property
    def state_url(self) -> str:
        return self.state or f"sqlite:{self.home / 'states.sqlite'}"

    @property
    def events_url(self) -> str:
        return self.events or f"dir:{self.home}"

    @property
    def start_day(self) -> float | None:
        """The clock's start in days since 1970; None: now."""
        if self.clock == "now":
            return None
        moment = datetime.fromisoformat(self.clock)
        if moment.tzinfo is None:
            raise ValueError(f"--clock {self.clock!r} has no time zone: write 2017-11-27T00:00:00+00:00")
        return moment.timestamp() / 86_400.0

    def arguments(self) -> list[str]:
        """The command line that gives these options."""
        line = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default and value is not None:
                line += [f"--{field.name.replace('_', '-')}", str(value)]
        return line


def online_file(home: Path, system: str) -> Path:
    """Feast's online store of a system on this machine: `shortlist materialize` fills it, its servers read it."""
    return home / "online" / f"{system}.db"


def parse(arguments: list[str]) -> Options:
    """Options from a command line; exits with a sentence when one is wrong."""
    options: Options = tyro.cli(Options, args=arguments, prog="python -m serving", description=_DESCRIPTION, config=(FlagConversionOff,))
    if options.bundle is None and options.follow is None:
        raise SystemExit("give --bundle DIR, or --follow FILE that names one: see --help")
    if options.role == "recommender" and not (options.retrieval and options.ranking) and options.follow is None:
        raise SystemExit("--role recommender needs --retrieval HOST:PORT and --ranking HOST:PORT, or --follow FILE that names them")
    return options
