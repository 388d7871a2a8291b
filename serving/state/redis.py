"""Users' states in Redis: one MGET a request, and changes that two workers may make at once (WATCH, MULTI, EXEC).

Reads fail after their time limit instead of waiting: the ladder answers from the cut's table then, and a breaker stops asking for a while.
"""

from collections.abc import Sequence
from typing import Any

import redis

from serving.state.feast_row import HashRows
from serving.state.store import WHOLE, Change, Found, StoreUnavailable

_TRIES = 20  # of a change that another worker got in between
_WRITE_SECONDS = 1.0  # changes run beside the requests and may take longer than a read
_PREFIX = "shortlist:3"  # of what is kept: under another version everything is folded anew from the log


class RedisStore:
    """`redis://HOST:PORT/DB` or `unix://PATH`; keys `shortlist:3:state:<user>`, `shortlist:3:recent:<user>` and
    `shortlist:3:position:<log>`.

    `log`: the name of the log that is folded here; empty: none is, and the store counts as whole. One thread's own connection.
    `rows`: how Feast keeps users' features in this very Redis: they are read in the state's round trip.
    """

    def __init__(self, url: str, timeout_seconds: float, log: str = "", rows: HashRows | None = None) -> None:
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        again = Retry(NoBackoff(), 0)
        self._url = url.rsplit("@", 1)[-1]  # without a password, for messages
        self._rows = rows
        self._log, self._position = log, f"{_PREFIX}:position:{log}"
        common: dict[str, Any] = {"single_connection_client": False, "retry": again, "health_check_interval": 0}
        self._reader: Any = redis.Redis.from_url(url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds, **common)
        self._writer: Any = redis.Redis.from_url(url, socket_timeout=_WRITE_SECONDS, socket_connect_timeout=_WRITE_SECONDS, **common)

    def get(self, user_id: str) -> Found:
        names, rows = (f"{_PREFIX}:state:{user_id}", self._position), self._rows
        try:
            if rows is None:
                (value, position), row = self._reader.mget(*names), None
            else:
                with self._reader.pipeline(transaction=False) as pipe:
                    pipe.mget(*names).hmget(rows.key(user_id), rows.fields)
                    (value, position), fields = pipe.execute()
                row = rows.row(fields)
        except redis.RedisError as error:
            raise StoreUnavailable(f"user states at {self._url} cannot be read ({error})") from error
        return Found(value, not self._log or (position is not None and position.startswith(WHOLE)), row)

    def position(self) -> bytes | None:
        try:
            found: bytes | None = self._writer.get(self._position)
        except redis.RedisError as error:
            raise StoreUnavailable(f"user states at {self._url} cannot be read ({error})") from error
        return found

    def commit(self, expected: bytes | None, reached: bytes, user_ids: Sequence[str], fold: Change) -> bool:
        try:
            for _ in range(_TRIES):
                done = self._commit(expected, reached, user_ids, fold)
                if done is not None:
                    return done
        except redis.RedisError as error:
            raise StoreUnavailable(f"user states at {self._url} cannot be written ({error})") from error
        raise StoreUnavailable(f"users' states at {self._url} were changed {_TRIES} times while they were being written: try again")

    def _commit(self, expected: bytes | None, reached: bytes, user_ids: Sequence[str], fold: Change) -> bool | None:
        """None: another worker got in between."""
        names = [name for user_id in user_ids for name in _names(user_id)]
        with self._writer.pipeline() as pipe:
            try:
                pipe.watch(self._position, *names)
                position, *values = pipe.mget(self._position, *names)
                if position != expected:
                    return False
                pairs = [fold(user_id, *values[2 * at : 2 * at + 2]) for at, user_id in enumerate(user_ids)]
                pipe.multi()
                pipe.mset({**dict(zip(names, (part for pair in pairs for part in pair), strict=True)), self._position: reached})
                pipe.execute()
            except redis.WatchError:
                return None
        return True

    def change(self, user_ids: Sequence[str], fold: Change) -> None:
        try:
            for user_id in user_ids:
                self._change(user_id, fold)
        except redis.RedisError as error:
            raise StoreUnavailable(f"user states at {self._url} cannot be written ({error})") from error

    def _change(self, user_id: str, fold: Change) -> None:
        names = _names(user_id)
        with self._writer.pipeline() as pipe:
            for _ in range(_TRIES):
                try:
                    pipe.watch(*names)
                    state, recent = fold(user_id, *pipe.mget(names))
                    pipe.multi()
                    pipe.mset({names[0]: state, names[1]: recent})
                    pipe.execute()
                    return
                except redis.WatchError:
                    continue
        raise StoreUnavailable(f"a user's state at {self._url} was changed {_TRIES} times while it was being written: try again")

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


def _names(user_id: str) -> tuple[str, str]:
    return f"{_PREFIX}:state:{user_id}", f"{_PREFIX}:recent:{user_id}"
