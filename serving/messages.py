"""What is said on the wire: requests and responses as typed structs; unknown fields, wrong types and ranges are refused by name."""

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from feature_repo.schema import LONGEST_ID, LONGEST_TEXT, NO_CONTROL

MAX_ID = LONGEST_ID  # characters of an id, the same for the tables that are learnt from
MAX_TEXT = LONGEST_TEXT
MAX_K = 1000
MAX_BATCH = 1000  # events or items in one request
MAX_NAMES = 100  # categories or brands in one `only`
MAX_INSTANCES = 64  # requests in one prediction call
MAX_BODY = 1 << 20  # bytes of any request body

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID, pattern=NO_CONTROL)]
Name = Annotated[str, Meta(max_length=MAX_ID, pattern=NO_CONTROL)]
Text = Annotated[str, Meta(max_length=MAX_TEXT, pattern=r"^[^\x00]*$")]  # of several lines, if need be
Moment = Annotated[datetime, Meta(tz=True)]
Amount = Annotated[float, Meta(ge=0, le=1e12)]
NamedText = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT, pattern=NO_CONTROL)]
SESSION = "\x1f"  # before a session's id where states are kept: no user's id begins so


def whose(user_id: str, session_id: str) -> str:
    """Under which name a state is kept: the user's, else the session's; empty: nobody is named."""
    return user_id or (f"{SESSION}{session_id}" if session_id else "")


def _somebody(user_id: str, session_id: str) -> None:
    """Raises `ValueError`, worded as msgspec's own, where neither is named."""
    if not user_id and not session_id:
        raise ValueError("Object missing required field `user_id` (or `session_id`)")


class RequestContext(Struct, forbid_unknown_fields=True, frozen=True):
    """Where and how the question is asked."""

    place: Name = ""
    region: Name = ""
    device_type: Name = ""
    page: Name = ""


class Only(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """The items that are asked for: one of each kind named. A category is its whole path, and holds what is below it."""

    category: Annotated[tuple[NamedText, ...], Meta(max_length=MAX_NAMES)] = ()
    brand: Annotated[tuple[Id, ...], Meta(max_length=MAX_NAMES)] = ()
    price_from: Amount | None = None
    price_to: Amount | None = None
    newer_than_days: Annotated[float, Meta(gt=0, le=36_500)] | None = None
    items: Annotated[tuple[Id, ...], Meta(max_length=MAX_BATCH)] = ()

    def __bool__(self) -> bool:
        return self != _EVERYTHING


_EVERYTHING = Only()


class Asking(Struct, forbid_unknown_fields=True, frozen=True):
    """What every question for a list may say. Nothing: the usual list for nobody in particular."""

    user_id: Id = ""
    k: Annotated[int, Meta(ge=1, le=MAX_K)] | None = None  # null: the system's own answer size
    discover: bool = False  # leave out everything the user has had
    context: RequestContext = field(default_factory=RequestContext)
    session_id: Id = ""  # of whom no user is known: their state is that session's
    only: Only | None = None  # nothing but these
    leave_out: Annotated[tuple[Id, ...], Meta(max_length=MAX_BATCH)] = ()  # items

    @property
    def who(self) -> str:
        """Whose state is read: the user's, else the session's; empty: nobody's."""
        return whose(self.user_id, self.session_id)


class RecommendationRequest(Asking, forbid_unknown_fields=True, frozen=True):
    """Ask for the list of a user, or of a session without one."""

    def __post_init__(self) -> None:
        _somebody(self.user_id, self.session_id)


class SimilarRequest(Asking, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Ask for items like one."""

    item_id: Id


class PopularRequest(Asking, forbid_unknown_fields=True, frozen=True):
    """Ask for what most users had lately; of a region or place where the context names one."""


class Item(Struct, frozen=True):
    """One entry of a list, best first."""

    item_id: str
    score: float
    sources: tuple[str, ...]
    reason: str


class RecommendationResponse(Struct, frozen=True):
    """A list, and how it was made."""

    request_id: str
    bundle: str
    items: list[Item]
    degraded: dict[str, str] | None
    arm: str | None
    took_ms: float


class EventContext(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Where an event happened; `request_id` joins it to the answer it came from."""

    page: Name = ""
    query: Text = ""
    position: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    store: Name = ""
    region: Name = ""
    request_id: Name = ""


_UNSAID = datetime(1, 1, 1, tzinfo=UTC)


class Event(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Something a user did, or a session of nobody known. Sending the same event_id again changes nothing. Its type is one of `events`."""

    event_id: Id
    event_type: Id
    user_id: Id = ""  # or the session alone
    item_id: Id = ""  # required, as the timestamp is, though what stands before them is not
    timestamp: Moment = _UNSAID
    session_id: Name = ""
    device_type: Name = ""
    value: Amount | None = None
    price: Amount | None = None
    context: EventContext = field(default_factory=EventContext)

    def __post_init__(self) -> None:
        lacking = "item_id" if not self.item_id else "timestamp" if self.timestamp is _UNSAID else ""
        if lacking:
            raise ValueError(f"Object missing required field `{lacking}`")
        _somebody(self.user_id, self.session_id)

    @property
    def who(self) -> str:
        """Whose state it changes: the user's, else the session's."""
        return whose(self.user_id, self.session_id)


class EventBatch(Struct, forbid_unknown_fields=True, frozen=True):
    """Many events; each is accepted or refused by itself."""

    events: Annotated[list[msgspec.Raw], Meta(max_length=MAX_BATCH)]


class Refusal(Struct, frozen=True):
    """One entry of a batch that was not taken, and why."""

    index: int
    code: str
    message: str
    field: str | None = None


class EventsResponse(Struct, frozen=True):
    """What became of the events. Some of the accepted ones are counted apart: they are in the log and change no list of this release."""

    accepted: int
    duplicates: int
    refused: list[Refusal]
    without_effect: int = 0  # of before the tables that are served
    unknown_items: int = 0  # of an item that neither the release nor a post knows
    unused: dict[str, int] = {}  # of a type that moves no list: impressions, and what the system gives no meaning
    not_kept: int = 0  # of users whose consent is minimal: taken, and forgotten at once


class NewItem(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """All that is known of a posted item. `category`: path, widest first, joined by " > "."""

    item_id: Id
    category: Text = ""
    brand: Name = ""
    title: Text = ""
    price: Amount | None = None
    created_at: Moment | None = None
    policy_flags: Annotated[list[Literal["recalled", "out_of_stock", "adult", "blocked"]], Meta(max_length=4)] = field(default_factory=list)


class ItemPatch(Struct, forbid_unknown_fields=True, frozen=True):
    """A new item, or what is new of one that is known: what is not named stays as it was. Of an item of the release only the flags change.

    `recalled` and `blocked` are safety messages: naming them makes them hold, leaving them out does not end them (POST /v1/safety does).
    """

    item_id: Id
    category: Text | UnsetType = UNSET
    brand: Name | UnsetType = UNSET
    title: Text | UnsetType = UNSET
    price: Amount | UnsetType | None = UNSET
    created_at: Moment | UnsetType | None = UNSET
    policy_flags: Annotated[list[Literal["recalled", "out_of_stock", "adult", "blocked"]], Meta(max_length=4)] | UnsetType = UNSET


class ItemBatch(Struct, forbid_unknown_fields=True, frozen=True):
    items: Annotated[list[ItemPatch], Meta(min_length=1, max_length=MAX_BATCH)]


class SafetyMessage(Struct, forbid_unknown_fields=True, frozen=True):
    """An item that must not be shown to anybody, for a reason of that name; with `lift`, that the reason of that name is no more."""

    item_id: Id
    action: Literal["recall", "block", "hide", "delete"]
    lift: bool = False


class SafetyBatch(Struct, forbid_unknown_fields=True, frozen=True):
    messages: Annotated[list[SafetyMessage], Meta(min_length=1, max_length=MAX_BATCH)]


class SafetyResponse(Struct, frozen=True):
    """All were taken and hold; `unknown_items`: of an item that is not in the catalogue yet: they hold when it is."""

    taken: int
    unknown_items: int


class Deleted(Struct, frozen=True):
    """It is gone from every answer from now on. `known`: an item was in the catalogue; of users nobody is told whether they were there."""

    deleted: str
    known: bool | None = None


class ItemsResponse(Struct, frozen=True):
    accepted: int
    updated: int
    refused: list[Refusal]
    version: int


class Instances(Struct, forbid_unknown_fields=True, frozen=True):
    """The v1 inference protocol's body; an instance is a recommendation request."""

    instances: Annotated[list[RecommendationRequest], Meta(min_length=1, max_length=MAX_INSTANCES)]


class Predictions(Struct, frozen=True):
    predictions: list[RecommendationResponse]


class ErrorBody(Struct, frozen=True):
    code: str
    message: str
    field: str | None = None


class ErrorResponse(Struct, frozen=True):
    error: ErrorBody


class InferenceError(Struct, frozen=True):
    """An error as the inference protocols' clients read it."""

    error: str


class WireProblem(Exception):
    """A request that cannot be served as asked: HTTP status, code, message and the field it is about."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.field, self.retry_after = status, code, message, field, retry_after


ERASE = "$erase"  # the type of the log's entry that a user was deleted: no client may send it
T = TypeVar("T")
_AT = re.compile(r" - at `\$\.?(.*)`$", re.DOTALL)
_NAMED = re.compile(r"^Object (?:contains unknown|missing required) field `(.*?)`", re.DOTALL)
encode = msgspec.json.Encoder(decimal_format="number").encode


def decode(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw) -> T:
    """The body as the decoder's type. Raises `WireProblem` (400 or 422) naming the field."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireProblem(400, "bad_json", f"the body is not JSON in UTF-8 ({error}): send one JSON object") from None
    except RecursionError:
        raise WireProblem(400, "bad_json", "the body is nested too deeply: send the documented object") from None


def _refusal(text: str) -> WireProblem:
    """A validation message as a problem: `Object contains unknown field `x` - at `$.context`` is about context.x."""
    at = _AT.search(text)
    path = at.group(1) if at else ""
    what = text[: at.start()] if at else text
    named = _NAMED.match(what)
    if named:
        path = f"{path}.{named.group(1)}".lstrip(".")
        known = what.startswith("Object missing")
        code, advice = ("missing_field", "add it") if known else ("unknown_field", "remove it, or check its spelling")
        return WireProblem(422, code, f"{what}: {advice}", path[:MAX_ID])
    return WireProblem(422, "bad_value", f"{path[:MAX_ID] or 'body'}: {what}: see /openapi.json", path[:MAX_ID] or None)


class _Peek(Struct):
    events: msgspec.Raw | UnsetType = UNSET


_peek = msgspec.json.Decoder(_Peek)
_batch = msgspec.json.Decoder(EventBatch)
_event = msgspec.json.Decoder(Event)
recommendation = msgspec.json.Decoder(RecommendationRequest)
similar = msgspec.json.Decoder(SimilarRequest)
popular = msgspec.json.Decoder(PopularRequest)
instances = msgspec.json.Decoder(Instances)
item_batch = msgspec.json.Decoder(ItemBatch)
safety_batch = msgspec.json.Decoder(SafetyBatch)


def id_of(text: str, field: str) -> str:
    """An id that came in a path. Raises `WireProblem` 422 naming the field."""
    try:
        return msgspec.convert(text, Id)
    except msgspec.ValidationError as error:
        raise WireProblem(422, "bad_value", f"{field}: {error}: see /openapi.json", field) from None


def events(body: bytes, types: Collection[str]) -> tuple[dict[int, Event], list[Refusal]]:
    """The events of a body by their place in it, and the entries refused; a body that is one bad event raises `WireProblem`.

    `types`: those the system knows (`System.event_types`).
    """
    if decode(_peek, body).events is UNSET:
        return {0: _known(decode(_event, body), types)}, []
    taken: dict[int, Event] = {}
    refused: list[Refusal] = []
    for index, raw in enumerate(decode(_batch, body).events):
        try:
            taken[index] = _known(decode(_event, raw), types)
        except WireProblem as problem:
            refused.append(Refusal(index, problem.code, problem.message, problem.field))
    return taken, refused


def _known(event: Event, types: Collection[str]) -> Event:
    """The event, if its type is one of those."""
    if event.event_type not in types:
        message = f"event_type: {event.event_type!r} is none of {', '.join(types)}: correct it, or name it in the system's `events`"
        raise WireProblem(422, "bad_value", message, "event_type")
    return event


def error(problem: WireProblem) -> bytes:
    return encode(ErrorResponse(ErrorBody(problem.code, problem.message, problem.field)))
