"""Does each head say what comes? What the bundle's heavy ranker expects of its candidates, beside what came in the days after the cut.

Shapes: C candidates, N of all users asked, H heads.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.evaluation.batch import open_recommender
from components.evaluation.truth import Truth
from components.ranking.fitted import Outcomes, load_outcomes
from serving.query import Request
from serving.ranking.features import cross_features
from serving.recommender import Recommender
from serving.state.user_state import UserState
from serving.system import System

ASKED = 300  # users, spread evenly over all with a target by id
EDGES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, np.inf)  # of the bins: what is rare has its own
CONDITION = {
    "": "candidates of users of whom anything came",
    "first": "candidates not had before, of users of whom anything came",
    "again": "candidates had before, of users of whom anything came",
}


def reliability(system: System, bundle: Path, truth: Truth) -> dict[str, Any]:
    """A table a head: the condition it is calibrated for, expected and observed in each bin, and the expected calibration error."""
    recommender = open_recommender(system, bundle)
    outcomes = load_outcomes(system, truth.folder, recommender.catalogue)
    users = truth.users[np.unique(np.linspace(0, len(truth.users) - 1, min(ASKED, len(truth.users))).astype(np.intp))]
    told = [_expected(recommender, truth.states[user], truth.states.asked_day(user), outcomes) for user in users.tolist()]
    heads, found = recommender.scoring.heads, [one for one in told if one is not None]
    tables = {}
    for h, (name, one) in enumerate(system.objectives.items()):
        said, came = (np.concatenate([part[place][part[2][:, h], h] for part in found] or [np.empty(0)]) for place in (0, 1))
        value = 1 / (heads.floors[h] + np.exp(-said.astype(np.float64)))
        tables[name] = {"label": one.label, "loss": one.loss, "condition": CONDITION[one.asked], **table(value, came)}
    return tables


def _expected(
    recommender: Recommender, state: UserState, day: float, outcomes: dict[str, Outcomes]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]] | None:
    """Logits, outcomes and which heads judge, (C, H) each; None where nothing came, or the rankers are not asked."""
    query = recommender.query(Request(state.user_id, recommender.system.answer_size, day), state)
    if query.few_visits or state.user_id not in outcomes:
        return None
    side = recommender.user_side(query)
    pool = recommender.retrieve(query, side)
    came, judging = outcomes[state.user_id].of(pool.rows), recommender.scoring.heads.judging(pool.seen)
    if not (came * judging > 0).any():
        return None
    return recommender.rankers.heavy(side, pool.rows, cross_features(query, pool)), came, judging


def table(expected: NDArray[np.floating], came: NDArray[np.floating]) -> dict[str, Any]:
    """Of what was expected (N,) and what came (N,): means, bins by what was expected, and their mean distance by count."""
    place = np.digitize(expected, EDGES[1:-1])
    bins = [
        {
            "from": EDGES[number],
            "expected": round(float(expected[place == number].mean()), 6),
            "observed": round(float(came[place == number].mean()), 6),
            "count": int((place == number).sum()),
        }
        for number in np.unique(place).tolist()
    ]
    total = max(len(expected), 1)
    error = sum(one["count"] * abs(one["expected"] - one["observed"]) for one in bins) / total
    means = {name: round(float(values.sum() / total), 6) for name, values in (("expected", expected), ("observed", came))}
    return {"count": len(expected), **means, "calibration_error": round(error, 6), "bins": bins}
