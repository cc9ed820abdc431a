"""Matching: planted permutations, brute force, SciPy, monotone objectives, determinism, degenerate input."""

import functools
import inspect
import itertools
import math

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn import functional as F

from starscape import assignment
from starscape.ascent import Search
from starscape.assignment import Layout, Plan, Scores, assign_all
from starscape.data import SettingsError, StateError, UnknownName, load_task
from starscape.matching import (
    Matcher,
    assign,
    match_activations,
    match_cycle_consistent,
    match_differentiable,
    match_many,
    match_weights,
    objective,
)
from starscape.networks import build_network
from starscape.relaxation import Descent, one_hot, soft_state
from starscape.symmetry import Factor, PermutationSymmetry

torch.set_num_threads(1)


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def noisy(model, seed):
    "A state with no two units alike."
    g = torch.Generator().manual_seed(seed)
    noise = lambda x: x + 0.3 * torch.randn(x.shape, generator=g) if x.is_floating_point() else x.clone()
    return {name: noise(x) for name, x in model.state_dict().items()}


def trained(model, seed, steps=150):
    torch.manual_seed(seed)
    task = load_task("digits")
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(steps):
        rows = torch.randint(len(task.train_x), (64,))
        loss = F.cross_entropy(model(task.train_x[rows]), task.train_y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    return {name: x.detach().clone() for name, x in model.state_dict().items()}


class Shared(nn.Module):
    "Attention whose queries share keys and values in pairs, beside a feed-forward block."

    def __init__(self, width=24, kv=2, share=2, d=6):
        super().__init__()
        self.kv, self.share, self.d = kv, share, d
        self.embed, self.head = nn.Linear(5, width), nn.Linear(width, 4)
        self.q, self.o = nn.Linear(width, kv * share * d), nn.Linear(kv * share * d, width)
        self.k, self.v = nn.Linear(width, kv * d), nn.Linear(width, kv * d)
        self.up, self.down = nn.Linear(width, 40), nn.Linear(40, width)

    def forward(self, x):
        x = self.embed(x)
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.kv * self.share, self.d).transpose(1, 2)
        k, v = (f(x).view(b, n, self.kv, self.d).transpose(1, 2).repeat_interleave(self.share, 1) for f in (self.k, self.v))
        x = x + self.o(((q @ k.transpose(-1, -2) / 3).softmax(-1) @ v).transpose(1, 2).reshape(b, n, -1))
        return self.head(x + self.down(F.gelu(self.up(x))))


@functools.cache
def families():
    "Networks with groups of every kind, and an input for each."
    torch.manual_seed(0)
    image, encoder = torch.randn(2, 1, 8, 8), nn.TransformerEncoderLayer(24, 4, 32, batch_first=True)
    grouped = nn.Sequential(nn.Conv2d(1, 24, 3), nn.ReLU(), nn.Conv2d(24, 36, 3, groups=6), nn.ReLU(), nn.Flatten(), nn.Linear(36 * 16, 5))
    encoder = nn.Sequential(nn.Linear(5, 24), nn.TransformerEncoder(encoder, 2, enable_nested_tensor=False), nn.Linear(24, 4))
    small = dict(input_shape=(1, 8, 8), num_classes=10)
    return {
        "mlp": (build_network("mlp", width=20, depth=3, **small), image),
        "resnet20": (build_network("resnet20", width=8, **small), image),
        "vgg11": (build_network("vgg11", width=8, **small), image),
        "densenet40": (build_network("densenet40", growth=6, **small), image),
        "encoder": (encoder, torch.randn(2, 7, 5)),
        "shared keys": (Shared(), torch.randn(2, 7, 5)),
        "grouped": (grouped, image),
    }


@functools.cache
def symmetry_of(name):
    return PermutationSymmetry.of(*families()[name])


KINDS = ["mlp", "resnet20", "vgg11", "densenet40", "encoder", "shared keys", "grouped"]


@pytest.mark.parametrize("name", KINDS)
def test_planted_permutation_comes_back(name):
    symmetry, state = symmetry_of(name), noisy(families()[name][0], 0)
    planted = symmetry.random(torch.Generator().manual_seed(1))
    assert any(not torch.equal(p, torch.arange(len(p))) for p in planted.values())
    shuffled = symmetry.apply(planted, state)
    found = match_weights(symmetry, state, shuffled)
    assert equal(symmetry.apply(found, shuffled), state)
    assert all(torch.equal(i, torch.arange(len(i))) for i in symmetry.compose(found, planted).values())


@pytest.fixture(scope="module")
def resnets():
    model = build_network("resnet", width=8, input_shape=(1, 8, 8), num_classes=10)
    symmetry = PermutationSymmetry.of(model, torch.randn(2, 1, 8, 8))
    return symmetry, model, [trained(model, seed) for seed in range(3)]


def test_planted_permutation_of_trained_network(resnets):
    symmetry, model, (state, *_) = resnets
    for seed in range(3):
        shuffled = symmetry.apply(symmetry.random(torch.Generator().manual_seed(seed)), state)
        assert equal(symmetry.apply(match_weights(symmetry, state, shuffled, seed=seed), shuffled), state)
    x = load_task("digits").train_x[:512]
    for form in ("correlation", "covariance"):
        found = match_activations(symmetry, state, shuffled, model=model, inputs=x, form=form)
        assert equal(symmetry.apply(found, shuffled), state)


def brute_force(symmetry, reference, state):
    best, groups = -math.inf, list(symmetry.groups)
    for choice in itertools.product(*(itertools.permutations(range(symmetry.groups[g])) for g in groups)):
        p = {g: torch.tensor(c) for g, c in zip(groups, choice, strict=True)}
        best = max(best, objective(symmetry, reference, state, p))
    return best


@pytest.mark.parametrize("seed", range(3))
def test_restarts_reach_the_brute_force_optimum(seed):
    torch.manual_seed(seed)
    make = lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    a, b = make().state_dict(), make().state_dict()
    symmetry = PermutationSymmetry.of(make(), torch.randn(2, 3))
    assert sorted(symmetry.groups.values()) == [3, 4]
    best = brute_force(symmetry, a, b)
    found = match_weights(symmetry, a, b, n_restarts=20)
    assert objective(symmetry, a, b, found) == pytest.approx(best, rel=1e-6)
    assert objective(symmetry, a, b, match_weights(symmetry, a, b)) <= best + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_universe_reaches_the_brute_force_optimum(seed):
    "Three models, one group: the best of all the pairs of permutations that bring the others to the first."
    torch.manual_seed(seed)
    make = lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    symmetry, states = PermutationSymmetry.of(make(), torch.randn(2, 3)), [make().state_dict() for _ in range(3)]
    (group,) = symmetry.groups
    def total(maps):
        moved = [symmetry.apply(p, state) for p, state in zip(maps, states, strict=True)]
        return sum(objective(symmetry, x, y, symmetry.identity()) for x, y in itertools.combinations(moved, 2))
    every = [{group: torch.tensor(p)} for p in itertools.permutations(range(4))]
    best = max(total([every[0], p, q]) for p in every for q in every)
    once, often = (total(match_cycle_consistent(symmetry, states, n_restarts=n)) for n in (1, 20))
    assert once <= often + 1e-6 and often == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("form", ["correlation", "covariance"])
def test_activations_are_matched_as_scipy_matches_what_a_hook_sees(resnets, form):
    task, model = load_task("digits"), build_network("mlp", width=24, depth=2, input_shape=(1, 8, 8), num_classes=10)
    symmetry, states = PermutationSymmetry.of(model, task.train_x[:2]), [noisy(model, seed) for seed in range(2)]
    found = match_activations(symmetry, *states, model=model, inputs=task.train_x, form=form)
    for layer in ("linear2", "linear"):  # what enters a layer is the group of the layer before it
        seen = []
        hook = getattr(model, layer).register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0].detach().double().numpy()))
        for state in states:
            torch.func.functional_call(model, state, (task.train_x,))
        hook.remove()
        a, b = (x - x.mean(0) for x in seen)
        if form == "correlation":
            a, b = (x / np.linalg.norm(x, axis=0).clip(1e-12) for x in (a, b))
        (group,) = symmetry.axes[f"{layer}.weight"][1][0][0].groups
        rows, best = linear_sum_assignment(a.T @ b, maximize=True)
        assert (a.T @ b)[rows, found[group]].sum() == pytest.approx((a.T @ b)[rows, best].sum(), rel=1e-5)
    again = match_activations(symmetry, *states, model=model, inputs=task.train_x, form=form)
    assert equal(found, again)


@pytest.mark.parametrize("match", [match_weights, match_activations, match_differentiable, match_many, match_cycle_consistent])
def test_one_signature_one_result_and_a_paper(match):
    parameters = inspect.signature(match).parameters
    models = {match_many: ["reference_state", "states"], match_cycle_consistent: ["states"]}.get(match, ["reference_state", "state"])
    assert [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD] == ["symmetry", *models]
    defaults = {name: parameters[name].default for name in ("seed", "init", "n_restarts", "fixed")}
    assert defaults == dict(seed=0, init=None, n_restarts=1, fixed=())
    assert "arXiv" in match.__doc__ or "`match_weights`" in match.__doc__
    assert ("list[" in str(inspect.signature(match).return_annotation)) == ("states" in models)


@pytest.mark.parametrize("seed", range(3))
def test_heads_and_their_insides_are_settled_optimally(seed):
    "One unit with nothing around it: the nested assignment is the optimum over the whole wreath product."
    g = torch.Generator().manual_seed(seed)
    axis = ((Factor(3, ("heads",)), Factor(3, ("a", "b", "c"))),)
    axes = {"w": (axis, ((Factor(5),),)), "scale": (((Factor(3, ("heads",)),),),)}
    symmetry = PermutationSymmetry({"heads": 3, "a": 3, "b": 3, "c": 3}, axes)
    draw = lambda: {"w": torch.randn(9, 5, generator=g), "scale": torch.randn(3, generator=g)}
    a, b = draw(), draw()
    found = match_weights(symmetry, a, b)
    assert objective(symmetry, a, b, found) == pytest.approx(brute_force(symmetry, a, b), rel=1e-6)
    for fixed in ("heads", "b"):
        held = match_weights(symmetry, a, b, fixed=[fixed])
        assert torch.equal(held[fixed], torch.arange(3))
        assert objective(symmetry, a, b, held) <= objective(symmetry, a, b, found) + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_two_families_in_one_block(seed):
    "Groups of queries around a key: inner permutations of two kinds meet in one block and take turns."
    g = torch.Generator().manual_seed(seed)
    axis = ((Factor(2, ("keys",)), Factor(3, ("q0", "q1")), Factor(4, ("d0", "d1"))),)
    groups = {"keys": 2, "q0": 3, "q1": 3, "d0": 4, "d1": 4, "stream": 5}
    symmetry = PermutationSymmetry(groups, {"w": (axis, ((Factor(5, ("stream",)),),)), "b": (((Factor(5, ("stream",)),),),)})
    draw = lambda: {"w": torch.randn(24, 5, generator=g), "b": torch.randn(5, generator=g)}
    a, b = draw(), draw()
    p = symmetry.identity()
    for sweep in range(4):
        q = match_weights(symmetry, a, b, init=p, max_sweeps=1, seed=sweep)
        assert objective(symmetry, a, b, q) >= objective(symmetry, a, b, p) - 1e-5
        p = q
    held = match_weights(symmetry, a, b, fixed=["stream"], n_restarts=20)
    frozen = PermutationSymmetry({k: n for k, n in groups.items() if k != "stream"}, {"w": (axis, ((Factor(5),),))})
    one = {"w": a["w"]}, {"w": b["w"]}
    best = -math.inf  # the optimum over keys, q0, q1, with d0 and d1 by assignment
    for keys in itertools.permutations(range(2)):
        for q0, q1 in itertools.product(itertools.permutations(range(3)), repeat=2):
            start = {"keys": torch.tensor(keys), "q0": torch.tensor(q0), "q1": torch.tensor(q1)}
            p = match_weights(frozen, *one, init=start, fixed=["keys", "q0", "q1"])
            best = max(best, objective(frozen, *one, p))
    found = {k: v for k, v in held.items() if k != "stream"}
    assert objective(frozen, *one, found) == pytest.approx(best, rel=0.1) and objective(frozen, *one, found) <= best + 1e-4
    planted = symmetry.random(g)
    shuffled = symmetry.apply(planted, a)
    assert equal(symmetry.apply(match_weights(symmetry, a, shuffled, n_restarts=10), shuffled), a)


@pytest.mark.parametrize("name", KINDS)
def test_values_in_layout_are_those_of_the_definition(name):
    "The search's own account of the objective, in its layouts, is the inner product of the permuted states."
    (model, _), symmetry, g = families()[name], symmetry_of(name), torch.Generator().manual_seed(3)
    a, b, plan = noisy(model, 1), noisy(model, 2), Plan(symmetry)
    lay = lambda state: Layout(plan, state, None, torch.float64)
    scores = Scores(plan, lay(a), lay(b))
    value = lambda p: scores.value(range(len(plan.units)), p)
    p, q = symmetry.random(g), symmetry.random(g)
    difference = objective(symmetry, a, b, p) - objective(symmetry, a, b, q)
    assert value(p) - value(q) == pytest.approx(difference, rel=1e-9, abs=1e-9)


def test_kept_blocks_equal_fresh_ones():
    (model, _), symmetry, g = families()["resnet20"], symmetry_of("resnet20"), torch.Generator().manual_seed(3)
    plan = Plan(symmetry)
    lay = lambda state: Layout(plan, state, None, torch.float64)
    a, b, p = lay(noisy(model, 1)), lay(noisy(model, 2)), symmetry.identity()
    kept = Scores(plan, a, b)
    for swaps in (0, 1, 3, 100):  # none, few and many rows change
        p = {name: index.clone() for name, index in p.items()}
        for index in p.values():
            for _ in range(swaps):
                i, j = torch.randint(len(index), (2,), generator=g).tolist()
                index[[i, j]] = index[[j, i]]
        for u in range(len(plan.units)):
            for part, score in Scores(plan, a, b).of(u, p).items():
                np.testing.assert_allclose(kept.of(u, p)[part], score, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_work_done_piece_by_piece_comes_to_the_same(name, monkeypatch):
    "With pieces of 64 numbers every block is cut, and every score matrix of eight units or more is in memory used before."
    symmetry, g = symmetry_of(name), torch.Generator().manual_seed(3)
    a, b = ({k: x.double() for k, x in noisy(families()[name][0], seed).items()} for seed in (1, 2))
    plan, p = Plan.of(symmetry), symmetry.random(g)
    lay = lambda state, copy=False: Layout(plan, state, None, torch.float64, copy)
    everything = lambda scores: ([scores.of(u, p) for u in range(len(plan.units))], scores.value(range(len(plan.units)), p))
    whole, found = everything(Scores(plan, lay(a), lay(b))), match_weights(symmetry, a, b, n_restarts=3)
    monkeypatch.setattr(assignment, "_PIECE", 64)
    for copy in (False, True):
        scores = Scores(plan, lay(a, copy), lay(b, copy))
        for u in range(len(plan.units)):
            for part, score in scores.of(u, p).items():
                np.testing.assert_allclose(score, whole[0][u][part], rtol=1e-9, atol=1e-9)
        assert scores.room and scores.value(range(len(plan.units)), p) == pytest.approx(whole[1], rel=1e-9)
    assert equal(match_weights(symmetry, a, b, n_restarts=3), found)


def test_large_blocks_are_seen_in_the_memory_of_the_model():
    model = build_network("resnet18", width=32, input_shape=(3, 16, 16), num_classes=10)
    plan, state = Plan.of(PermutationSymmetry.of(model, torch.randn(2, 3, 16, 16))), model.state_dict()
    layout, owners = Layout(plan, state, None, torch.float32), {x.untyped_storage().data_ptr() for x in state.values()}
    blocks = [x for uses in layout.uses for x in uses if x.numel() >= 1 << 16]
    assert len(blocks) >= 16 and all(x.untyped_storage().data_ptr() in owners for x in blocks)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from(["normal", "ties", "rank one", "zero"]))
def test_assignment_agrees_with_scipy(n, seed, kind):
    rng = np.random.default_rng(seed)
    score = {
        "normal": rng.standard_normal((n, n)),
        "ties": rng.integers(0, 3, (n, n)).astype(float),
        "rank one": np.outer(rng.standard_normal(n), rng.standard_normal(n)),
        "zero": np.zeros((n, n)),
    }[kind]
    rows, best = linear_sum_assignment(score, maximize=True)
    found = assign(score)
    assert sorted(found) == list(range(n))
    assert score[rows, found].sum() == pytest.approx(score[rows, best].sum(), abs=1e-9)
    stack = assign_all(np.stack([score, score.T]))
    assert score.T[rows, stack[1]].sum() == pytest.approx(score[rows, best].sum(), abs=1e-9)
    assert score[rows, stack[0]].sum() == pytest.approx(score[rows, best].sum(), abs=1e-9)


def test_same_results_without_lapx(monkeypatch):
    one = lambda cost: linear_sum_assignment(cost)[1]
    model, symmetry = families()["encoder"][0], symmetry_of("encoder")
    a, b = noisy(model, 0), noisy(model, 1)
    before = match_weights(symmetry, a, b)
    monkeypatch.setattr(assignment, "_solve", one)
    monkeypatch.setattr(assignment, "_solve_all", lambda costs: [one(cost) for cost in costs])
    after = match_weights(symmetry, a, b)
    assert objective(symmetry, a, b, after) == pytest.approx(objective(symmetry, a, b, before), rel=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31 - 1), st.sampled_from(["mlp", "resnet20", "encoder", "shared keys"]))
def test_objective_never_decreases(seed, name):
    (model, _), symmetry = families()[name], symmetry_of(name)
    a, b, g = noisy(model, seed), noisy(model, seed + 1), torch.Generator().manual_seed(seed)
    p = symmetry.random(g)
    values = [objective(symmetry, a, b, p)]
    for sweep in range(4):
        p = match_weights(symmetry, a, b, init=p, max_sweeps=1, seed=seed + sweep)
        values.append(objective(symmetry, a, b, p))
    assert all(after >= before - 1e-4 * abs(before) for before, after in itertools.pairwise(values))
    assert values[-1] > values[0]


def test_deterministic_alone_together_and_in_threads(resnets):
    symmetry, _, (a, *others) = resnets
    alone = [match_weights(symmetry, a, b, seed=4) for b in others]
    for jobs in (1, 2):
        together = match_many(symmetry, a, others, seed=4, n_jobs=jobs)
        assert all(equal(p, q) for p, q in zip(alone, together, strict=True))


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_joblib_workers_give_the_serial_result(resnets, backend):
    symmetry, _, states = resnets
    alone = match_many(symmetry, states[0], states[1:], n_jobs=1), match_cycle_consistent(symmetry, states, n_restarts=2, steps=3)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        together = match_many(symmetry, states[0], states[1:]), match_cycle_consistent(symmetry, states, n_restarts=2, steps=3)
    assert all(equal(p, q) for one, two in zip(alone, together, strict=True) for p, q in zip(one, two, strict=True))


def test_warm_start_stays_and_restarts_improve(resnets):
    symmetry, _, (a, b, c) = resnets
    matcher = Matcher(symmetry, [b, c])
    first = matcher.match(a)
    again = matcher.match(a, init=first, seed=9)
    assert all(equal(p, q) for p, q in zip(first, again, strict=True))
    best = matcher.match(a, n_restarts=5)
    for state, p, q in zip((b, c), first, best, strict=True):
        assert objective(symmetry, a, state, q) >= objective(symmetry, a, state, p) * (1 - 1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_units_are_placed_by_the_largest_share_of_what_is_settled(name):
    "Each unit of the order has no rival with a larger share of its weights in common with the units before it."
    plan = Plan(symmetry_of(name))
    for already in (set(), {0}):
        order, placed = plan.order(already), set(already)
        assert sorted([*already, *order]) == list(range(len(plan.units)))
        for u in order:
            shares = {}
            for v in set(order) - placed:
                uses = plan.units[v].uses + plan.units[v].vectors
                whole = sum(math.prod(plan.blocks[use.block].sizes) for use in uses)
                others = [{plan.unit_of[g] for d in use.other for g in plan.blocks[use.block].groups[d]} for use in uses]
                met = [use for use, other in zip(uses, others, strict=True) if other <= placed]
                shares[v] = sum(math.prod(plan.blocks[use.block].sizes) for use in met) / whole
            assert shares[u] == pytest.approx(max(shares.values()))
            placed.add(u)


def test_placing_beats_the_identity_as_a_start(resnets):
    symmetry, _, (a, b, c) = resnets
    pairs = [(a, b), (a, c), (b, c)]
    gain = [objective(symmetry, x, y, match_weights(symmetry, x, y, seed=s)) - objective(
        symmetry, x, y, match_weights(symmetry, x, y, seed=s, init=symmetry.identity())) for x, y in pairs for s in range(3)]
    assert sum(gain) > 0


def test_models_that_are_close_as_they_are_stay_so():
    "First layers say nothing (all units alike, or dead): what tells the units apart comes later, and the identity is best."
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    symmetry, a = PermutationSymmetry.of(model, torch.randn(2, 3)), noisy(model, 0)
    b = {k: v + 0.01 * torch.randn_like(v) for k, v in a.items()}
    for state in (a, b):
        for key in ("0.weight", "0.bias", "4.weight"):
            state[key] = 1e-6 * torch.randn_like(state[key])
    for seed in range(5):
        found = match_weights(symmetry, a, b, seed=seed)
        assert objective(symmetry, a, b, found) >= objective(symmetry, a, b, symmetry.identity()) - 1e-6


def test_part_of_a_start_is_kept_in_mind_and_the_rest_is_placed(resnets):
    symmetry, _, (state, *_) = resnets
    planted = symmetry.random(torch.Generator().manual_seed(3))
    shuffled, back = symmetry.apply(planted, state), symmetry.inverse(planted)
    some = {g: back[g] for g in list(back)[::2]}
    found = match_weights(symmetry, state, shuffled, init=some, fixed=some)
    assert all(torch.equal(found[g], back[g]) for g in some)
    assert equal(symmetry.apply(found, shuffled), state)


def test_value_from_kept_scores_is_the_objective(resnets):
    symmetry, _, (a, b, _) = resnets
    plan, lay = Plan(symmetry), lambda state: Layout(Plan(symmetry), state, None, torch.float64)
    search = Search(Scores(plan, lay(a), lay(b)), frozenset(), 0, 100)
    p = search.best(symmetry.identity(), set(), 6)
    constant = objective(symmetry, a, b, symmetry.identity()) - Scores(plan, lay(a), lay(b)).value(range(len(plan.units)), symmetry.identity())
    assert search.value(p) + constant == pytest.approx(objective(symmetry, a, b, p), rel=1e-9)


def test_one_group_on_both_axes_of_a_matrix():
    "A recurrent weight is not one assignment: the step is taken only where the objective really grows."
    axis = lambda *groups: ((Factor(6, groups),),)
    symmetry = PermutationSymmetry({"h": 6}, {"w": (axis("h"), axis("h")), "b": (axis("h"),)})
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        a, b = ({"w": torch.randn(6, 6, generator=g), "b": torch.randn(6, generator=g)} for _ in range(2))
        p = match_weights(symmetry, a, b)
        assert objective(symmetry, a, b, p) >= objective(symmetry, a, b, symmetry.identity()) - 1e-6
    planted = symmetry.random(g)
    strong = {"w": a["w"], "b": 5 * a["b"]}
    shuffled = symmetry.apply(planted, strong)
    assert equal(symmetry.apply(match_weights(symmetry, strong, shuffled), shuffled), strong)


def test_degenerate_units():
    model, symmetry = families()["mlp"][0], symmetry_of("mlp")
    zero = {name: torch.zeros_like(t) for name, t in model.state_dict().items()}
    twins = {name: torch.ones_like(t) for name, t in model.state_dict().items()}
    half = noisy(model, 0)
    half["linear1.weight"][::2] = half["linear1.weight"][0].clone()  # copies of one unit
    half["linear1.bias"][::2] = half["linear1.bias"][0].clone()
    half["linear2.weight"][:, ::2] = 0.0
    half["linear3.weight"][::3] = 0.0
    for a, b in itertools.product((zero, twins, half), repeat=2):
        p = match_weights(symmetry, a, b)
        assert all(sorted(i.tolist()) == list(range(len(i))) for i in p.values())
    shuffled = symmetry.apply(symmetry.random(torch.Generator().manual_seed(0)), half)
    assert objective(symmetry, half, shuffled, match_weights(symmetry, half, shuffled)) == pytest.approx(
        objective(symmetry, half, half, symmetry.identity()), rel=1e-6
    )
    x = load_task("digits").train_x[:64]
    found = match_activations(symmetry, half, shuffled, model=model, inputs=x)
    assert all(sorted(i.tolist()) == list(range(len(i))) for i in found.values())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused_by_name(bad):
    symmetry, good = symmetry_of("mlp"), noisy(families()["mlp"][0], 0)
    broken = {name: t.clone() for name, t in good.items()}
    broken["linear2.bias"][1] = bad
    for pair, who in (((broken, good), "the reference"), ((good, broken), "the state")):
        with pytest.raises(StateError, match=rf"linear2\.bias.*{who}"):
            match_weights(symmetry, *pair)
        with pytest.raises(StateError, match=r"linear2\.bias"):
            match_differentiable(symmetry, *pair, steps=2)
    with pytest.raises(StateError, match=r"linear2\.bias"):
        match_cycle_consistent(symmetry, [good, broken])
    with pytest.raises(StateError, match="state 1"):
        match_many(symmetry, good, [good, broken])
    huge = {name: t * 1e25 for name, t in good.items()}
    with pytest.raises(StateError, match="overflow"):
        match_weights(symmetry, huge, huge)


def test_states_that_do_not_fit_name_key_and_shapes():
    symmetry, good = symmetry_of("mlp"), noisy(families()["mlp"][0], 0)
    with pytest.raises(StateError, match=r"linear2.weight.*\(20, 19\).*\(20, 20\)"):
        match_weights(symmetry, good, good | {"linear2.weight": torch.zeros(20, 19)})
    with pytest.raises(StateError, match=r"linear1\.bias"):
        match_weights(symmetry, {n: t for n, t in good.items() if n != "linear1.bias"}, good)


def test_settings_that_make_no_sense():
    (model, x), symmetry = families()["mlp"], symmetry_of("mlp")
    a = noisy(model, 0)
    group = next(iter(symmetry.groups))
    for wrong, error in [
        (dict(fixed=["nobody"]), UnknownName),
        (dict(n_restarts=0), SettingsError),
        (dict(init={"nobody": torch.arange(20)}), UnknownName),
        (dict(init={group: torch.zeros(20, dtype=torch.long)}), SettingsError),
    ]:
        with pytest.raises(error):
            match_weights(symmetry, a, a, **wrong)
    with pytest.raises(SettingsError, match="inputs="):
        match_differentiable(symmetry, a, a, objective="midpoint")
    with pytest.raises(UnknownName):
        match_activations(symmetry, a, a, model=model, inputs=x, form="cosine")
    with pytest.raises(SettingsError):
        match_cycle_consistent(symmetry, [a])


def test_fixed_groups_keep_what_they_start_from(resnets):
    symmetry, model, (a, b, _) = resnets
    task, held = load_task("digits"), list(symmetry.groups)[:2]
    start = symmetry.random(torch.Generator().manual_seed(7))
    x, y = task.train_x[:256], task.train_y[:256]
    results = [
        match_weights(symmetry, a, b, init=start, fixed=held, n_restarts=2),
        match_activations(symmetry, a, b, model=model, inputs=x, init=start, fixed=held, n_restarts=2),
        match_differentiable(symmetry, a, b, init=start, fixed=held, steps=12),
        match_differentiable(symmetry, a, b, init=start, fixed=held, steps=12, objective="midpoint", model=model, inputs=x, targets=y),
        match_cycle_consistent(symmetry, [a, b], init=[None, start], fixed=held, n_restarts=2, steps=5)[1],
    ]
    for found in results:
        assert found.keys() == symmetry.groups.keys()
        assert all(torch.equal(found[g], start[g]) for g in held)
        assert any(not torch.equal(found[g], start[g]) for g in symmetry.groups if g not in held) or found is results[2]


@pytest.mark.parametrize("estimator", ["sinkhorn", "straight-through"])
@pytest.mark.parametrize("aim", ["distance", "midpoint", "random"])
def test_descent_is_never_worse_than_its_start(resnets, estimator, aim):
    symmetry, model, (a, b, _) = resnets
    task = load_task("digits")
    data = {} if aim == "distance" else dict(model=model, inputs=task.train_x[:512], targets=task.train_y[:512])
    before = {name: t.clone() for name, t in model.state_dict().items()}
    start = match_weights(symmetry, a, b)
    found = match_differentiable(symmetry, a, b, objective=aim, estimator=estimator, steps=30, **data)
    assert equal(model.state_dict(), before) and not model.training
    judge = Descent(Plan(symmetry), a, b, aim, *([data[k] for k in data] or [None] * 3), 64).judge
    assert judge(found) <= judge(start) + 1e-9
    again = match_differentiable(symmetry, a, b, objective=aim, estimator=estimator, steps=30, **data)
    assert equal(found, again)
    best = match_differentiable(symmetry, a, b, objective=aim, estimator=estimator, steps=30, n_restarts=2, **data)
    assert judge(best) <= judge(found) + 1e-9


def test_descent_recovers_a_planted_permutation_from_afar():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    symmetry = PermutationSymmetry.of(model, torch.randn(2, 6))
    state = noisy(model, 0)
    shuffled = symmetry.apply(symmetry.random(torch.Generator().manual_seed(2)), state)
    found = match_differentiable(symmetry, state, shuffled, init=symmetry.identity(), steps=300)
    assert equal(symmetry.apply(found, shuffled), state)


@pytest.mark.parametrize("name", KINDS)
def test_soft_application_at_vertices_is_the_permutation(name):
    symmetry, state = symmetry_of(name), noisy(families()[name][0], 0)
    plan, p = Plan(symmetry), symmetry.random(torch.Generator().manual_seed(5))
    soft = soft_state(plan, state, {g: one_hot(i) for g, i in p.items()})
    hard = symmetry.apply(p, state)
    assert soft and all(torch.allclose(soft[key], hard[key], atol=1e-6) for key in soft)


def test_universe_undoes_planted_permutations():
    symmetry, state = symmetry_of("mlp"), noisy(families()["mlp"][0], 0)
    planted = [symmetry.random(torch.Generator().manual_seed(s)) for s in range(3)]
    states = [symmetry.apply(p, state) for p in planted]
    found = match_cycle_consistent(symmetry, states)
    aligned = [symmetry.apply(p, s) for p, s in zip(found, states, strict=True)]
    assert equal(aligned[0], aligned[1]) and equal(aligned[0], aligned[2])


def test_universe_agrees_round_a_circle_and_beats_the_start(resnets):
    symmetry, _, states = resnets
    to = match_cycle_consistent(symmetry, states)
    between = lambda p, q: symmetry.compose(symmetry.inverse(to[q]), to[p])
    round_trip = symmetry.compose(between(2, 0), symmetry.compose(between(1, 2), between(0, 1)))
    assert all(torch.equal(p, torch.arange(len(p))) for p in round_trip.values())
    total = lambda maps: sum(
        objective(symmetry, symmetry.apply(maps[p], states[p]), states[q], maps[q]) for p, q in ((0, 1), (0, 2), (1, 2))
    )
    to_first = [symmetry.identity(), *match_many(symmetry, states[0], states[1:])]
    assert total(to) > total(to_first) > total([symmetry.identity()] * 3)


def test_buffers_stay_out_of_the_cost(resnets):
    symmetry, _, (a, b, _) = resnets
    loud = {name: t * 1e6 if name in symmetry.buffers else t for name, t in b.items()}
    assert equal(match_weights(symmetry, a, b), match_weights(symmetry, a, loud))


class Attention(nn.Module):
    "Reads the weights of `attend.out_proj` without calling it."

    def __init__(self):
        super().__init__()
        self.embed, self.attend, self.head = nn.Linear(8, 8), nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x)
        return self.head(self.attend(x, x, x, need_weights=False)[0].mean(1))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.layer, self.head = nn.Linear(8, 8), nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.layer(self.embed(x)).mean(1))


class TiedLayers(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
        self[5].weight = self[3].weight


@pytest.mark.parametrize("network", [Attention, Encoder, TiedLayers])
def test_activations_of_layers_that_are_not_called_and_of_tied_weights(network):
    torch.manual_seed(0)
    model, x = network().eval(), torch.randn(40, 4, 8)
    symmetry = PermutationSymmetry.of(model, x[:2])
    permutation = symmetry.random(torch.Generator().manual_seed(1))
    shuffled = symmetry.apply(permutation, model.state_dict())
    found = match_activations(symmetry, shuffled, model.state_dict(), model=model, inputs=x)
    assert all(found[g].equal(p) for g, p in permutation.items())
