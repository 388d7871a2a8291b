"""What an item is, as the item tower reads it: the one function for items of the catalogue and for items posted a moment ago.

Category path, brand and words of the title are hashed into one table of buckets, so an unseen brand or word needs no new table.
Shapes: I items, T token slots, F numbers.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import CATEGORY_LEVELS, PATH_SEPARATOR
from serving.bundle.catalogue import Catalogue

BUCKETS = 16_384  # bucket 0: nothing
WORDS = 8  # of a title that are read
TOKENS = CATEGORY_LEVELS + 1 + WORDS  # T: path down to each level, brand, words
NUMBERS = 2  # F: log of the price, log of the first number in the title (mostly a size); NaN unknown

V = TypeVar("V")
_WORD = re.compile(r"[^\W\d_]{2,}")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Content:
    """What the item tower reads of some items."""

    tokens: NDArray[np.int32]  # (I, T) buckets
    numbers: NDArray[np.float32]  # (I, F) NaN unknown


def item_content(category: str = "", brand: str = "", title: str = "", price: float = math.nan) -> Content:
    """Content of one item from its own fields: (1, T), (1, F). `category` is a path, widest level first."""
    levels = category.split(PATH_SEPARATOR) if category else []
    paths = [PATH_SEPARATOR.join(levels[: depth + 1]) if depth < len(levels) else "" for depth in range(CATEGORY_LEVELS)]
    tokens = [*(_bucket("path", path) for path in paths), _bucket("brand", brand), *_words(title)]
    return Content(np.array([tokens], np.int32), np.array([[_log(price), _size(title)]], np.float32))


def catalogue_content(catalogue: Catalogue) -> Content:
    """Content of every item of the catalogue: (I, T), (I, F). The same values as `item_content` of each item's fields."""
    paths = np.array([_bucket("path", "" if code == 0 else path) for code, path in enumerate(catalogue.category_names)], np.int32)
    brands = np.array([_bucket("brand", "" if code == 0 else name) for code, name in enumerate(catalogue.brand_names)], np.int32)
    titles = _titles(catalogue)
    tokens = np.zeros((len(catalogue), TOKENS), np.int32)
    tokens[:, :CATEGORY_LEVELS] = paths[catalogue.category]
    tokens[:, CATEGORY_LEVELS] = brands[catalogue.brand]
    words = _remembered(_words)
    sizes = _remembered(_size)
    tokens[:, CATEGORY_LEVELS + 1 :] = [words(title) for title in titles] if titles else 0
    price = np.asarray(catalogue.price)
    logs = np.where(price > 0, np.log1p(np.maximum(price, 0)), np.nan)
    return Content(tokens, np.stack([logs, np.array([sizes(title) for title in titles], np.float32)], axis=1).astype(np.float32))


def _titles(catalogue: Catalogue) -> list[str]:
    text = catalogue.title_bytes.tobytes()
    ends = catalogue.title_ends.tolist()
    return [text[begin:end].decode() for begin, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else []


def _bucket(kind: str, value: str) -> int:
    return crc32(f"{kind}:{value.lower()}".encode()) % (BUCKETS - 1) + 1 if value else 0


def _words(title: str) -> list[int]:
    found = [_bucket("word", word) for word in _WORD.findall(title)[:WORDS]]
    return found + [0] * (WORDS - len(found))


def _size(title: str) -> float:
    found = _NUMBER.search(title)
    return math.log1p(float(found.group())) if found else math.nan


def _log(price: float) -> float:
    return math.log1p(price) if price > 0 else math.nan


def _remembered(function: Callable[[str], V]) -> Callable[[str], V]:
    """Many items share a title: each distinct one is read once."""
    known: dict[str, V] = {}

    def remembered(title: str) -> V:
        if title not in known:
            known[title] = function(title)
        return known[title]

    return remembered
