"""The learnt models as the server runs them: ONNX graphs on one thread, item halves read from tables made at export.

A ranker's first layer is a sum of a user half (once a request), an item half (once a release) and a cross part (once a candidate); the
graphs here take the sum of the first two as an input. Shapes: C candidates, I items, D embedding, Fr request, Fx cross, Fi item
features, H hidden.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import BadFolder, Floats, Rows, check_finite
from serving.bundle.content import NUMBERS, TOKENS, Content
from serving.bundle.onnx import open_session
from serving.ranking.layers import Layers
from serving.ranking.user_side import Standard, UserLayers, of_length_one


class BadModels(ValueError):
    """A model file is missing, or its inputs are not what this code gives it."""


@dataclass(frozen=True)
class UserSide:
    """What the models know of the user: made once a request."""

    vector: Floats  # (D,) user tower; empty without a tower
    light: Floats  # (1, H)
    heavy: Floats  # (1, H)


Behind = Callable[[str, NDArray[Any], Callable[[int], NDArray[Any]]], NDArray[Any]]


def copied(_: str, base: NDArray[Any], rows: Callable[[int], NDArray[Any]]) -> NDArray[Any]:
    """A table and rows behind it, all of them made, in a table of its own."""
    return np.concatenate((base, rows(0)))


@dataclass(frozen=True)
class ItemSide:
    """What the models know of items: made once a release, and for items posted since."""

    vector: Floats  # (n, D) item tower; (n, 0) without a tower
    history: Floats  # (n, D) what an item adds to the history bag; (n, 0) without a tower
    light: Floats  # (n, H)
    heavy: Floats  # (n, H)
    behind: Behind = field(default=copied, repr=False)  # how tables of the release take the posted rows


@dataclass(frozen=True)
class Rankers:
    """The four graphs and the item halves of one release. Safe to share between threads."""

    sessions: Mapping[str, Any] = field(repr=False)  # request, item, light, heavy -> onnxruntime.InferenceSession
    halves: Mapping[str, NDArray[np.floating]] = field(repr=False)  # light, heavy -> (I, H)
    extra: Mapping[str, Floats] = field(default_factory=dict, repr=False)  # the same, of items posted since: rows I, I + 1, ...
    standard: Standard | None = field(default=None, repr=False)  # what request.onnx's features are brought to
    user_layers: UserLayers | None = field(default=None, repr=False)  # request.onnx, where they give the graph's bits
    layers: Mapping[str, Layers] = field(default_factory=dict, repr=False)  # light, heavy, where they give the graph's bits

    @classmethod
    def load(cls, folder: Path, items: int | None = None) -> Self:
        """`folder` holds the four graphs, request/ and halves/{light,heavy}.npy, a row for each item of the catalogue.

        Raises `BadModels` naming what is missing, or a number that is none.
        """
        files = {name: folder / f"{name}.onnx" for name in ("request", "item", "light", "heavy")}
        tables = {name: folder / "halves" / f"{name}.npy" for name in ("light", "heavy")}
        for path in (*files.values(), *tables.values()):
            if not path.is_file():
                raise BadModels(f"{path} is missing: export and pack the models again")
        sessions = {name: open_session(path) for name, path in files.items()}
        for name in ("light", "heavy"):
            given = [one.name for one in sessions[name].get_inputs()]
            if given != ["halves", "cross"]:
                raise BadModels(f"{files[name]} asks for {', '.join(given)}, expected halves, cross: export and pack the models again")
        halves = {name: _halves(path, items) for name, path in tables.items()}
        try:
            standard = Standard.load(folder / "request")
            made = cls(sessions, halves, {}, standard, layers=_layers(folder / "layers", sessions))
            layers = UserLayers.load(folder / "layers" / "request") if (folder / "layers" / "request").is_dir() else None
        except BadFolder as error:
            raise BadModels(f"{error}: export and pack the models again") from None
        return replace(made, user_layers=layers) if layers is not None and layers.agree(standard, made._by_graph) else made

    @property
    def heads(self) -> int:
        """How many heads both rankers have."""
        return heads_of(self.sessions["heavy"])

    @property
    def request_width(self) -> int:
        """Fr"""
        return 0 if self.standard is None else len(self.standard.mean)

    def user_side(self, features: Floats, bag: Floats | None = None) -> UserSide:
        """The user's side: features (<= Fr,), missing ones at the end are unknown; history bag (D,), or None without a tower."""
        assert self.standard is not None
        if len(features) > self.request_width:
            raise BadModels(
                f"expected at most {self.request_width} request features, got {len(features)}: serve the bundle's own code version"
            )
        found = None if self.user_layers is None else self.user_layers.sides(self.standard, features, bag)
        light, heavy, vector = found if found is not None else self._by_graph(features, bag)
        return UserSide(vector, light, heavy)

    def _by_graph(self, features: Floats, bag: Floats | None) -> tuple[Floats, Floats, Floats]:
        """Light half (1, H), heavy half (1, H), vector (D,), by request.onnx."""
        assert self.standard is not None
        given = {"inputs": self.standard.inputs(features)}
        if bag is not None and len(self.sessions["request"].get_inputs()) > 1:
            given["bag"] = bag.reshape(1, -1)
        light, heavy, *vector = self.sessions["request"].run(None, given)
        return light, heavy, of_length_one(vector[0][0]) if vector else np.empty(0, np.float32)

    def light(self, user: UserSide, rows: Rows, cross: Floats, at: Rows | None = None) -> Floats:
        """Logits (C, heads); with `at` (K,) those of the candidates at these positions alone: (K, heads)."""
        return self._score("light", user.light, rows, cross, at)

    def heavy(self, user: UserSide, rows: Rows, cross: Floats, at: Rows | None = None) -> Floats:
        """The same of the heavy ranker."""
        return self._score("heavy", user.heavy, rows, cross, at)

    def _score(self, name: str, user: Floats, rows: Rows, cross: Floats, at: Rows | None) -> Floats:
        table, layers = self.halves[name], self.layers.get(name)
        if layers is not None and len(rows) and (not len(self.extra.get(name, ())) or rows.max() < len(table)):
            found = layers.score(table, rows, user[0], cross, at)
            if found is not None:
                return found
        if at is not None:
            rows, cross = rows.take(at), cross.take(at, axis=0)
        return score(self.sessions[name], self._met(name, user, rows), cross)

    def _met(self, name: str, user: Floats, rows: Rows) -> Floats:
        """(C, H) what the sides of user (1, H) and items add up to."""
        return self.item_halves(name, rows) + user

    def item_halves(self, name: str, rows: Rows) -> Floats:
        """(C, H) float32 item halves of a ranker."""
        table, more = self.halves[name], self.extra.get(name)
        posted = rows >= len(table)
        found = np.empty((len(rows), table.shape[1]), np.float32)
        found[~posted] = table[rows[~posted]]
        if more is not None:
            found[posted] = more[rows[posted] - len(table)]
        return found

    def item(self, features: Floats, codes: NDArray[np.int32], content: Content | None = None) -> ItemSide:
        """The side of items posted since the release: features (n, Fi), NaN where unknown; codes (n, 4) of category levels and brand.

        `content` is what the item tower reads; needed where the release has towers.
        """
        given = {"features": np.ascontiguousarray(features, np.float32), "codes": np.ascontiguousarray(codes, np.int64)}
        if len(self.sessions["item"].get_inputs()) > len(given):
            if content is None:
                raise BadModels("this release has an item tower: give the items' content (serving.bundle.content.item_content)")
            given |= {"tokens": content.tokens.astype(np.int64), "numbers": content.numbers}
        outputs = dict(zip(("light", "heavy", "vector", "history"), self.sessions["item"].run(None, given), strict=False))
        none = np.empty((len(features), 0), np.float32)
        return ItemSide(outputs.get("vector", none), outputs.get("history", none), outputs["light"], outputs["heavy"])

    def item_half(self, name: str, features: Floats, codes: NDArray[np.int32]) -> Floats:
        """(n, H) one ranker's half of items with these features (n, Fi) and codes (n, 4): what it would be, were they others."""
        given = {"features": np.ascontiguousarray(features, np.float32), "codes": np.ascontiguousarray(codes, np.int64)}
        if len(self.sessions["item"].get_inputs()) > len(given):  # the towers' part of the graph, which no half reads
            given |= {"tokens": np.zeros((len(features), TOKENS), np.int64), "numbers": np.zeros((len(features), NUMBERS), np.float32)}
        half: Floats = self.sessions["item"].run([name], given)[0]
        return half

    def with_items(self, items: ItemSide) -> "Rankers":
        """The same models, knowing more items: rows from I on, in the order they are given."""
        grown = {
            name: np.concatenate((self.extra.get(name, new[:0]), new)) for name, new in (("light", items.light), ("heavy", items.heavy))
        }
        return replace(self, extra=grown)


def _halves(path: Path, items: int | None) -> NDArray[np.floating]:
    """(I, H) of one ranker, mapped."""
    table: NDArray[np.floating] = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    if table.ndim != 2 or len(table) != (len(table) if items is None else items) or table.dtype.kind != "f":
        raise BadModels(f"{path} is {table.dtype} of shape {table.shape}, expected a row of floats for each of {items} items: pack again")
    try:
        check_finite(path, table)
    except BadFolder as error:
        raise BadModels(str(error)) from None
    return table


def _layers(folder: Path, sessions: Mapping[str, Any]) -> dict[str, Layers]:
    """Those rankers' layers that answer like their graphs, to the bit."""
    found = {path.name: Layers.load(path) for path in (folder / "light", folder / "heavy") if path.is_dir()}
    return {name: layers for name, layers in found.items() if layers.agree(partial(score, sessions[name]))}


def score(session: Any, halves: Floats, cross: Floats) -> Floats:
    """Logits (C, heads) of one ranker from user half + item halves (C, H) and cross features (C, Fx); none for no candidates."""
    if not len(halves):
        return np.empty((0, heads_of(session)), np.float32)
    logits: Floats = session.run(None, {"halves": halves, "cross": cross})[0]
    return logits


def heads_of(session: Any) -> int:
    """Columns of a ranker's logits."""
    return int(session.get_outputs()[0].shape[1])
