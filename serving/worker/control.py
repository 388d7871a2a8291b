"""What a supervisor and a worker of its tell each other, over a socket pair: a line of JSON each. Its end is the end of the other side."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from serving.two_bundles import Split


class Word(msgspec.Struct, frozen=True, omit_defaults=True):
    """Up: ready, draining. Down: replaced (others take the new connections), release (`refused`: why the newest is not served; `split`)."""

    say: Literal["ready", "draining", "replaced", "release"]
    refused: str | None = None
    split: Split | None = None  # who answers whom from now on


_decode = msgspec.json.Decoder(Word).decode
_encode = msgspec.json.Encoder().encode


class Channel:
    """One end of the pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def of(cls, end: socket.socket) -> "Channel":
        return cls(*await asyncio.open_connection(sock=end))

    def tell(self, word: Word) -> None:
        """Never waits; what the other side does not live to read is dropped."""
        if not self._writer.is_closing():
            self._writer.write(_encode(word) + b"\n")

    async def heard(self, on: Callable[[Word], Any]) -> None:
        """Hand every word to `on`; returns when the other side is gone."""
        try:
            while line := await self._reader.readline():
                on(_decode(line))
        except ConnectionError:
            return

    def close(self) -> None:
        self._writer.close()
