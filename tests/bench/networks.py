"""The shop's networks with random weights: exported in halves as a release is, and whole as a naive build would."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from components.export.graphs import candidate_graph, item_graph, layers_of, write_request
from components.export.onnx import to_onnx
from components.ranking.model import Ranker
from components.ranking.model import Sizes as RankerSizes
from components.retrieval.tower_model import TowerConfig, Towers
from feature_repo.names import cross_names, request_names
from serving.bundle.catalogue import Catalogue
from serving.bundle.onnx import open_session
from serving.system import System

USER_FEATURES, ITEM_FEATURES = (
    tuple(f"{kind}_{number}" for number in range(count)) for kind, count in (("user", 17), ("item", 24))
)  # the shop's numbers of them

_BLOCK = 20_000


class Whole(nn.Module):
    """A ranker not cut in halves: every side once a candidate."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.ranker = ranker

    def forward(self, request: Tensor, features: Tensor, codes: Tensor, cross: Tensor) -> Tensor:
        return self.ranker(request, features, codes, cross)


def write_models(system: System, catalogue: Catalogue, dimensions: int, out: Path, whole: Path) -> None:
    """The four graphs and the halves of a bundle to `out`, `light.onnx` and `heavy.onnx` uncut to `whole`. FP32 throughout."""
    torch.manual_seed(0)
    widths = (len(request_names(USER_FEATURES)), len(ITEM_FEATURES), len(cross_names(system.kinds)))
    codes = (*(len(catalogue.category_names),) * catalogue.category.shape[1], len(catalogue.brand_names))
    heads = tuple(system.objectives)
    rankers = {name: _random(RankerSizes(*widths, codes, hidden, heads)) for name, hidden in (("light", (64,)), ("heavy", (128, 64)))}
    towers = Towers(TowerConfig(dimensions, len(USER_FEATURES), 1)).eval()
    out.mkdir(parents=True, exist_ok=True)
    whole.mkdir(parents=True, exist_ok=True)
    for name, ranker in rankers.items():
        (out / f"{name}.onnx").write_bytes(candidate_graph(ranker))
        layers_of(ranker).save(out / "layers" / name)
        (whole / f"{name}.onnx").write_bytes(_uncut(ranker))
    write_request(rankers["light"], rankers["heavy"], towers, out)
    item = item_graph(rankers["light"], rankers["heavy"], towers)
    (out / "item.onnx").write_bytes(item)
    _write_halves(item, catalogue, out / "halves")


def _random(sizes: RankerSizes) -> Ranker:
    ranker = Ranker(sizes).eval()
    random = np.random.default_rng(0)
    for norm, width in ((ranker.request_norm, sizes.request), (ranker.item_norm, sizes.item), (ranker.cross_norm, sizes.cross)):
        norm.fit(random.normal(size=(100, width)))
    return ranker


def _uncut(ranker: Ranker) -> bytes:
    sizes = ranker.sizes
    inputs = {
        "request": torch.zeros(3, sizes.request),
        "features": torch.zeros(3, sizes.item),
        "codes": torch.zeros(3, len(sizes.codes), dtype=torch.int64),
        "cross": torch.zeros(3, sizes.cross),
    }
    return to_onnx(Whole(ranker), inputs, ["logits"], [*inputs, "logits"])


def _write_halves(item: bytes, catalogue: Catalogue, folder: Path) -> None:
    """Item halves of the whole catalogue in float16, a block at a time. The content inputs are blank: only the halves are kept."""
    from serving.bundle.content import NUMBERS, TOKENS

    session = open_session(item)
    halves: dict[str, list[np.ndarray]] = {"light": [], "heavy": []}
    for begin in range(0, len(catalogue), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        codes = np.column_stack((catalogue.category[rows], catalogue.brand[rows])).astype(np.int64)
        given = {
            "features": np.asarray(catalogue.features[rows]),
            "codes": codes,
            "tokens": np.zeros((len(codes), TOKENS), np.int64),
            "numbers": np.zeros((len(codes), NUMBERS), np.float32),
        }
        for name, values in zip(halves, session.run(list(halves), given), strict=True):
            halves[name].append(values.astype(np.float16))
    folder.mkdir(parents=True, exist_ok=True)
    for name, blocks in halves.items():
        np.save(folder / f"{name}.npy", np.concatenate(blocks))
