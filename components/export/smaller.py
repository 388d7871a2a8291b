"""Smaller networks that answer like a ranker: without its weakest units, or students of its own, taught by what it says.

Both learn from requests alone, no labels: the pupil's logits are regressed on the teacher's (Ba and Caruana 2014,
https://arxiv.org/abs/1312.6184), each head as exactly as the teacher itself tells items apart. Shapes: C candidates, H hidden, heads.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from components.export.parity import ParityCase, torch_logits
from components.ranking.model import Ranker, Sizes
from components.ranking.train import deterministic

BATCH = 16  # requests
RATE = 3e-3


def student_of(teacher: Ranker, hidden: tuple[int, ...]) -> Ranker:
    """A ranker of these widths with flat sides, that knows nothing yet but how the teacher's inputs are standardised and embedded."""
    torch.manual_seed(0)
    pupil = Ranker(replace(teacher.sizes, hidden=hidden, towers=(), context=(), dropout=0.0))
    known = {name: value for name, value in teacher.state_dict().items() if name.startswith(("embeddings", "slots")) or "_norm" in name}
    pupil.load_state_dict(known, strict=False)
    return pupil.eval()


def pruned(model: Ranker, cases: Sequence[ParityCase], share: float) -> Ranker:
    """The ranker without the weakest `share` of the units of every hidden layer that runs once a candidate.

    A unit is as strong as what it adds to the next layer: how much it varies over candidates times the length of its outgoing weights.
    What it adds on average goes to the next layer's bias.
    """
    for place in range(len(hidden_layers(model))):
        model = _without(model, place, cases, share)
    return model


def hidden_layers(model: Ranker) -> list[str]:
    """Names of the layers whose outputs are hidden units: those of the context, where the sides meet, those above."""
    context = [f"context.{at}" for at in range(0, len(model.context), 2)]
    return [*context, "cross_side", *(f"top.{at}" for at in range(0, len(model.top) - 1, 2))]


def _without(model: Ranker, place: int, cases: Sequence[ParityCase], share: float) -> Ranker:
    """Without the weakest units of one hidden layer."""
    names = hidden_layers(model)
    after = [*names[1:], f"top.{len(model.top) - 1}"][place]
    active = _activations(model, names[place], cases)  # (N, H)
    weights = model.state_dict()
    out = weights[f"{after}.weight"]  # (next, H)
    strength = active.std(dim=0) * out.norm(dim=0)
    kept = torch.sort(torch.argsort(strength, descending=True, stable=True)[: max(1, round(len(strength) * (1 - share)))]).values
    lost = torch.ones(len(strength), dtype=torch.bool).index_fill(0, kept, False)
    weights[f"{after}.bias"] = weights[f"{after}.bias"] + out[:, lost] @ active.mean(dim=0)[lost]
    weights[f"{after}.weight"] = out[:, kept]
    for name in (names[place], *(_last_of_sides(model) if names[place] == "cross_side" else ())):
        weights[f"{name}.weight"], weights[f"{name}.bias"] = weights[f"{name}.weight"][kept], weights[f"{name}.bias"][kept]
    smaller = Ranker(_sizes(model, names[place], len(kept)))
    smaller.load_state_dict(weights)
    return smaller.eval()


def _last_of_sides(model: Ranker) -> list[str]:
    """The layers of both sides that end where the sides meet."""
    found = []
    for side in ("user_side", "item_side"):
        found += [f"{side}.{len(getattr(model, side)) - 1}"] if model.sizes.towers else [f"{side}.straight", f"{side}.bent.2"]
    return found


def _sizes(model: Ranker, layer: str, width: int) -> Sizes:
    """The sizes with another width of one hidden layer."""
    kind, _, at = layer.partition(".")
    if kind == "context":
        context = list(model.sizes.context)
        context[int(at) // 2] = width
        return replace(model.sizes, context=tuple(context))
    hidden = list(model.sizes.hidden)
    hidden[0 if kind == "cross_side" else int(at) // 2 + 1] = width
    return replace(model.sizes, hidden=tuple(hidden))


def _activations(model: Ranker, layer: str, cases: Sequence[ParityCase]) -> Tensor:
    """(N, H) what a hidden layer gives after its ReLU, over all candidates of some requests."""
    found: list[Tensor] = []
    target = model.top[0] if layer == "cross_side" else dict(model.named_modules())[layer]
    if layer == "cross_side":  # where the sides meet: what the next layer reads
        hook = target.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    else:
        hook = target.register_forward_hook(lambda _, given, made: found.append(torch.relu(made)))
    try:
        for case in cases:
            torch_logits(model, case)
    finally:
        hook.remove()
    return torch.cat(found)


def taught(pupil: Ranker, teacher: Ranker, lessons: Sequence[ParityCase], sides: bool, steps: int, seed: int = 0) -> Ranker:
    """The pupil after lessons; `sides`: also what is made before a candidate, user's and item's sides, else those stay as they are."""
    deterministic(seed)
    told = [torch.from_numpy(torch_logits(teacher, case)) for case in lessons]
    spread = torch.cat(told).std(dim=0).clamp(min=1e-3)  # (heads,)
    for name, value in pupil.named_parameters():
        value.requires_grad_(name != "slots" and (sides or not name.startswith(("user", "item", "emb"))))
    optimizer = torch.optim.Adam([value for value in pupil.parameters() if value.requires_grad], lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1, pct_start=0.1)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        batch = rng.choice(len(lessons), min(BATCH, len(lessons)), replace=False)
        said = _said(pupil, [lessons[at] for at in batch])
        loss = (((said - torch.cat([told[at] for at in batch])) / spread) ** 2).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return pupil


def _said(pupil: Ranker, cases: Sequence[ParityCase]) -> Tensor:
    """(N, heads) logits of all candidates of these requests."""
    sizes = torch.tensor([len(case.cross) for case in cases])
    users = pupil.user(torch.from_numpy(np.stack([case.request for case in cases])))
    features, codes, cross = (
        torch.from_numpy(np.concatenate([getattr(case, name) for case in cases])) for name in ("features", "codes", "cross")
    )
    return pupil.score(users.repeat_interleave(sizes, dim=0), pupil.item(features, codes.long()), cross)


def products(model: Ranker) -> int:
    """Multiplications a candidate costs while ranking."""
    widths = (model.sizes.cross, *model.sizes.context, *model.sizes.hidden, len(model.sizes.heads))
    return sum(before * after for before, after in pairwise(widths))
