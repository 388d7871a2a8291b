"""A ranker learnt before, made to read today's codes: the same weights, each category's and brand's row found by its name."""

from dataclasses import replace

import torch

from components.ranking.model import Ranker, Sizes
from components.start import BadStart, Start
from serving.bundle.catalogue import Catalogue


def taken_over(former: Ranker, sizes: Sizes, start: Start, newest: Catalogue) -> Ranker:
    """The ranker with the weights of `former`; a new name begins as the unknown one. Raises `BadStart` where it read other features."""
    if former.sizes.heads != sizes.heads:
        raise BadStart(
            f"the rankers of bundle {start.bundle[:12]} have the heads {', '.join(former.sizes.heads)}, the system asks for "
            f"{', '.join(sizes.heads)}: train with --mode full"
        )
    if replace(former.sizes, codes=sizes.codes) != sizes:
        had, have = ((size.request, size.item, size.cross) for size in (former.sizes, sizes))
        raise BadStart(f"the rankers of bundle {start.bundle[:12]} read {had} features, now there are {have}: train with --mode full")
    model = Ranker(sizes)
    weights = former.state_dict()
    known = (start.category_names,) * 3 + (start.brand_names,)
    wanted = (newest.category_names,) * 3 + (newest.brand_names,)
    for column, (then, now) in enumerate(zip(known, wanted, strict=True)):
        row_of = {name: row for row, name in enumerate(then)}
        rows = torch.tensor([row_of.get(name, 0) for name in now])
        weights[f"embeddings.{column}.weight"] = weights[f"embeddings.{column}.weight"][rows]
    model.load_state_dict(weights)
    return model
