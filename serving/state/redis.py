"""Users' states in Redis: one GET a request, and changes that two workers may make at once (WATCH, MULTI, EXEC).

Reads fail after their time limit instead of waiting: the ladder answers from the cut's table then, and a breaker stops asking for a while.
"""

from collections.abc import Sequence
from typing import Any

import redis

from serving.state.store import Change, StoreUnavailable

_TRIES = 20  # of a change that another worker got in between
_WRITE_SECONDS = 1.0  # changes run beside the requests and may take longer than a read
_PREFIX = "shortlist"


class RedisStore:
    """`redis://HOST:PORT/DB` or `unix://PATH`; keys `shortlist:state:<user>` and `shortlist:recent:<user>`. One thread's own connection."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        again = Retry(NoBackoff(), 0)
        self._url = url.rsplit("@", 1)[-1]  # without a password, for messages
        common: dict[str, Any] = {"single_connection_client": False, "retry": again, "health_check_interval": 0}
        self._reader: Any = redis.Redis.from_url(url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds, **common)
        self._writer: Any = redis.Redis.from_url(url, socket_timeout=_WRITE_SECONDS, socket_connect_timeout=_WRITE_SECONDS, **common)

    def get(self, user_id: str) -> bytes | None:
        try:
            value: bytes | None = self._reader.get(f"{_PREFIX}:state:{user_id}")
        except redis.RedisError as error:
            raise StoreUnavailable(f"user states at {self._url} cannot be read ({error})") from error
        return value

    def change(self, user_ids: Sequence[str], fold: Change) -> None:
        try:
            for user_id in user_ids:
                self._change(user_id, fold)
        except redis.RedisError as error:
            raise StoreUnavailable(f"user states at {self._url} cannot be written ({error})") from error

    def _change(self, user_id: str, fold: Change) -> None:
        names = (f"{_PREFIX}:state:{user_id}", f"{_PREFIX}:recent:{user_id}")
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
