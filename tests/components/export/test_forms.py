"""Smaller forms of a ranker: each graph answers like its network, each step does what it says, and only what is within bounds is served."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from components.export.forms import FULL, Form, Quality, choose, costs, made, qualities, value_error
from components.export.graphs import request_graph
from components.export.parity import ParityCase, graph_logits, torch_logits
from components.export.smaller import hidden_layers, products, pruned, student_of, taught
from components.ranking.model import Ranker, Sizes
from serving.bundle.onnx import open_session
from serving.networks import BadNetwork, Compression, Network
from serving.objectives import Objective

HEADS = {"watch": Objective("watch", 0.7, loss="weighted", usual=60), "click": Objective("click", 0.3)}
DRAWN = Network((24, 16), towers=(32, 16), context=(12, 8), dropout=0.3)
FORMS = ("int8", "pruned", "pruned+int8", "student", "student+int8", "student+pruned", "student+pruned+int8")
BOUNDS = Compression(FORMS, student=(8, 4), taught=40, steps=20, lost=0.02, overlap=0.0, faster=1.0)


def ranker(network: Network = DRAWN) -> Ranker:
    torch.manual_seed(0)
    sizes = Sizes(3, 4, 6, (5, 5, 5, 5), network.hidden, ("watch", "click"), 8, 4, network.towers, network.context, network.dropout)
    model, rng = Ranker(sizes), np.random.default_rng(1)
    for norm, columns in ((model.request_norm, 3), (model.item_norm, 4), (model.cross_norm, 6)):
        norm.fit(rng.normal(size=(50, columns)))
    if network.towers:
        model.train()  # batch norm has met something
        model(
            *(torch.from_numpy(rng.normal(size=(64, n)).astype(np.float32)) for n in (3, 4)), torch.zeros(64, 4).long(), torch.randn(64, 6)
        )
    return model.eval()


def cases(count: int, candidates: int = 30, seed: int = 2) -> list[ParityCase]:
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return [
        ParityCase(
            numbers(3), numbers(candidates, 4), rng.integers(0, 5, (candidates, 4)).astype(np.int32), numbers(candidates, 6),
            np.zeros(candidates, bool), rng.random(candidates) < 0.1, np.abs(numbers(candidates, 2)),
        )
        for _ in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("network", [DRAWN, Network((24,)), Network((24, 16))])
def test_every_form_answers_like_its_own_network(network: Network) -> None:
    model, asked = ranker(network), cases(4)
    forms = made(model, network, replace(BOUNDS, student=(4,)), cases(40, seed=3))
    assert set(forms) == ({FULL, *FORMS})
    for name, form in forms.items():
        for found, case in zip(graph_logits(form.graph, form.model, asked), asked, strict=True):
            exact = 1e-4 if "int8" not in name else 0.3
            assert found == pytest.approx(torch_logits(form.model, case), abs=exact), name


def test_the_users_side_of_a_drawn_network_is_one_graph_too() -> None:
    light, heavy = ranker(Network((8,))), ranker()
    heavy.request_norm.load_state_dict(light.request_norm.state_dict())
    row = torch.from_numpy(cases(1)[0].request[None])
    with torch.no_grad():
        wanted = [(model.user(row) + model.cross_side.bias).numpy() for model in (light, heavy)]
        given = light.request_norm(row).numpy()
    found = open_session(request_graph(light, heavy, None)).run(None, {"inputs": given})
    assert all(got == pytest.approx(want, abs=1e-5) for got, want in zip(found, wanted, strict=True))


@pytest.mark.parametrize("network", [DRAWN, Network((24, 16))])
def test_pruning_takes_the_asked_share_of_every_hidden_layer(network: Network) -> None:
    model = ranker(network)
    small = pruned(model, cases(4), 0.25)
    assert small.sizes.hidden == (18, 12)
    assert small.sizes.context == tuple(3 * width // 4 for width in network.context)
    assert len(hidden_layers(small)) == len(network.context) + len(network.hidden)
    assert products(small) < products(model)


def test_what_never_varies_is_pruned_first_and_costs_nothing() -> None:
    """Six of 24 units, of whatever index, always give the same: they go, what they gave stays in the bias, and no answer changes."""
    model, asked = ranker(Network((24, 16))), cases(3)
    still = torch.tensor([1, 5, 6, 11, 20, 23])
    with torch.no_grad():
        for layer in (
            model.user_side.straight,
            model.user_side.bent[2],
            model.item_side.straight,
            model.item_side.bent[2],
            model.cross_side,
        ):
            layer.weight[still] = 0
            layer.bias[still] = 0.4
        model.top[0].weight[:4] = 0  # a quarter of the layer above
    small = pruned(model, asked, 0.25)
    for case in asked:
        assert torch_logits(small, case) == pytest.approx(torch_logits(model, case), abs=1e-5)


def test_a_student_comes_to_answer_like_its_teacher() -> None:
    """On requests it never met: of what the teacher's answers vary a pupil leaves nearly all unexplained, a student little."""
    teacher, asked = ranker(Network((16,))), cases(10, seed=9)
    pupil = student_of(teacher, (20,))
    wanted = np.concatenate([torch_logits(teacher, case) for case in asked])

    def left() -> float:
        off = np.concatenate([torch_logits(pupil, case) for case in asked]) - wanted
        return float((np.square(off).mean(axis=0) / wanted.var(axis=0)).max())

    before = left()
    taught(pupil, teacher, cases(80, seed=4), sides=True, steps=300)
    assert before > 0.8
    assert left() < 0.5


def test_the_same_lessons_make_the_same_student() -> None:
    teacher, lessons = ranker(), cases(20)
    one, two = (taught(student_of(teacher, (8,)), teacher, lessons, sides=True, steps=5).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_fast_learns_and_what_is_small_already_is_not_made_smaller() -> None:
    lessons = cases(4)
    assert set(made(ranker(Network((8,))), DRAWN, BOUNDS, lessons)) == {FULL, "int8"}
    without = {FULL, "int8", "pruned", "pruned+int8"}
    assert set(made(ranker(Network((24,))), Network((24,)), replace(BOUNDS, student=(24, 16)), lessons)) == without


def test_what_fast_learns_is_judged_by_few_and_taught_nothing() -> None:
    fast = Compression(FORMS, judged=600, taught=1000, lost=0.02).untaught
    assert (fast.forms, fast.judged, fast.taught, fast.lost) == (("int8",), 60, 0, 0.02)


def test_loss_and_error_are_those_of_a_hand_made_case() -> None:
    """Two candidates, the second wanted, one kept: FP32 has it first, the other form second, so that all is lost.

    FP32 expects 2 and 1 usual values where 0 and 1 came: off by 2 and 0, 1 on average.
    """
    case = replace(cases(1, 2)[0], label=np.array([False, True]), outcome=np.array([[0, 0], [1, 1]], np.float32))
    assert value_error([np.log(np.array([[2, 1], [1, 1]], np.float32))], [case], HEADS) == pytest.approx(1)
    model = ranker(Network((24,)))
    first = torch_logits(model, case)
    case = replace(case, label=np.arange(2) == np.argmax(first[:, 0]))
    with torch.no_grad():
        other = ranker(Network((24,)))
        other.top[-1].weight.neg_()
    forms = {FULL: made(model, DRAWN, Compression(()), [])[FULL], "other": made(other, DRAWN, Compression(()), [])[FULL]}
    heads = {"watch": Objective("watch", 1.0), "click": Objective("click", 0.0)}
    found = qualities(forms, [case], 1, heads, np.float32)
    assert (found[FULL].ndcg, found[FULL].lost, found[FULL].overlap) == (1, 0, 1)
    assert (found["other"].ndcg, found["other"].lost, found["other"].overlap) == (0, 1, 0)


GOOD = Quality(overlap=1.0, ndcg=0.3, lost=0.0, lost_error=0.0, error=0.5, grown=0.0, parity=0.0)


@pytest.mark.parametrize(
    ("changed", "us", "served", "why"),
    [
        ({}, 50.0, "student", "at +0.00% of NDCG lost"),
        ({}, 99.0, FULL, "less than 1.5 times as fast as fp32"),
        ({"overlap": 0.95}, 10.0, FULL, "keeps 0.9500 of the same items"),
        ({"lost": 0.03}, 10.0, FULL, "loses 3.00% of NDCG"),
        ({"overlap": 0.8, "lost": 0.01, "lost_error": 0.01}, 10.0, FULL, "by chance up to 2.65%"),
        ({"lost": 0.01, "lost_error": 0.01}, 10.0, "student", "at +1.00% of NDCG lost"),  # the same list but for a few
        ({"grown": 0.2}, 10.0, FULL, "error grows by 20.00%"),
        ({"lost": -0.01, "grown": -0.1}, 10.0, "student", "at -1.00% of NDCG lost and the weighted heads' error -10.00%"),
    ],
)
def test_a_form_is_served_only_where_it_keeps_every_bound_and_is_faster(
    changed: dict[str, float], us: float, served: str, why: str
) -> None:
    bounds = Compression(("student",), taught=1, lost=0.02, overlap=0.99 if changed.get("overlap") == 0.95 else 0.0)
    form, reason, refused = choose({FULL: GOOD, "student": replace(GOOD, **changed)}, {FULL: 100.0, "student": us}, bounds)
    assert form == served
    assert why in reason
    assert set(refused) == ({"student"} if served == FULL else set())


def test_of_several_the_fastest_is_served() -> None:
    found = {FULL: GOOD, "int8": GOOD, "pruned": GOOD, "student": replace(GOOD, lost=0.5)}
    form, why, refused = choose(found, {FULL: 100.0, "int8": 60.0, "pruned": 40.0, "student": 5.0}, Compression(("int8",), lost=0.02))
    assert form == "pruned"
    assert "fastest within the bounds" in why
    assert set(refused) == {"student"}


def test_words_and_choice_do_not_hang_on_noise() -> None:
    found = {FULL: GOOD, "student": GOOD, "student+pruned": GOOD}
    told = [
        choose(found, {FULL: full, "student": one, "student+pruned": other}, Compression(("student",), taught=1))
        for full, one, other in ((400.0, 40.0, 41.0), (440.0, 43.0, 38.0), (390.0, 39.0, 39.0))
    ]
    assert told == 3 * [told[0]]
    assert told[0][0] == "student"


def test_costs_are_of_every_form_and_of_the_network_as_drawn() -> None:
    forms = made(ranker(), DRAWN, Compression(("int8",)), [])
    found = costs(forms, cases(3), np.float16)
    assert set(found) == {"drawn", FULL, "int8"}
    assert all(set(told) == {200, 1000} and all(us > 0 for us, _ in told.values()) for told in found.values())
    assert found["drawn"][1000][0] > found["drawn"][200][0]


def test_a_form_runs_as_the_server_would_run_it() -> None:
    model, case = ranker(Network((24, 16))), cases(1)[0]
    form = Form("fp32", model, made(model, DRAWN, Compression(()), [])[FULL].graph)
    items = model.item(torch.from_numpy(case.features), torch.from_numpy(case.codes).long()).detach().numpy().astype(np.float16)
    user = (model.user(torch.from_numpy(case.request[None])) + model.cross_side.bias).detach().numpy()
    found = form.call(items, np.arange(30, dtype=np.int32), user, case.cross)
    assert found == pytest.approx(torch_logits(model, case), abs=5e-3)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Network(()), "widths"),
        (lambda: Network((8, 0)), "widths"),
        (lambda: Network((8,), dropout=1.0), "dropout"),
        (lambda: Compression(("int4",)), "'int4'"),
        (lambda: Compression(("int8+student",), taught=5), "in this order"),
        (lambda: Compression(("student",)), "taught=0"),
    ],
)
def test_widths_and_forms_that_nothing_can_be_made_of_are_refused(wrong, said: str) -> None:
    with pytest.raises(BadNetwork, match=said):
        wrong()
