"""Who may ask what, and how often. Nothing is checked until a keys file is given.

Then every route that is not a probe needs a key or a token.

The file is JSON:

    {"keys": [{"name": "web", "sha256": "<hex SHA-256 of the key>", "scopes": ["recommend", "events"], "rate": "500/second"}],
     "jwt": {"key": "<secret or PEM public key>", "algorithms": ["RS256"], "audience": "shortlist", "issuer": "…"},
     "user_rate": "20/second"}

`storage`, where it is told, is the Redis in which many machines count together: "storage": "redis://HOST:PORT/DB". The workers of one
machine count together in any case. A list costs 1 (with `leave_out` 2, with `only` 5), and 1 more for every further `LIST_ITEMS` items
asked for; a batch of events or items 1 for each `BATCH_ENTRIES` it has; safety messages nothing. A call that costs more than its rate
allows at a time is always refused.

A key comes as `X-API-Key: <key>`, a token as `Authorization: Bearer <jwt>` whose `scope` claim lists scopes separated by spaces.
"""

import hashlib
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from limits import RateLimitItem, parse
from limits.errors import ConfigurationError
from msgspec import Meta, Struct, field

from serving.http.counters import Counters, RedisCounters
from serving.messages import Asking, WireProblem

LIST_ITEMS, BATCH_ENTRIES = 200, 50  # that cost as much as one short list
LISTS_OF_ONLY, LISTS_WITHOUT = 5, 2  # lists that cost as much as one of a category, and as one without some items: 19, 6.5 of 3.4 ms
UNLIMITED = "safety"  # the scope whose calls are counted against no rate: a recall must not wait
_SECRET_BYTES = 32  # of a secret that tokens are signed with: a shorter one can be guessed

ScopeName = Literal["recommend", "events", "items", "safety", "why", "erase", "admin"]


class Key(Struct, forbid_unknown_fields=True, frozen=True):
    """One client's key."""

    name: str
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    scopes: frozenset[ScopeName]
    rate: str | None = None  # such as "500/second"; null: not limited


class Tokens(Struct, forbid_unknown_fields=True, frozen=True):
    """How bearer tokens are checked."""

    key: str
    algorithms: Annotated[list[Literal["HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA"]], Meta(min_length=1)]
    audience: str | None = None
    issuer: str | None = None
    rate: str | None = None  # a token's subject


class Keys(Struct, forbid_unknown_fields=True, frozen=True):
    """The keys file."""

    keys: list[Key] = field(default_factory=list)
    jwt: Tokens | None = None
    user_rate: str | None = None  # lists for one user, whoever asks
    storage: str = "memory://"  # or redis://…, so that machines count together


class BadKeys(ValueError):
    """The keys file cannot be used."""


class Client(Struct, frozen=True):
    name: str
    scopes: frozenset[str]
    rate: str | None


def load_keys(path: Path) -> Keys:
    """Raises `BadKeys` naming the field."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Keys)
    except (OSError, msgspec.DecodeError) as error:
        raise BadKeys(f"keys file {path}: {error}: see the head of serving/http/auth.py for its form") from error


class Guard:
    """Admits clients by key or token and counts them. Made with None it admits everybody."""

    def __init__(self, keys: Keys | None = None, counters: Counters | None = None, on_local: Callable[[], None] = lambda: None) -> None:
        self._keys = keys
        self._by_digest = {key.sha256: Client(key.name, key.scopes, key.rate) for key in keys.keys} if keys else {}
        self._rates: dict[str, RateLimitItem] = {}
        self._counters: Counters | RedisCounters = counters or Counters()
        if keys is not None:
            self._prepare(keys, on_local)

    def _prepare(self, keys: Keys, on_local: Callable[[], None]) -> None:
        rates = {key.rate for key in keys.keys} | {keys.user_rate, keys.jwt.rate if keys.jwt else None}
        try:
            self._rates = {rate: parse(rate) for rate in sorted(rate for rate in rates if rate)}
        except ValueError as error:
            raise BadKeys(f"a rate is not of the form '500/second': {error}") from error
        if keys.jwt is not None:
            _sound(keys.jwt)
        if keys.storage != "memory://":
            assert isinstance(self._counters, Counters)
            try:
                self._counters = RedisCounters(keys.storage, self._counters, on_local)
            except (ConfigurationError, ValueError) as error:
                raise BadKeys(f"storage {keys.storage!r} is none: write redis://HOST:PORT/DB, or leave it out ({error})") from error

    async def admit(self, scope: MutableMapping[str, Any], needed: str | None) -> str:
        """The client's name; the client is kept in `scope`, and the call counts 1.

        Raises `WireProblem`: 401 not known, 403 not allowed, 429 too often.
        """
        if self._keys is None or needed is None:
            return ""
        client = self._client(dict(scope["headers"]))
        if needed not in client.scopes and "admin" not in client.scopes:
            raise WireProblem(403, "forbidden", f"client {client.name!r} lacks the scope {needed!r}: ask for a key that has it")
        scope["client_admitted"] = client
        if needed != UNLIMITED:
            await self._count(client.rate, "client", client.name, 1)
        return client.name

    async def close(self) -> None:
        """Let the shared counters' connections go."""
        if isinstance(self._counters, RedisCounters):
            await self._counters.close()

    async def charge(self, scope: MutableMapping[str, Any], cost: int) -> None:
        """Count what an admitted call costs beyond 1, now that it is read. Raises `WireProblem` 429."""
        client: Client | None = scope.get("client_admitted")
        if client is not None and cost > 1:
            await self._count(client.rate, "client", client.name, cost - 1)

    async def admit_user(self, user_id: str, cost: int = 1) -> None:
        """Raises `WireProblem` 429 when one user asks too often."""
        if self._keys is not None and self._keys.user_rate:
            await self._count(self._keys.user_rate, "user", user_id, cost)

    async def _count(self, rate: str | None, kind: str, name: str, cost: int) -> None:
        if not rate:
            return
        limit, taken = self._rates[rate], f"{kind}/{name}"
        counters = self._counters
        fits = counters.take(limit, taken, cost) if isinstance(counters, Counters) else await counters.take(limit, taken, cost)
        if not fits:
            advice = "slow down" if cost <= limit.amount else f"this call alone costs {cost}, ask for less in one"
            raise WireProblem(429, "too_many_requests", f"this {kind} may ask {rate}: {advice}", retry_after=1)

    def _client(self, headers: dict[bytes, bytes]) -> Client:
        key = headers.get(b"x-api-key")
        if key is not None:
            found = self._by_digest.get(hashlib.sha256(key).hexdigest())
            if found is None:
                raise WireProblem(401, "unknown_key", "this API key is not known: check it")
            return found
        kind, _, token = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() == b"bearer" and self._keys is not None and self._keys.jwt is not None:
            return _bearer(token, self._keys.jwt)
        raise WireProblem(401, "no_key", "send X-API-Key, or Authorization: Bearer with a token")


def _bearer(token: bytes, how: Tokens) -> Client:
    import jwt

    try:
        claims = jwt.decode(
            token, how.key, algorithms=list(how.algorithms), audience=how.audience, issuer=how.issuer, options={"require": ["exp", "sub"]}
        )
    except (
        jwt.PyJWTError,
        ValueError,
        OverflowError,
        TypeError,
    ) as error:  # the others: claims that are no moments
        raise WireProblem(401, "bad_token", f"the token is refused ({error}): get a new one") from None
    scope = claims.get("scope", "")
    if not isinstance(scope, str):
        raise WireProblem(401, "bad_token", "the token's scope is not a text: list scopes in it, separated by spaces")
    return Client(str(claims["sub"])[:128], frozenset(scope.split()), how.rate)


def list_cost(asked: Asking) -> int:
    """What a list counts: more of a long one, and by its CPU one that leaves out some items, or most."""
    narrowed = LISTS_OF_ONLY if asked.only is not None else LISTS_WITHOUT if asked.leave_out else 1
    return -(-(asked.k or 1) // LIST_ITEMS) + narrowed - 1


def batch_cost(entries: int) -> int:
    """What a batch of events or items counts."""
    return max(-(-entries // BATCH_ENTRIES), 1)


def _sound(how: Tokens) -> None:
    """Raises `BadKeys` for a secret or a mixture of algorithms with which anybody could make tokens."""
    secret = [name for name in how.algorithms if name.startswith("HS")]
    if secret and len(secret) < len(how.algorithms):
        raise BadKeys("jwt.algorithms mixes HS… with others: a public key would be taken for a secret; name those of one kind")
    if secret and how.key.lstrip().startswith("-----BEGIN"):
        raise BadKeys("jwt.key is a public key, and jwt.algorithms say it is a secret: name RS256, ES256 or EdDSA")
    if secret and len(how.key.encode()) < _SECRET_BYTES:
        raise BadKeys(f"jwt.key has {len(how.key.encode())} bytes: give a secret of at least {_SECRET_BYTES}")
