"Loss planes against direct evaluation, with BatchNorm, and from the cache."
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from starscape.barriers import sweep
from starscape.data import SettingsError, load_task
from starscape.networks import Network
from starscape.planes import directions_plane, dot, filter_normalised, loss_plane, loss_planes, top_eigenvectors
from starscape.training import Recipe, evaluate, train_population
from test_barriers import own_statistics

DIGITS = load_task("digits").subset(300, 120)
NAMES = ("source-000", "source-001", "heldout-000")


@pytest.fixture(scope="module", params=[Network("mlp", width=8, depth=2), Network("resnet", width=4)], ids=["mlp", "batchnorm"])
def zoo(request, tmp_path_factory):
    return train_population(DIGITS, request.param, Recipe(epochs=6), tmp_path_factory.mktemp("zoo"), n_sources=3, n_heldout=1)


def test_models_on_the_grid_have_their_own_losses_and_all_else_its_own_statistics(zoo):
    plane = loss_plane(zoo, NAMES, DIGITS, resolution=3, margin=0.0, align=False, models=["source-002"])
    own = {n: [evaluate(zoo.network(n), DIGITS, s)["loss"] for s in plane.splits] for n in (*NAMES, "source-002")}
    for name, rows in plane.points.groupby("name"):
        np.testing.assert_allclose(rows.loss, own[name], rtol=1e-5)
        assert (rows.distance < 1e-3).all() == (name in NAMES)
    np.testing.assert_allclose(plane.loss[:, 0, 0], own["source-000"], rtol=1e-5)  # (0, 0) is the first model
    np.testing.assert_allclose(plane.loss[:, 0, 2], own["source-001"], rtol=1e-3)  # (x, 0) the second
    for i, j in ((1, 1), (0, 2), (1, 0)):
        model = zoo.network(NAMES[0])
        model.load_state_dict(plane.state(plane.xs[i], plane.ys[j]))
        own_statistics(model, DIGITS.train_x)
        with torch.no_grad():
            wanted = [F.cross_entropy(model.eval()(x), y).item() for x, y in map(DIGITS.split, plane.splits)]
        np.testing.assert_allclose(plane.loss[:, j, i], wanted, rtol=2e-5)


def test_distances_in_the_plane_are_distances_between_parameters(zoo):
    plane = loss_plane(zoo, NAMES, DIGITS, resolution=2, align=False, models=["source-002"])
    places = plane.points[plane.points.split == "train"].set_index("name")
    for a in NAMES:
        for b in NAMES:
            step = {k: zoo.state(a)[k] - zoo.state(b)[k] for k in plane.parameters}
            np.testing.assert_allclose(np.hypot(*(places.loc[a, ["x", "y"]] - places.loc[b, ["x", "y"]])), dot(step, step, plane.parameters) ** 0.5, atol=1e-4)
    far = places.loc["source-002"]
    step = {k: zoo.state("source-002")[k] - plane.state(far.x, far.y)[k] for k in plane.parameters}
    for direction in plane.basis:
        np.testing.assert_allclose(dot(step, direction, plane.parameters), 0, atol=1e-3)
    np.testing.assert_allclose(far.distance, dot(step, step, plane.parameters) ** 0.5, rtol=1e-4)


def test_an_interrupted_plane_goes_on_where_it_was(zoo):
    stages = loss_planes(zoo, NAMES, DIGITS, resolution=9, seed=3)
    coarse = next(stages)
    del stages

    class Stop(Exception):
        pass

    def stop(share):
        if share > 0.5:
            raise Stop

    with pytest.raises(Stop):
        loss_plane(zoo, NAMES, DIGITS, resolution=9, seed=3, report=stop)
    shares = []
    fine = loss_plane(zoo, NAMES, DIGITS, resolution=9, seed=3, report=shares.append)
    np.testing.assert_array_equal(fine.loss[:, ::2, ::2], coarse.loss)
    np.testing.assert_allclose(fine.loss, loss_plane(zoo, NAMES, DIGITS, resolution=9, seed=3, cached=False).loss, rtol=1e-5)
    assert shares[-1] == 1 and sorted(shares) == shares


def test_directions_from_one_model(zoo):
    for directions in ("random", "hessian"):
        plane = directions_plane(zoo, "source-000", DIGITS, directions, resolution=3, extent=0.2)
        assert plane.xs.tolist() == pytest.approx([-0.2, 0, 0.2])
        np.testing.assert_allclose(plane.loss[:, 1, 1], [evaluate(zoo.network("source-000"), DIGITS, s)["loss"] for s in plane.splits], rtol=1e-5)
    with pytest.raises(SettingsError, match="extent"):
        directions_plane(zoo, "source-000", DIGITS, extent=0)


def test_random_directions_depend_on_the_seed_alone_and_have_the_norms_of_the_filters(zoo):
    state = zoo.state("source-000")
    assert list(state) == sorted(state)  # whatever the order in which a file is read
    draw = lambda given: filter_normalised(zoo.network("source-000"), given, torch.Generator().manual_seed(0))
    direction = draw(state)
    for k, d in draw(dict(reversed(state.items()))).items():
        assert torch.equal(d, direction[k]), k
    for k, p in zoo.network("source-000").named_parameters():
        torch.testing.assert_close(direction[k].flatten(1).norm(dim=1) if p.ndim > 1 else direction[k], p.flatten(1).norm(dim=1) if p.ndim > 1 else 0 * p)


@pytest.mark.parametrize("wrong", [dict(resolution=1), dict(margin=-1)])
def test_settings_out_of_range(zoo, wrong):
    with pytest.raises(SettingsError):
        loss_plane(zoo, NAMES, DIGITS, **wrong)


@pytest.mark.parametrize("wrong", [
    dict(resolution=2.5), dict(resolution=5.5), dict(resolution="9"), dict(margin=float("inf")), dict(margin=float("nan")), dict(margin="a"), dict(margin=None), dict(margin=(1, 2)),
])
def test_settings_of_the_wrong_kind_say_what_was_found_and_wanted(zoo, wrong):
    (name, value), = wrong.items()
    with pytest.raises(SettingsError, match=f"{name} is .*(whole number, at least 2|at least 0); found {re.escape(repr(value))}"):
        loss_plane(zoo, NAMES, DIGITS, **(dict(resolution=3) | wrong))
    wrong = {"extent" if name == "margin" else name: value}
    with pytest.raises(SettingsError, match=f"found {re.escape(repr(value))}"):
        directions_plane(zoo, "source-000", DIGITS, **(dict(resolution=3) | wrong))


def test_names_are_not_letters(zoo):
    for wrong in ("source-000", 3):
        with pytest.raises(SettingsError, match=f"list of their names; found {wrong!r}"):
            loss_plane(zoo, wrong, DIGITS)
    assert loss_plane(zoo, NAMES, DIGITS, 2, models="source-002").points.name.unique().tolist().count("source-002") == 1


def test_a_plane_knows_what_spans_it(zoo):
    assert loss_plane(zoo, NAMES, DIGITS, 2, models=["source-002"]).names == NAMES
    assert directions_plane(zoo, "source-001", DIGITS, resolution=2).names == ("source-001",)


@pytest.mark.parametrize("mode", ["cumulative", "momentum", "keep"])
def test_the_middle_of_two_models_is_that_of_the_line(mode, tmp_path):
    zoo = train_population(DIGITS, Network("resnet", width=4), Recipe(epochs=3), tmp_path / "zoo", n_sources=2, n_heldout=1)
    plane = loss_plane(zoo, NAMES, DIGITS, 3, margin=0.0, batchnorm=mode)
    line = sweep(zoo, [NAMES[:2]], DIGITS, 3, batchnorm=mode)
    places = [plane.points[plane.points.name == n].x.iloc[0] for n in NAMES[:2]]
    np.testing.assert_allclose(plane.xs[[0, 2]], places, atol=1e-4)  # the third model lies between: the middle of the grid is theirs
    np.testing.assert_allclose(plane.loss[:, 0, 1], line[line.t == 0.5].loss, rtol=2e-4)


class Attention(nn.Module):
    "Rows of a digit as tokens; it has a parameter that nothing depends on."

    def __init__(self):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True)
        self.out, self.unused = nn.Linear(8, 10), nn.Linear(3, 3)

    def forward(self, x):
        return self.out(self.block(x.squeeze(1)).mean(1))


def test_the_hessian_of_attention_and_of_unused_parameters():
    torch.manual_seed(0)
    module = Attention().eval()
    task = DIGITS.subset(20, 20)
    values, vectors = top_eigenvectors(module, task, tolerance=1e-6)
    params = {n: p.detach() for n, p in module.named_parameters()}
    assert values[0] >= values[1] > 0

    def gradient(state):
        leaves = {n: p.clone().requires_grad_() for n, p in state.items()}
        return torch.autograd.grad(F.cross_entropy(functional_call(module, leaves, (task.train_x,)), task.train_y), list(leaves.values()), materialize_grads=True)

    for value, vector in zip(values, vectors):
        assert all(not vector[n].any() for n in params if n.startswith("unused"))
        there, back = (gradient({n: p + h * vector[n] for n, p in params.items()}) for h in (2e-3, -2e-3))
        product = {n: (a - b) / 4e-3 for n, a, b in zip(params, there, back)}  # the Hessian's product by differences of gradients
        assert dot(product, vector, list(params)) == pytest.approx(value, rel=1e-2)
