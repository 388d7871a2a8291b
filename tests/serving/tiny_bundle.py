"""A complete bundle, built in a fraction of a second from arrays: 240 items, 12 users, rankers whose scores are known.

* Item `i###` lies in category ### % 12 (brand ### % 7). Every tenth item is new (10 days old); the last three are recalled, out of stock
  and blocked.
* The user `u##` has bought items ##, ## + 12, ## + 24 (one category), the first three times; `stranger` is not in the table.
* Linear: item n votes for n + 1 ... n + 20. Trending: the items in the order of their numbers, another one in region "west".
* Light logit = 0.5 x fused share + item half; heavy logit = the same x 2 less the item's number / 1000. Both heads alike.

`write_tiny(folder)` gives the bundle's folder, `states()` its users, `SYSTEM` its system; `DAY` is the moment it knows everything before.
"""

from pathlib import Path

import numpy as np

from feature_repo.names import TAUS_DAYS, cross_names, request_names
from serving.bundle.bundle import Bundle, feature_schema, settings_of, write_bundle
from serving.bundle.catalogue import Catalogue, item_key
from serving.bundle.fallback import Fallback
from serving.ranking.user_side import Standard
from serving.retrieval.buy_again import Habits
from serving.retrieval.linear import Neighbours
from serving.retrieval.trending import Lists
from serving.state.user_state import StateTable
from serving.system import System, load_system

ITEMS, USERS, CATEGORIES, BRANDS, NEIGHBOURS, WIDTH = 240, 12, 12, 7, 20, 4
DAY = 20_000.0  # days since 1970
USER_FEATURES, ITEM_FEATURES = (tuple(f"{kind}_{number}" for number in range(count)) for kind, count in (("user", 17), ("item", 24)))
PLACES = ("north", "south")
SYSTEM_FILE = Path(__file__).parent / "tiny_system.py"


def system() -> System:
    return load_system(str(SYSTEM_FILE))


def catalogue() -> Catalogue:
    numbers = np.arange(ITEMS)
    ids = np.array([f"i{number:03}" for number in numbers], "S")
    keys = np.array([item_key(item.decode()) for item in ids], np.uint64)
    titles = [f"THING {number}".encode() for number in numbers]
    planned = np.zeros((2, len(PLACES), ITEMS), np.uint8)
    planned[1, 0, 5::24] = 1  # the running week, in the north
    flags = np.zeros(ITEMS, np.uint8)
    flags[-3:] = [1, 2, 8]  # recalled, out of stock, blocked
    department = 1 + numbers % 3
    return Catalogue(
        item_ids=ids,
        keys=keys,
        key_order=np.argsort(keys).astype(np.int32),
        category=np.stack((department, 4 + numbers % CATEGORIES, 16 + numbers % (2 * CATEGORIES)), 1).astype(np.int32),
        brand=(numbers % BRANDS).astype(np.int32),
        created_day=np.where(numbers % 10 == 9, DAY - 10, DAY - 500),
        price=(1 + numbers / 100).astype(np.float32),
        flags=flags,
        title_bytes=np.frombuffer(b"".join(titles), np.uint8),
        title_ends=np.cumsum([len(title) for title in titles]),
        features=np.cos(numbers[:, None] + np.arange(len(ITEM_FEATURES))).astype(np.float32),
        plan_display=planned,
        plan_mailer=np.zeros_like(planned),
        plan_from=np.array([DAY - 10, DAY - 3]),
        plan_until=np.array([DAY - 3, DAY + 4]),
        feature_names=ITEM_FEATURES,
        category_names=("unknown", *(f"D{n}" for n in range(3)), *(f"D > C{n}" for n in range(12)), *(f"D > C > T{n}" for n in range(24))),
        brand_names=("unknown", *(f"brand {n}" for n in range(1, BRANDS))),
        places=PLACES,
        display_codes=("", "front"),
        mailer_codes=("",),
        cut_day=DAY,
    )


def states() -> StateTable:
    """The users: three items of one category each, the first bought three times, last 9 days before `DAY`."""
    table = catalogue()
    users = np.array([f"u{number:02}" for number in range(USERS)], "S")
    rows = np.concatenate([np.sort([n, n + 12, n + 24]) for n in range(USERS)])
    count = np.where(rows < 12, 3.0, 1.0).astype(np.float32)
    last = np.where(rows < 12, DAY - 9, DAY - 30)
    order = np.concatenate([3 * n + np.argsort(table.keys[rows[3 * n : 3 * n + 3]]) for n in range(USERS)])
    return StateTable(
        user_ids=users,
        ends=3 * np.arange(1, USERS + 1),
        keys=table.keys[rows][order],
        first_day=np.full(len(rows), DAY - 60)[order],
        last_day=last[order],
        counts=count[order],
        decayed=np.repeat(count[:, None], len(TAUS_DAYS), 1)[order],
        features=np.ones((USERS, len(USER_FEATURES)), np.float32),
        place=np.array(["north", "south"] * (USERS // 2), "S"),
        region=np.array(["east", "west", "unknown"] * (USERS // 3), "S"),
        consent=np.array(["full"] * (USERS - 1) + ["minimal"], "S"),
        created_day=np.full(USERS, DAY - 400),
        feature_names=USER_FEATURES,
        cut_day=DAY,
    )


def write_tiny(out: Path, user_lists: bool = True) -> Path:
    """Write the bundle below `out` and return its folder. `user_lists`: with a batch list for each user."""
    made, parts = system(), out / "parts"
    catalogue().save(parts / "item_table")
    _sources(parts / "sources")
    _models(parts, made)
    _fallback(user_lists).save(parts / "fallback")
    places = ("item_table", "sources", "halves", "fallback", "request", "request.onnx", "item.onnx", "light.onnx", "heavy.onnx")
    manifest = {
        "system": made.name,
        "settings": settings_of(made),
        "schema": feature_schema(USER_FEATURES, ITEM_FEATURES, made.kinds),
        "span": {"cut_day": DAY},
        "code_version": "test",
        "metrics": {},
        "parents": [],
    }
    return write_bundle({place: parts / place for place in places}, manifest, out)


def load_tiny(out: Path) -> Bundle:
    return Bundle.load(write_tiny(out))


def _sources(folder: Path) -> None:
    rows = np.arange(ITEMS, dtype=np.int32)
    Habits(np.ones(ITEMS, np.float32), 60.0).save(folder / "buy_again")
    Neighbours(
        rows=rows,
        position_of=rows,
        neighbours=((rows[:, None] + np.arange(1, NEIGHBOURS + 1)) % ITEMS).astype(np.uint16),
        weights=np.repeat(np.arange(NEIGHBOURS, 0, -1, dtype=np.int16)[None], ITEMS, 0),
        scales=np.full(ITEMS, 0.01, np.float32),
        tau_days=60.0,
    ).save(folder / "linear")
    lists = np.stack((rows, rows[::-1]))
    scores = np.repeat(np.linspace(1, 0.1, ITEMS, dtype=np.float32)[None], 2, 0)
    Lists(("everyone", "region:west"), lists, scores, scores[0]).save(folder / "trending")


def _fallback(user_lists: bool) -> Fallback:
    rows = np.arange(ITEMS, dtype=np.int32)
    users = np.array([f"u{number:02}" for number in range(USERS)] if user_lists else [], "S3")
    lists = np.stack([np.roll(rows, -20 * number)[:50] for number in range(len(users))]) if user_lists else np.empty((0, 50), np.int32)
    return Fallback(("east", "west"), np.stack((rows[30:90], rows[90:150])), rows[:60], users, lists)


def _models(folder: Path, made: System) -> None:
    """request.onnx, item.onnx, light.onnx, heavy.onnx and halves/: linear graphs."""
    requests, crosses = len(request_names(USER_FEATURES)), len(cross_names(made.kinds))
    fused = cross_names(made.kinds).index("fused_relative")
    numbers = np.arange(ITEMS, dtype=np.float32)
    (folder / "halves").mkdir(parents=True, exist_ok=True)
    half = np.zeros((ITEMS, WIDTH), np.float32)
    half[:, 0] = np.cos(numbers) / 10
    np.save(folder / "halves" / "light.npy", half)
    np.save(folder / "halves" / "heavy.npy", half - numbers[:, None] / 1000)
    weights = np.zeros((crosses, 2), np.float32)
    for name, factor in (("light", 0.5), ("heavy", 1.0)):
        weights[fused] = factor
        (folder / f"{name}.onnx").write_bytes(_ranker(weights))
    (folder / "request.onnx").write_bytes(_side({"inputs": 3 * requests}, ("light", "heavy")))
    zeros, ones, none = np.zeros(requests, np.float32), np.ones(requests, np.float32), np.empty(0, np.float32)
    Standard(zeros, ones, zeros, ones, none, none, 5.0).save(folder / "request")
    (folder / "item.onnx").write_bytes(_side({"features": len(ITEM_FEATURES), "codes": 4}, ("light", "heavy")))


def _ranker(weights: np.ndarray) -> bytes:
    """logits = cross @ weights + halves[:, :1]."""
    from onnx import TensorProto, helper, numpy_helper

    floats = TensorProto.FLOAT
    first = np.zeros((WIDTH, 2), np.float32)
    first[0] = 1
    nodes = [
        helper.make_node("MatMul", ["halves", "first"], ["base"]),
        helper.make_node("MatMul", ["cross", "weights"], ["seen"]),
        helper.make_node("Add", ["base", "seen"], ["logits"]),
    ]
    inputs = [("halves", ("C", WIDTH)), ("cross", ("C", len(weights)))]
    return _graph(
        nodes,
        inputs,
        [("logits", ("C", 2))],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(weights, "weights")],
        floats,
    )


def _side(inputs: dict[str, int], outputs: tuple[str, ...]) -> bytes:
    """Halves of zeros, as many as there are rows."""
    from onnx import TensorProto, helper, numpy_helper

    codes, rows_of = "codes" in inputs, next(iter(inputs))
    zeros = numpy_helper.from_array(np.zeros((1, WIDTH), np.float32), "zeros")
    axis = numpy_helper.from_array(np.array([1], np.int64), "axis")
    nothing = numpy_helper.from_array(np.zeros(1, np.float32), "nothing")
    nodes = [
        helper.make_node("IsNaN", [rows_of], ["missing"]),
        helper.make_node("Cast", ["missing"], ["counted"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["counted", "axis"], ["each"], keepdims=1),
        helper.make_node("Mul", ["each", "nothing"], ["none"]),
    ]
    nodes += [helper.make_node("Add", ["none", "zeros"], [name]) for name in outputs]
    rows = "n" if codes else 1
    given = [(rows_of, (rows, inputs[rows_of]))]
    more = [("codes", (rows, inputs["codes"]))] if codes else []
    return _graph(nodes, given, [(name, (rows, WIDTH)) for name in outputs], [zeros, axis, nothing], TensorProto.FLOAT, more)


def _graph(nodes: list, inputs: list, outputs: list, weights: list, kind: int, integers: list = ()) -> bytes:  # type: ignore[type-arg]
    from onnx import TensorProto, helper

    infos = [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs]
    infos += [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in integers]
    made = [helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs]
    model = helper.make_model(
        helper.make_graph(nodes, "tiny", infos, made, weights), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    return model.SerializeToString()
