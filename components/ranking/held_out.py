"""How good an order is on examples a ranker did not learn from: mean NDCG@10 and Recall@100 over queries, weighted for sampling.

For choosing while fitting; releases are judged by `components/evaluation` on whole lists.
"""

import numpy as np
from numpy.typing import NDArray

from components.ranking.train import Material

GAINS = 1 / np.log2(np.arange(2, 12))


def judge(material: Material, queries: NDArray[np.intp], score: NDArray) -> dict[str, float]:
    """Metrics of the everything questions ("all") and of the only-new ones ("new"); a negative counts as many ranks as it stands for.

    A query of which something came for a head, but nothing was chosen, says nothing of an order.

    `score`: of the queries' examples, end to end.
    """
    examples = material.examples
    at, group = material.rows_of(queries)
    found: dict[str, list[tuple[float, float]]] = {"all": [], "new": []}
    order = np.lexsort((-score, group))
    begins = np.searchsorted(group[order], np.arange(len(queries)))
    for query, rows in zip(queries, np.split(order, begins[1:]), strict=True):
        if not examples.targets[query]:
            continue
        label, weight = examples.label[at[rows]], examples.weight[at[rows]]
        rank = np.round(np.cumsum(weight) - weight).astype(int)[label]  # ranks before each hit
        targets = int(examples.targets[query])
        gain = (1 / np.log2(rank[rank < 10] + 2)).sum() / GAINS[: min(10, targets)].sum()
        found["new" if examples.discover[query] else "all"].append((float(gain), float((rank < 100).sum() / targets)))
    return {
        f"{kind} {name}": float(np.mean([row[column] for row in rows]))
        for kind, rows in found.items()
        for column, name in enumerate(("ndcg@10", "recall@100"))
        if rows
    }
