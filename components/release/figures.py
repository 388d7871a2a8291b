"""The numbers of a run that a person reads, named in groups: MLflow's page folds what stands before the slash.

Everything else that was measured is in the run's `evaluation/metrics.json`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from components.release import forms
from components.release.making import Making

READ = ("ndcg@10", "recall@100", "recall@1000", "mrr")
Named = Iterator[tuple[str, float]]


def figures(making: Making) -> dict[str, float]:
    """Name to value, each error beside its number."""
    found = (*_judged(making), *_answer(making), *_parts(making), *_cost(making), *_learning(making), *forms.numbers(making))
    return {allowed(name): value for name, value in found}


def curves(making: Making) -> dict[str, list[float]]:
    """The losses, a value an epoch or a cut."""
    found = {"losses/towers": making.retrieval.get("losses")}
    found |= {f"losses/{name}": making.ranking.get(name, {}).get("losses") for name in ("light", "heavy")}
    return {name: [float(value) for value in values] for name, values in found.items() if values}


def allowed(name: str) -> str:
    """MLflow's names hold letters, digits, `_`, `-`, `.`, `/`, `:` and blanks only."""
    name = name.replace("@", " at ")
    return "".join(letter if letter.isalnum() or letter in "_-./: " else "_" for letter in name)


def _judged(making: Making) -> Named:
    """Both protocols: ours with its error, each rival's, and what we are ahead by with the error of the difference."""
    for protocol, judged in making.metrics.get("protocols", {}).items():
        group = f"judged on {protocol}"
        for metric in READ:
            for who, values in judged.get("recommenders", {}).items():
                ours = who == "candidate"
                yield from _pair(f"{group}/{metric}" if ours else f"{group}/{metric} {who}", values.get(metric), error=ours)
            for rival, values in judged.get("against", {}).items():
                yield from _pair(f"{group}/{metric} ahead of {rival}", values.get(metric))


def _answer(making: Making) -> Named:
    """What a user would see, under every rule."""
    answer = making.metrics.get("answer", {})
    for metric, found in answer.get("metrics", {}).items():
        yield from _pair(f"answer/{metric}", found)
    for name in ("empty", "short", "forbidden"):
        yield from _plain(f"answer/{name}", answer.get(name))


def _parts(making: Making) -> Named:
    """Where a good mean may hide harm: known and unknown users, new items; the deciding metric's lead."""
    deciding = making.metrics.get("measures", READ)[0]
    for place in ("slices", "cold"):
        for name, judged in making.metrics.get(place, {}).items():
            for rival, values in judged.get("all", {}).get("against", {}).items():
                yield from _pair(f"{place}/{name}: {deciding} ahead of {rival}", values.get(deciding))


def _cost(making: Making) -> Named:
    for name, value in making.latency.items():
        yield from _plain(f"cost/{name}", value)
    size = making.metrics.get("bundle_bytes")
    yield from _plain("cost/bundle MB", round(size / 1e6, 1) if isinstance(size, int | float) else None)


def _learning(making: Making) -> Named:
    for kind, own, marginal, asked in sources(making):
        yield from _plain(f"sources/{kind} recall@1000{asked}", own)
        yield from _plain(f"sources/{kind} marginal recall@1000{asked}", marginal)
    if "dead" in making.ranking:
        yield "held out/features that never varied", float(sum(map(len, making.ranking["dead"].values())))
    for name in ("light", "heavy"):
        for metric, value in making.ranking.get(name, {}).get("held_out", {}).items():
            yield from _plain(f"held out/{name} {metric}", value)


def sources(making: Making) -> Iterator[tuple[str, Any, Any, str]]:
    """Each source and the pool: what it finds alone, what the pool loses without it, of all items and of new ones (" new")."""
    for protocol, asked in (("all", ""), ("new", " new")):
        for kind, found in (making.retrieval.get("recall", {}).get(protocol) or {}).items():
            if isinstance(found, Mapping):
                yield kind, found.get("own", found).get("recall@1000"), found.get("marginal", {}).get("recall@1000"), asked


def _pair(name: str, found: Any, error: bool = True) -> Named:
    if isinstance(found, Mapping):
        yield from _plain(name, found.get("value"))
        if error:
            yield from _plain(f"{name} error", found.get("error"))


def _plain(name: str, value: Any) -> Named:
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:  # not NaN
        yield name, float(value)
