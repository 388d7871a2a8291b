"""Who may ask what, and how often. Nothing is checked until a keys file is given.

Then every route that is not a probe needs a key or a token.

The file is JSON:

    {"keys": [{"name": "web", "sha256": "<hex SHA-256 of the key>", "scopes": ["recommend", "events"], "rate": "500/second"}],
     "jwt": {"key": "<secret or PEM public key>", "algorithms": ["RS256"], "audience": "shortlist", "issuer": "…"},
     "user_rate": "20/second"}

A key comes as `X-API-Key: <key>`, a token as `Authorization: Bearer <jwt>` whose `scope` claim lists scopes separated by spaces.
"""

import hashlib
from collections.abc import MutableMapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from serving.messages import WireProblem

ScopeName = Literal["recommend", "events", "items", "why", "admin"]


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
    storage: str = "memory://"  # or redis://…, so that workers count together


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

    def __init__(self, keys: Keys | None = None) -> None:
        self._keys = keys
        self._by_digest = {key.sha256: Client(key.name, key.scopes, key.rate) for key in keys.keys} if keys else {}
        self._rates: dict[str, Any] = {}
        self._limiter: Any = None
        if keys is not None:
            self._prepare(keys)

    def _prepare(self, keys: Keys) -> None:
        from limits import parse
        from limits.storage import storage_from_string
        from limits.strategies import SlidingWindowCounterRateLimiter

        self._limiter = SlidingWindowCounterRateLimiter(storage_from_string(keys.storage))
        rates = {key.rate for key in keys.keys} | {keys.user_rate, keys.jwt.rate if keys.jwt else None}
        try:
            self._rates = {rate: parse(rate) for rate in sorted(rate for rate in rates if rate)}
        except ValueError as error:
            raise BadKeys(f"a rate is not of the form '500/second': {error}") from error

    async def admit(self, scope: MutableMapping[str, Any], needed: str | None) -> str:
        """The client's name. Raises `WireProblem`: 401 not known, 403 not allowed, 429 too often."""
        if self._keys is None or needed is None:
            return ""
        headers = dict(scope["headers"])
        client = self._client(headers)
        if needed not in client.scopes and "admin" not in client.scopes:
            raise WireProblem(403, "forbidden", f"client {client.name!r} lacks the scope {needed!r}: ask for a key that has it")
        self._count(client.rate, "client", client.name)
        return client.name

    async def admit_user(self, user_id: str) -> None:
        """Raises `WireProblem` 429 when one user asks too often."""
        if self._keys is not None and self._keys.user_rate:
            self._count(self._keys.user_rate, "user", user_id)

    def _count(self, rate: str | None, kind: str, name: str) -> None:
        if rate and not self._limiter.hit(self._rates[rate], kind, name):
            raise WireProblem(429, "too_many_requests", f"this {kind} may ask {rate}: slow down", retry_after=1)

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
    except jwt.PyJWTError as error:
        raise WireProblem(401, "bad_token", f"the token is refused ({error}): get a new one") from None
    return Client(str(claims["sub"])[:128], frozenset(str(claims.get("scope", "")).split()), how.rate)
