"""The modules that decide, and the fast tests of each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Module:
    """A file, and the tests that are to notice a fault in it."""

    path: str
    tests: tuple[str, ...]
    functions: tuple[str, ...] = ()  # that decide; none named: all


def _of(path: str, *tests: str, functions: tuple[str, ...] = ()) -> Module:
    return Module(path, tuple(f"tests/{test}.py" for test in tests), functions)


RULES = ("arrange", "bars", "diversity", "newer", "order", "page", "paging", "specs")
MODULES = (
    _of("serving/state/user_state.py", "serving/state/test_user_state", "serving/state/test_folding"),
    _of("serving/ranking/features.py", "serving/ranking/test_features", "serving/ranking/test_features_by_loops"),
    _of("serving/ranking/affinity.py", "serving/ranking/test_features", "serving/ranking/test_features_by_loops"),
    _of(
        "serving/ranking/scoring.py",
        "serving/ranking/test_scoring",
        "serving/ranking/test_session_lift",
        "serving/ranking/test_discoveries",
    ),
    _of("serving/retrieval/fusion.py", "serving/retrieval/test_fusion", "serving/retrieval/test_fusion_by_hand"),
    _of("serving/retrieval/buy_again.py", "serving/retrieval/test_sources_by_hand"),
    _of("serving/retrieval/linear.py", "serving/retrieval/test_sources_by_hand"),
    _of("serving/retrieval/category_promotion.py", "serving/retrieval/test_sources_by_hand", "components/retrieval/test_counted"),
    _of("serving/retrieval/trending.py", "serving/retrieval/test_sources_by_hand"),
    _of("serving/retrieval/interest.py", "serving/retrieval/test_interest", "serving/retrieval/test_sources_by_hand"),
    _of("serving/retrieval/reasons.py", "serving/retrieval/test_reasons_order", functions=("known", "_order", "_found")),
    _of("components/retrieval/two_tower.py", "components/retrieval/test_item_prior", functions=("item_prior", "debut_rate")),
    _of("components/evaluation/metrics.py", "components/evaluation/test_metrics", "components/evaluation/test_edges"),
    _of("components/evaluation/slices.py", "components/evaluation/test_slices", "components/evaluation/test_edges"),
    _of("components/evaluation/compare.py", "components/evaluation/test_compare", "components/evaluation/test_edges"),
    _of("serving/state/fold.py", "serving/state/test_states_by_hand"),
    _of("serving/state/states.py", "serving/state/test_states_by_hand"),
    *(_of(f"serving/rules/{name}.py", "serving/rules/test_rules_by_hand", "serving/rules/test_specs") for name in RULES),
    _of("components/release/sequential.py", "components/release/test_sequential"),
    _of("components/release/rollout_guards.py", "components/release/test_guards_by_hand"),
    _of("components/release/rollout_state.py", "components/release/test_rollout_state"),
    _of("components/evaluation/gate.py", "components/evaluation/test_gate"),
    _of("components/data/rows.py", "components/data/test_rows"),
    _of("components/data/validate.py", "components/data/test_whole_tables"),
    _of("components/data/refusal.py", "components/data/test_whole_tables"),
)
