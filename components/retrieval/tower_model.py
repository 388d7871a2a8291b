"""Two towers: a user's vector from history and features, an item's from content and, where it was sold, from its own row.

    score(u, i) = user(u) . item(i) / TEMPERATURE + prior(i)

Both outputs have length one. `prior` is the log of how many users had the item lately (see `components/retrieval/two_tower.py`): the towers
learn what is particular to a user and need not learn popularity, which is fresh at every cut.
Shapes: B batch, T token slots, F numbers, Fu user features, D dimensions, I items.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from serving.bundle.content import BUCKETS, NUMBERS

TEMPERATURE = 0.15  # new R@1000 on the choosing week: .303 at .1, .3075 at .2, repeats a little better at .1


@dataclass(frozen=True)
class TowerConfig:
    """What a tower is made of; saved beside its weights."""

    dimensions: int  # D
    user_features: int  # Fu
    items: int  # I
    hidden: int = 64  # of the user's features


class ItemTower(nn.Module):
    """(tokens (B, T) int64, numbers (B, F), own (B, D) or None) -> (B, D) of length one.

    `own` is what was learnt of the very item; without it (a new item, half of training) content alone must do.
    """

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(BUCKETS, config.dimensions, padding_idx=0, sparse=True)
        self.numbers = nn.Linear(NUMBERS, config.dimensions)
        self.register_buffer("mean", torch.zeros(NUMBERS))
        self.register_buffer("spread", torch.ones(NUMBERS))

    def forward(self, tokens: Tensor, numbers: Tensor, own: Tensor | None = None) -> Tensor:
        content = self.tokens(tokens).sum(dim=1) + self.numbers(_standardised(numbers, self.mean, self.spread))  # (B, D)
        return normalize(content if own is None else content + own, dim=-1)


class UserTower(nn.Module):
    """(features (B, Fu), bag (B, D)) -> (B, D) of length one. NaN features count as average; a zero bag is a user without history."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.bag = nn.Linear(config.dimensions, config.dimensions, bias=False)
        nn.init.eye_(self.bag.weight)
        self.features = nn.Sequential(
            nn.Linear(config.user_features, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.dimensions)
        )
        self.register_buffer("mean", torch.zeros(config.user_features))
        self.register_buffer("spread", torch.ones(config.user_features))

    def forward(self, features: Tensor, bag: Tensor) -> Tensor:
        return normalize(self.bag(bag) + self.features(_standardised(features, self.mean, self.spread)), dim=-1)


class Towers(nn.Module):
    """Both towers with what is learnt per item: `own` (I, D) for the item side, `history` (I, D) for the bag."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        self.user, self.item = UserTower(config), ItemTower(config)
        self.own = nn.Embedding(config.items, config.dimensions, sparse=True)
        self.history = nn.EmbeddingBag(config.items, config.dimensions, mode="sum", sparse=True)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"config": asdict(self.config), "state": self.state_dict()}, path)

    @classmethod
    def load(cls, path: Path) -> "Towers":
        """The towers as saved, ready to answer. `towers.user` and `towers.item` are what is exported."""
        saved = torch.load(path, weights_only=True)
        towers = cls(TowerConfig(**saved["config"]))
        towers.load_state_dict(saved["state"])
        return towers.eval()


def _standardised(values: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    return torch.where(torch.isnan(values), torch.zeros_like(values), (values - mean) / spread)
