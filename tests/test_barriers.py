"Sweeps and barriers against loops that could not be plainer, on random networks, under faults, and from the cache."
import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from starscape import evaluation
from starscape.barriers import Lines, _chosen, _Scan, adaptive_barriers, alignment, barriers, differences, line_between, pairs_of, summarise, sweep
from starscape.data import DataError, SettingsError, SymmetryError, Task, UnknownName, ZooError, load_task
from starscape.evaluation import Affine, Evaluator, foldable
from starscape.interpolation import interpolate, recalibrate, register_symmetry, symmetry_for
from starscape.matching import match_weights
from starscape.networks import Network, network_builders, stack
from starscape.symmetry import PermutationSymmetry
from starscape.training import Recipe, train_population
from starscape.zoo import Zoo

DIGITS = load_task("digits").subset(300, 120)
NETWORKS = [
    Network("mlp", width=12, depth=2),
    Network("mlp", width=12, depth=2, batchnorm=True),
    Network("resnet", width=4),
    Network("vgg11", width=4),
    Network("densenet", blocks=(2, 2), growth=4),
    Network("wide_resnet", depth=10),
]


@pytest.fixture(scope="module")
def mlps(tmp_path_factory):
    return train_population(DIGITS, Network("mlp", width=12, depth=2), Recipe(epochs=15), tmp_path_factory.mktemp("mlps"), n_sources=3, n_heldout=2)


@pytest.fixture(scope="module")
def resnets(tmp_path_factory):
    return train_population(DIGITS, Network("resnet", width=4), Recipe(epochs=8), tmp_path_factory.mktemp("resnets"), n_sources=2, n_heldout=1)


def own_statistics(model, x):
    "BatchNorm statistics with which every layer, in the network that results, is given inputs of just that mean and unbiased variance."
    def at_layer(m, args):
        dims = [d for d in range(args[0].ndim) if d != 1]
        m.running_mean.copy_(args[0].double().mean(dims))
        m.running_var.copy_(args[0].double().var(dims))

    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    hooks = [m.register_forward_pre_hook(at_layer) for m in norms]
    with torch.no_grad():
        model.eval()(x)
    for hook in hooks:
        hook.remove()


def plain_line(network, a, b, task, ts, splits=("train", "test")):
    "Losses (splits, T) in the plainest way."
    rows = []
    for t in ts:
        model = network.build().eval()
        model.load_state_dict({k: (1 - t) * a[k] + t * b[k] if a[k].is_floating_point() else a[k] for k in a})
        if 0 < t < 1:
            own_statistics(model, task.train_x)
        with torch.no_grad():
            rows.append([F.cross_entropy(model(x).double(), y).item() for x, y in map(task.split, splits)])
    return np.array(rows).T


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{n.name}-{'bn' if n.settings.get('batchnorm') else ''}")
def test_every_way_of_evaluating_agrees_with_a_plain_loop(network):
    network, ts = Network.of(network, DIGITS), [0.0, 0.25, 0.7, 1.0]
    a, b = ({k: v.clone() for k, v in network.build(seed=s).state_dict().items()} for s in (0, 1))
    wanted = plain_line(network, a, b, DIGITS, ts)
    at, positions, fresh = lambda t: interpolate(a, b, t if t.ndim else float(t)), torch.tensor(ts), [0 < t < 1 for t in ts]
    for batch, together in ((512, 4), (37, 1), (100, 2)):
        evaluator = Evaluator(network.build(), DIGITS)
        evaluator.batch, evaluator.stack = batch, together if evaluator.chain else 1
        np.testing.assert_allclose(evaluator.measure(at, positions, fresh)[0], wanted, rtol=1e-5)
    only_test = Evaluator(network.build(), DIGITS, ("test",)).measure(at, positions, fresh)[0]
    swapped = Evaluator(network.build(), DIGITS, ("test", "train")).measure(at, positions, fresh)[0]
    np.testing.assert_allclose(only_test, wanted[1:], rtol=1e-5)
    np.testing.assert_allclose(swapped, wanted[::-1], rtol=1e-5)


@pytest.mark.parametrize("network", NETWORKS[1:], ids=lambda n: n.name)
def test_one_pass_gives_statistics_and_loss_of_one_network(network):
    network, t = Network.of(network, DIGITS), 0.3
    a, b = ({k: v.clone() for k, v in network.build(seed=s).state_dict().items()} for s in (0, 1))
    model = network.build().eval()
    model.load_state_dict(interpolate(a, b, t))
    own_statistics(model, DIGITS.train_x)
    with torch.no_grad():
        wanted = [F.cross_entropy(model(x).double(), y).item() for x, y in map(DIGITS.split, ("train", "test"))]
    at, position = lambda t: interpolate(a, b, float(t)), torch.tensor([t])
    for splits, picked in ((("train", "test"), [0, 1]), (("test", "train"), [1, 0]), (("test",), [1])):
        for untraceable, batch in ((False, 512), (False, 37), (True, 100)):
            evaluator = Evaluator(network.build(), DIGITS, splits)
            assert evaluator.layerwise is not None
            evaluator.batch, evaluator.layerwise = batch, None if untraceable else evaluator.layerwise
            found = evaluator.measure(at, position, [True])[0]
            np.testing.assert_allclose(found[:, 0], [wanted[i] for i in picked], rtol=1e-5)


def test_statistics_of_several_batches_are_averaged(monkeypatch):
    "Each batch is normalised by its own mean and unbiased variance; PyTorch's own function differs by n/(n-1) in every layer."
    network = Network.of(Network("resnet", width=4), DIGITS)
    model, batches = network.build(seed=0).eval(), DIGITS.train_x.chunk(3)
    norms = lambda m: [n for n in m.modules() if isinstance(n, nn.BatchNorm2d)]
    found = []
    for xs in batches:
        own_statistics(model, xs)
        found.append([(n.running_mean.clone(), n.running_var.clone()) for n in norms(model)])
    one = recalibrate(copy.deepcopy(model), DIGITS, batch_size=-(-len(DIGITS.train_y) // 3))
    monkeypatch.setattr(evaluation, "CALIBRATION_BATCH", -(-len(DIGITS.train_y) // 3))
    evaluator = Evaluator(copy.deepcopy(model), DIGITS)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    loss, _ = evaluator.measure(lambda t: state, torch.zeros(1), [True])
    for norm, same, *each in zip(norms(one), norms(evaluator.module), *found):
        for k, own in enumerate(("running_mean", "running_var")):
            wanted = torch.stack([moments[k] for moments in each]).mean(0)
            torch.testing.assert_close(getattr(norm, own), wanted, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(getattr(same, own), wanted, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        own = F.cross_entropy(one(DIGITS.test_x), DIGITS.test_y).item()
        np.testing.assert_allclose(loss[1, 0], own, rtol=1e-5)
        torch.optim.swa_utils.update_bn(batches, model)
        np.testing.assert_allclose(F.cross_entropy(model.eval()(DIGITS.test_x), DIGITS.test_y).item(), own, rtol=2e-3)


def test_both_splits_of_a_sweep_are_what_a_loop_finds(resnets):
    network = resnets.network_of("source-000")
    frame = sweep(resnets, [("source-000", "heldout-000")], DIGITS, points=5, align=False)
    found = frame.pivot(index="split", columns="t", values="loss").loc[["train", "test"]]
    wanted = plain_line(network, resnets.state("source-000"), resnets.state("heldout-000"), DIGITS, np.linspace(0, 1, 5))
    np.testing.assert_allclose(found, wanted, rtol=2e-5)


def test_momentum_mode_is_a_pass_in_training_mode(resnets):
    a, b = resnets.state("source-000"), resnets.state("source-001")
    frame = sweep(resnets, [("source-000", "source-001")], DIGITS, points=3, align=False, batchnorm="momentum", splits=("test",))
    assert set(frame.batchnorm) == {"momentum"}
    model = resnets.network("source-000")
    model.load_state_dict(a)  # the running averages start from those of the first model, as in the paper's code
    model.load_state_dict({k: interpolate(a, b, 0.5)[k] for k, _ in model.named_parameters()}, strict=False)
    model.train()
    with torch.no_grad():
        for x in DIGITS.train_x.split(128):
            model(x)
        loss = F.cross_entropy(model.eval()(DIGITS.test_x), DIGITS.test_y).item()
    np.testing.assert_allclose(frame.loss[1], loss, rtol=1e-5)


def test_a_layer_used_twice_is_measured_right():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 10)

        def forward(self, x):
            return self.b(self.norm(F.relu(self.norm(self.a(x.flatten(1))))))

    torch.manual_seed(0)
    model = Twice().eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    plain = recalibrate(copy.deepcopy(model), DIGITS)
    with torch.no_grad():
        wanted = [F.cross_entropy(plain(x), y).item() for x, y in map(DIGITS.split, ("train", "test"))]
    loss, _ = Evaluator(model, DIGITS).measure(lambda t: state, torch.zeros(1), [True])
    np.testing.assert_allclose(loss[:, 0], wanted, rtol=1e-5)


def test_only_what_feeds_one_norm_is_folded():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.other, self.norm2 = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            y = self.conv(x)
            return self.norm2(self.other(self.norm(y) + y))  # `conv` is also used as it is

    assert foldable(Branch()) == [("other", "norm2")]


class Reused(nn.Module):
    "Values that are read twice, sums of one value, results handed on as they are: what may be written over, and what may not."

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, 6, 3, padding=1) for i in (1, 6, 6))
        self.norm, self.other, self.same = nn.BatchNorm2d(6), nn.BatchNorm2d(6), nn.Identity()
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        y = self.a(x)
        z = F.relu(self.norm(y)) + y  # the convolution is read by its normalisation and by the sum
        w = self.b(z)
        z = z + F.relu(w + w) + torch.relu(self.same(w))
        v = self.other(z)
        return self.head((F.relu(v) + z + v + y.mean((2, 3), keepdim=True)).mean((2, 3)))


def test_nothing_that_is_read_again_is_written_over():
    torch.manual_seed(0)
    model = Reused().eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    plain = recalibrate(copy.deepcopy(model), DIGITS)
    with torch.no_grad():
        wanted = [F.cross_entropy(plain(x), y).item() for x, y in map(DIGITS.split, ("train", "test"))]
    evaluator = Evaluator(model, DIGITS)
    assert evaluator.layerwise is not None
    x, own = evaluator.x.clone(), F.cross_entropy(copy.deepcopy(model)(DIGITS.test_x), DIGITS.test_y).item()
    for batch in (512, 70):
        evaluator.batch = batch
        loss, _ = evaluator.measure(lambda t: state, torch.zeros(2), [True, False])
        np.testing.assert_allclose(loss[:, 0], wanted, rtol=1e-5)
        np.testing.assert_allclose(loss[1, 1], own, rtol=1e-5)
    assert evaluator.x.equal(x)
    for k, v in model.state_dict().items():
        assert "running" in k or v.equal(state[k])


class Scaled(nn.Linear):
    "Looks like a linear layer."

    def forward(self, x):
        return F.linear(x, 2 * self.weight, self.bias)


class OneOf(nn.Module):
    "A convolution, a hidden layer, and whatever `forward` does with them."

    def __init__(self, forward):
        super().__init__()
        self.conv, self.other, self.head = nn.Conv2d(1, 6, 3), nn.Conv2d(1, 6, 3), nn.Linear(6, 10)
        self.norm, self.heads = nn.BatchNorm2d(6), nn.ParameterList(torch.randn(10, 6) for _ in range(2))
        self.phase = nn.Parameter(torch.randn(6, dtype=torch.complex64))
        self.register_buffer("scale", torch.rand(6, 1, 1) + 0.5)
        self.body = forward

    def forward(self, x):
        return self.body(self, x)


def shared_activation():
    act = nn.ReLU()
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 10))


def shared_layer():
    layer = nn.Linear(8, 8)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), layer, nn.ReLU(), layer, nn.Linear(8, 10))


def hooked():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    model[1].register_forward_hook(lambda module, args, y: 2 * y)
    return model


def relu_in_place(m, x):
    h = m.conv(x)
    return m.head((m.norm(F.relu(h, inplace=True)) + h * m.other(x)).mean((2, 3)))


def frozen_norm(m, x):
    return m.head((m.conv(x) * m.scale.rsqrt()).relu().mean((2, 3)))


def numbers(m, x):
    return 1 + m.head(torch.add(m.norm(1 + m.conv(x)), 2).relu().mean((2, 3))) + 1


def by_keyword(m, x):
    return m.head(input=m.norm(input=m.conv(input=x)).relu().mean((2, 3)))


def listed(m, x):
    return F.linear(m.norm(m.conv(x)).relu().mean((2, 3)), torch.stack(list(m.heads.parameters())).sum(0))


def viewed(m, x):
    y = m.norm(m.conv(x))
    return m.head(y.view(len(y), 6, -1).relu().mean(2))


def complex_numbers(m, x):
    return m.head((m.conv(x).mean((2, 3)) * m.phase).abs())


THEIRS = {
    "shared activation": shared_activation,
    "shared layer": shared_layer,
    "hooked": hooked,
    "subclass": lambda: nn.Sequential(nn.Flatten(), Scaled(64, 8), nn.ReLU(), nn.Linear(8, 10)),
    "linear on pixels": lambda: nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(40, 10)),
    "in place first": lambda: nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(64, 10)),
    "weight norm": lambda: nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(64, 8)), nn.Linear(8, 10)),
    **{f.__name__.replace("_", " "): lambda f=f: OneOf(f) for f in (relu_in_place, frozen_norm, numbers, by_keyword, listed, viewed, complex_numbers)},
}


@pytest.mark.parametrize("points", [4, 6])  # 1 + points - 2 positions are stacked: 3 would pass for the channels of an image
@pytest.mark.parametrize("name", THEIRS)
def test_what_users_write_is_measured_as_they_wrote_it(name, points):
    torch.manual_seed(0)
    models = [THEIRS[name]().eval() for _ in range(2)]
    a, b = ({k: v.clone() for k, v in m.state_dict().items()} for m in models)
    for k in a:
        if "running" in k or k == "scale":
            b[k] += 0.5
    ts, wanted = torch.linspace(0, 1, points, dtype=torch.float64), []
    for t in ts.tolist():
        model = copy.deepcopy(models[0])
        model.load_state_dict({k: a[k] + t * (b[k] - a[k]) if not k.endswith("tracked") else a[k] for k in a})
        if 0 < t < 1:
            recalibrate(model, DIGITS)
        with torch.no_grad():
            wanted.append([F.cross_entropy(model(x.clone()), y).item() for x, y in map(DIGITS.split, ("train", "test"))])
    evaluator = Evaluator(copy.deepcopy(models[0]), DIGITS)
    loss, _ = evaluator.measure(line_between(evaluator, a, b), ts, [0 < t < 1 for t in ts.tolist()])
    np.testing.assert_allclose(loss.T, wanted, rtol=1e-5)
    assert vars(evaluator.module).keys() == vars(models[0]).keys()


def test_other_threads_may_run_networks_while_one_is_traced():
    "torch.fx has every module of the process call the tracer."
    network = Network("resnet", width=4, input_shape=(1, 8, 8))
    stop, errors = threading.Event(), []

    def runs():
        model = network.build(seed=0).eval()
        try:
            while not stop.is_set():
                model(DIGITS.test_x[:2])
        except Exception as e:
            errors.append(e)

    call, found = nn.Module.__call__, nn.Module.__getattr__
    threads = [threading.Thread(target=runs) for _ in range(2)]
    for thread in threads:
        thread.start()
    with ThreadPoolExecutor(3) as pool:
        pairs = list(pool.map(lambda i: foldable(network.build(seed=i)), range(24)))
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors and all(p == pairs[0] and len(p) == 9 for p in pairs)
    assert nn.Module.__call__ is call and nn.Module.__getattr__ is found


def test_a_batch_of_one_is_joined_to_the_one_before():
    task, model = DIGITS.subset(129, 20), Network("mlp", width=8, depth=1, batchnorm=True, input_shape=(1, 8, 8)).build(seed=0)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    loss, _ = Evaluator(model, task, batchnorm="momentum").measure(lambda t: state, torch.zeros(1), [True])
    assert loss.isfinite().all()


def test_little_memory_is_said(monkeypatch):
    monkeypatch.setattr("starscape.evaluation._free_memory", lambda device: 200_000)
    with pytest.warns(UserWarning, match="less than 2000 examples"):
        Evaluator(Network("resnet", width=4, input_shape=(1, 8, 8)).build(seed=0), DIGITS)
    wide = Evaluator(Network("mlp", width=200, depth=2, input_shape=(1, 8, 8)).build(seed=0), DIGITS.subset(10, 10))
    assert wide.stack == 1  # more states than one would not fit


class Convolutions(nn.Module):
    "Convolutions of gray images, of pixels far apart, and of images smaller than their kernels."

    def __init__(self, kernel, stride, padding, bias):
        super().__init__()
        conv = lambda n_in, n_out, *how: nn.Sequential(nn.Conv2d(n_in, n_out, *how, bias=bias), nn.BatchNorm2d(n_out), nn.ReLU())
        self.body = nn.Sequential(conv(1, 6, 3, (1, 2), 1), conv(6, 4, 1, (3, 2)), conv(4, 5, kernel, stride, padding))
        self.head = nn.Linear(5, 10)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("height", "width", "kernel", "stride", "padding"),
    [(6, 8, 3, 1, 1), (6, 8, 3, 2, 1), (3, 4, 3, 1, 1), (2, 2, 3, (1, 3), 1), (3, 8, (3, 5), (1, 2), (1, 2)), (8, 8, 5, 1, 2), (8, 8, 3, 1, 1), (2, 2, 5, 2, 2), (7, 5, 3, 1, 2)],
)
def test_every_kind_of_convolution_is_what_it_is(height, width, kernel, stride, padding, bias):
    torch.manual_seed(0)
    cut = lambda x: x[:, :, :height, :width].contiguous()
    task = Task("cut", cut(DIGITS.train_x), DIGITS.train_y, cut(DIGITS.test_x), DIGITS.test_y, num_classes=10)
    model = Convolutions(kernel, stride, padding, bias).eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    plain = recalibrate(copy.deepcopy(model), task)
    wanted = [[F.cross_entropy(m(x), y).item() for x, y in map(task.split, ("train", "test"))] for m in (plain, model)]
    evaluator = Evaluator(copy.deepcopy(model), task)
    for batch in (512, 70):
        evaluator.batch = batch
        loss, _ = evaluator.measure(lambda t: state, torch.zeros(2), [True, False])
        np.testing.assert_allclose(loss.T, wanted, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("stride", [1, (1, 2), (3, 1)])
@pytest.mark.parametrize("sliced", [False, True])
def test_single_channels_are_convolved_right(size, stride, sliced):
    "PyTorch 2.13 errs with a channel stride of 1, uneven steps, and small images."

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 4, 3, stride, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1, 2), nn.BatchNorm2d(1), nn.Conv2d(1, 4, 3, stride, 1), nn.ReLU())
            self.head = nn.Linear(4, 10)

        def forward(self, x):
            return self.head(self.body(x[:, :, :size, :size] if sliced else x).mean((2, 3)))

    torch.manual_seed(0)
    cut = lambda x: x if sliced else x[:, :, 3 : 3 + size, 3 : 3 + size].contiguous()
    task = Task("cut", cut(DIGITS.train_x), DIGITS.train_y, cut(DIGITS.test_x), DIGITS.test_y, num_classes=10)
    model = Net().eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    plain = recalibrate(copy.deepcopy(model), task).double()
    wanted = [F.cross_entropy(plain(x.double()), y).item() for x, y in map(task.split, ("train", "test"))]
    loss, _ = Evaluator(copy.deepcopy(model), task).measure(lambda t: state, torch.zeros(1), [True])
    np.testing.assert_allclose(loss[:, 0], wanted, rtol=1e-5)


def test_patches_are_those_of_the_data_at_hand():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 10)).eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    evaluator = Evaluator(copy.deepcopy(model), DIGITS)
    for seed in range(20):  # the memory of what is no longer used is used again
        rows = torch.randperm(420, generator=torch.Generator().manual_seed(seed))[:50]
        nats, _ = evaluator.few(rows, torch.arange(20)).each(lambda t: state, torch.zeros(1), [False])
        wanted = F.cross_entropy(model(evaluator.x[rows]), evaluator.y[rows], reduction="none")
        np.testing.assert_allclose(nats[0], wanted.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "chain",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(64, 9, bias=False), nn.ReLU(), nn.Linear(9, 10)),
        nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(64, 9), nn.Tanh(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 10, bias=False)),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Linear(9, 10)),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
    ],
)
def test_products_that_serve_a_whole_line_or_plane(chain):
    "The first layer is affine in its weights; with little memory, or few positions, each is computed for itself."
    generator = torch.Generator().manual_seed(0)
    a, u, v = ({k: torch.randn(p.shape, generator=generator) / 3 for k, p in chain.named_parameters()} for _ in range(3))
    positions = torch.rand(12, 2, generator=generator, dtype=torch.float64)
    state = lambda x, y: {k: p + float(x) * u[k] + float(y) * v[k] for k, p in a.items()}
    with torch.no_grad():
        wanted = [[F.cross_entropy(functional_call(chain, state(*p), (x,)), y).item() for p in positions] for x, y in map(DIGITS.split, ("train", "test"))]
    plane = Affine(lambda p: stack([state(*q) for q in p]), lambda p: p, lambda k: (a[k], u[k], v[k]))
    evaluator = Evaluator(copy.deepcopy(chain), DIGITS)
    products = evaluator.inlet is not None
    for memory, batch, number in ((2**30, 420, 12), (2**30, 50, 12), (2**30, 420, 3), (1000, 420, 12)):
        evaluator._inlets, evaluator.batch, evaluator._budget = (None, []), batch, memory
        loss, _ = evaluator.measure(plane, positions[:number], [True] * number)
        np.testing.assert_allclose(loss, np.array(wanted)[:, :number], rtol=1e-5)
        assert (evaluator._inlets[0] is plane) == (products and memory > 1000 and number > 6)


class Hungry(nn.Module):
    "Runs out of memory on more than `limit` examples."
    limit = 40

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))

    def forward(self, x):
        if len(x) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.body(x)


def test_running_out_of_memory_makes_the_pieces_smaller():
    torch.manual_seed(0)
    model = Hungry().eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        wanted = F.cross_entropy(torch.cat([model(x) for x in DIGITS.test_x.split(40)]), DIGITS.test_y).item()
    evaluator = Evaluator(model, DIGITS, ("test",), batchnorm="keep")
    np.testing.assert_allclose(evaluator.measure(lambda t: state, torch.zeros(1), [True])[0], wanted, rtol=1e-5)
    assert evaluator.batch <= 40 and evaluator.exact
    shrinking = Evaluator(model, DIGITS)
    with pytest.warns(UserWarning, match="Memory is short"):
        loss, _ = shrinking.measure(lambda t: state, torch.zeros(1), [True])
    assert loss.isfinite().all() and not shrinking.exact  # statistics of smaller batches: not what the cache would promise
    Hungry.limit = 0
    try:
        with pytest.raises(torch.OutOfMemoryError):
            evaluator.measure(lambda t: state, torch.zeros(1), [False])
    finally:
        Hungry.limit = 40


def test_other_errors_are_not_taken_for_lack_of_memory():
    broken = Evaluator(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), DIGITS)
    with pytest.raises(RuntimeError, match="Expected size"):
        broken.measure(lambda t: {"1.weight": torch.zeros(1, 10, 63), "1.bias": torch.zeros(1, 10)}, torch.zeros(1), [False])


def test_a_small_share_of_memory_gives_the_same_numbers(mlps, monkeypatch):
    monkeypatch.setattr("starscape.evaluation._free_memory", lambda device: 100_000)
    settings = dict(points=4, cached=False)
    scarce = sweep(mlps, "source-heldout", DIGITS, memory_fraction=0.1, **settings)
    monkeypatch.undo()
    np.testing.assert_allclose(scarce.loss, sweep(mlps, "source-heldout", DIGITS, **settings).loss, rtol=1e-5)


def test_matchings(mlps):
    pair, network = [("source-000", "heldout-000")], mlps.network_of("source-000")
    symmetry, a, b = symmetry_for(network, DIGITS), mlps.state("source-000"), mlps.state("heldout-000")
    middle = lambda **s: float(sweep(mlps, pair, DIGITS, points=3, **s).query("split == 'train' and t == 0.5").loss.iloc[0])
    assert middle() == middle(align="weights") == middle(align=lambda s, x, y: match_weights(s, x, y, seed=0))
    assert middle(align=lambda s, x, y: s.identity()) == middle(align=False)
    assert middle(n_restarts=8, select="midpoint") <= middle() + 1e-6  # the first search is the one that is made alone
    named = sweep(mlps, pair, DIGITS, points=3, align="activations")
    assert set(named.matching) == {"activations"} and named.aligned.all()
    p = alignment(mlps, "source-000", "heldout-000", DIGITS)
    wanted = plain_line(network, a, symmetry.apply(p, b), DIGITS, [0.5])[0, 0]
    np.testing.assert_allclose(middle(), wanted, rtol=1e-5)


def test_both_models_aligned_to_a_third(mlps):
    network = mlps.network_of("source-000")
    symmetry, to = symmetry_for(network, DIGITS), mlps.state("source-001")
    a, b = (symmetry.apply(match_weights(symmetry, to, s, seed=0), s) for s in map(mlps.state, ("source-000", "heldout-000")))
    frame = sweep(mlps, [("source-000", "heldout-000")], DIGITS, points=3, align_to="source-001")
    np.testing.assert_allclose(frame.query("split == 'train'").loss, plain_line(network, a, b, DIGITS, [0, 0.5, 1])[0], rtol=1e-5)
    assert set(frame.matching) == {"weights, to source-001"}
    with pytest.raises(UnknownName):
        sweep(mlps, [("source-000", "heldout-000")], DIGITS, align_to="nobody")
    with pytest.raises(SettingsError, match="align_to"):
        sweep(mlps, [("source-000", "heldout-000")], DIGITS, align=False, align_to="source-001")


def test_products_of_roles(mlps):
    assert pairs_of(mlps, "source-source") == [("source-000", "source-001"), ("source-000", "source-002"), ("source-001", "source-002")]
    assert len(pairs_of(mlps, "regular-regular")) == len(pairs_of(mlps, "source-heldout")) == 6
    assert pairs_of(mlps, "star-star") == []
    with pytest.raises(UnknownName, match="star-source, star-heldout"):
        pairs_of(mlps, "star-sauce")


@pytest.mark.parametrize("wrong", [dict(n_restarts=0), dict(align="activations", n_restarts=2), dict(points=1), dict(memory_fraction=0)])
def test_settings_out_of_range(mlps, wrong):
    with pytest.raises(SettingsError):
        sweep(mlps, [("source-000", "source-001")], DIGITS, cached=False, **wrong)


@pytest.mark.parametrize("wrong", [dict(align="wieghts"), dict(select="middle"), dict(batchnorm="cumulativ"), dict(splits=("validation",))])
def test_unknown_names(mlps, wrong):
    with pytest.raises(UnknownName):
        sweep(mlps, [("source-000", "source-001")], DIGITS, **wrong)


def test_the_cache_holds_what_was_measured_and_knows_settings_apart(mlps):
    pairs, key = [("source-000", "heldout-001")], dict(points=4)
    first = sweep(mlps, pairs, DIGITS, **key)
    pd.testing.assert_frame_equal(first, sweep(Zoo(mlps.path), pairs, DIGITS, **key))
    variants = [dict(align=False), dict(n_restarts=3), dict(align_to="source-002"), dict(seed=1), dict(align="activations")]
    frames = [sweep(mlps, pairs, DIGITS, **key, **v) for v in variants]
    for v, frame in zip(variants, frames):
        pd.testing.assert_frame_equal(frame, sweep(mlps, pairs, DIGITS, **key, **v, cached=False), rtol=1e-6)
    other = sweep(mlps, pairs, replace(DIGITS, test_x=DIGITS.test_x + 1), **key)
    assert not np.allclose(other.loss, first.loss)
    assert list(first.columns[:3]) == ["first", "second", "pair"] and len(first) == 8


ADAPTIVE = dict(points=201, cached=False)


def test_a_scan_of_the_highest_losses_and_some_of_the_rest_estimates_the_mean():
    generator = torch.Generator().manual_seed(0)
    losses = torch.randn(3, 400, generator=generator).exp() ** 2  # a few examples make most of the mean, as in trained models
    losses[1:] += losses[:1]
    estimates, errors, scan = [], [], lambda rows, k: _Scan((0, 1, 2), (0.0, 0.5, 1.0), [losses[:, rows].numpy()], [k], [400])
    for seed in range(200):
        rows, k = _chosen(losses[:2], 100, torch.randperm(400, generator=torch.Generator().manual_seed(seed)))
        assert k == 50 and len(set(rows.tolist())) == 100
        mean, error, rough = scan(rows, k).margins([0])
        estimates.append(mean[0, 0, 2])
        errors.append(error[0, 0, 2])
    true = float((losses[2] - losses[0]).mean())
    assert abs(np.mean(estimates) - true) < 4 * np.std(estimates) / 200**0.5
    np.testing.assert_allclose(np.mean(np.square(errors)) ** 0.5, np.std(estimates), rtol=0.2)
    rows, k = _chosen(losses, 400, torch.arange(400))
    mean, error, rough = scan(rows, k).margins([0])
    np.testing.assert_allclose(mean[0, 0, 2], true, rtol=1e-5)
    assert (error == 0).all() and (rough == 0).all()


@pytest.mark.parametrize("points", [2, 3, [0, 0.3, 1]])
def test_adaptive_barriers_of_a_line_with_hardly_any_points(mlps, points):
    pairs, few = [("source-000", "heldout-000"), ("heldout-000", "source-001"), ("source-000", "source-001")], dict(points=points, cached=False)
    full, found = barriers(sweep(mlps, pairs, DIGITS, **few)), adaptive_barriers(mlps, pairs, DIGITS, **few)
    np.testing.assert_allclose(found.loss_barrier, full.loss_barrier, rtol=1e-5, atol=1e-7)
    assert (found.missed == 0).all()




def test_frames_of_two_measurements_are_kept_apart(mlps):
    pairs = [("source-000", "heldout-000"), ("source-000", "heldout-001")]
    frame = sweep(mlps, pairs, DIGITS, 5)
    twice = pd.concat([frame, frame])
    pd.testing.assert_frame_equal(barriers(twice), barriers(frame))
    with pytest.raises(DataError, match="several values at one t"):
        barriers(pd.concat([frame, sweep(mlps, pairs, DIGITS.subset(100, 50), 5)]))
    both = pd.concat([barriers(frame), barriers(sweep(mlps, pairs, DIGITS, 5, align="activations"))])
    table = summarise(both)
    assert list(table.n) == [2] * 4 and set(table.matching) == {"weights", "activations"}
    assert "matching" not in summarise(barriers(frame))
    assert {frozenset((d.higher, d.lower)) for d in differences(both).itertuples()} == {frozenset(("regular-regular, weights", "regular-regular, activations"))}
    with pytest.raises(DataError, match="summarise needs the frame that barriers gives; it lacks first_loss"):
        summarise(frame.drop(columns="split").assign(split="train", loss_barrier=0.0, accuracy_barrier=0.0))


class Untraceable(nn.Module):
    "Its code asks for the values of a tensor."

    def __init__(self, width=8):
        super().__init__()
        self.a, self.b = nn.Linear(64, width), nn.Linear(width, 10)

    def forward(self, x):
        h = self.a(x.flatten(1))
        return self.b(torch.relu(h) if float(h.detach().abs().sum()) > 0 else h)


def test_a_symmetry_by_hand_serves_where_code_cannot_be_traced(tmp_path, monkeypatch):
    monkeypatch.setitem(network_builders, "untraceable", Untraceable)
    zoo = Zoo(tmp_path)
    torch.manual_seed(0)
    model, order = Untraceable(), torch.randperm(8)
    twin = {"a.weight": model.a.weight[order], "a.bias": model.a.bias[order], "b.weight": model.b.weight[:, order], "b.bias": model.b.bias}
    zoo.add("one", model.state_dict(), network=Network("untraceable"))
    zoo.add("two", {k: v.detach() for k, v in twin.items()}, network=Network("untraceable"))
    with pytest.raises(SymmetryError, match="register_symmetry"):
        sweep(zoo, ("one", "two"), DIGITS, 3)
    spec = {"a.weight": ["h", None], "a.bias": ["h"], "b.weight": [None, "h"], "b.bias": [None]}
    wrong = PermutationSymmetry.from_spec(spec | {"b.weight": [None, None]}, model.state_dict())
    register_symmetry(zoo.network_of("one"), wrong)
    with pytest.raises(SymmetryError, match="another function"):
        sweep(zoo, ("one", "two"), DIGITS, 3)
    register_symmetry(zoo.network_of("one"), PermutationSymmetry.from_spec(spec, model.state_dict()))
    found = sweep(zoo, ("one", "two"), DIGITS, 3)
    np.testing.assert_allclose(found[found.split == "train"].loss, found.loss[0], rtol=1e-5)


def test_a_pair_type_without_pairs_is_said(tmp_path):
    with pytest.raises(ZooError, match="no star-source pair.*0 models as star, 0 models as source"):
        sweep(tmp_path, "star-source", DIGITS)


def test_a_difference_is_of_the_same_models():
    "What makes a model hard to reach for both pair types is no reason to doubt their difference."
    rows = [dict(pair=pair, aligned=True, split="test", first="a", second=f"m{i}", loss_barrier=i + shift + 0.01 * (i % 2))
            for pair, shift in (("star-heldout", 0.0), ("regular-regular", 0.3)) for i in range(6)]
    found = differences(pd.DataFrame(rows)).iloc[0]
    assert found.low == pytest.approx(0.3) and found.high == pytest.approx(0.3)
    alone = differences(pd.DataFrame([r for r in rows if r["second"] == "m0"])).iloc[0]
    assert alone.difference == pytest.approx(0.3) and np.isnan(alone.low) and np.isnan(alone.high)


def test_a_line_without_a_loss_is_not_left_out_of_a_mean():
    rows = [dict(first="a", second=f"m{i}", pair="star-heldout", aligned=True, split="test", t=t, loss=np.nan if (i, t) == (1, 0.5) else 1 + i + t * (1 - t), accuracy=0.5)
            for i in range(3) for t in (0.0, 0.5, 1.0)]
    frame = barriers(pd.DataFrame(rows))
    assert frame.loss_barrier.isna().tolist() == [False, True, False]
    table = summarise(frame)
    assert table.n[0] == 3 and np.isnan(table.loss_barrier_mean[0]) and table.first_loss_mean[0] == pytest.approx(2)
    other = frame.assign(pair="regular-regular", loss_barrier=frame.loss_barrier.fillna(0.25) + 1)
    found = differences(pd.concat([frame, other])).iloc[0]
    assert np.isnan(found.difference) and np.isnan(found.low)


def test_one_weights_file_under_two_networks_is_measured_twice(tmp_path, monkeypatch):
    "What is cached is of a network and its weights."
    builders = {f"with {act.__name__}": lambda act=act: nn.Sequential(nn.Flatten(), nn.Linear(64, 8), act(), nn.Linear(8, 10)) for act in (nn.ReLU, nn.Tanh)}
    zoo, found = Zoo(tmp_path), {}
    for name, builder in builders.items():
        monkeypatch.setitem(network_builders, name, builder)
    torch.manual_seed(0)
    states = [builders["with ReLU"]().state_dict() for _ in range(2)]
    for i, name in enumerate(builders):
        for j, state in enumerate(states):
            zoo.add(f"m{i}{j}", state, network=Network(name))
        found[name] = sweep(zoo, (f"m{i}0", f"m{i}1"), DIGITS, np.int64(3), align=False, splits="train").loss.to_numpy()  # two names are a pair, too
        model = builders[name]()
        model.load_state_dict(states[0])
        with torch.no_grad():
            assert found[name][0] == pytest.approx(F.cross_entropy(model(DIGITS.train_x), DIGITS.train_y).item(), rel=1e-5)
    assert not np.allclose(*found.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [(dict(splits=()), "found none"), (dict(n_restarts=2.5), "n_restarts"), (dict(align=lambda symmetry, a, b: None), "returned NoneType")],
)
def test_settings_that_mean_nothing_are_named(mlps, settings, message):
    with pytest.raises(SettingsError, match=message):
        sweep(mlps, [("source-000", "heldout-000")], DIGITS, 3, **settings)


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("zoo", ["mlps", "resnets"])
def test_adaptive_barriers_keep_their_promise(zoo, align, request):
    "On a fine grid, for high barriers (raw) and lower ones (aligned): what was missed is within the bound that was told."
    zoo, pairs = request.getfixturevalue(zoo), [("source-000", "heldout-000"), ("source-001", "heldout-000")]
    full = barriers(sweep(zoo, pairs, DIGITS, align=align, **ADAPTIVE))
    found = barriers(zoo, pairs, DIGITS, adaptive=True, align=align, sample=100, **ADAPTIVE)
    both = full.merge(found, on=["first", "second", "split"], suffixes=("", "_found"))
    missed = both.loss_barrier - both.loss_barrier_found
    assert len(both) == 4 and (missed > -1e-5).all()
    assert (missed <= both.missed + 1e-5).all()
    assert (both.missed <= np.maximum(0.002, 0.05 * both.loss_barrier_found) + 1e-9).all()
    assert (found.evaluations < 30).all()
    for column in ("first_loss", "second_loss"):
        np.testing.assert_allclose(both[column], both[f"{column}_found"], rtol=1e-5)


def test_adaptive_barriers_keep_their_promise_on_stale_statistics(resnets):
    "With momentum, as much of the first model's statistics is left in the scan as in the whole pass."
    task = load_task("digits").subset(1000, 200)  # eight batches leave 43 %, the scan has one
    pairs = [("source-000", "heldout-000"), ("source-001", "heldout-000")]
    settings = dict(points=31, batchnorm="momentum", cached=False)
    full = barriers(sweep(resnets, pairs, task, **settings))
    found = adaptive_barriers(resnets, pairs, task, **settings)
    assert (full.loss_barrier - found.loss_barrier <= found.missed + 1e-5).all()


class Wave(nn.Module):
    def forward(self, x):
        return torch.sin(2 * x)


def test_adaptive_barriers_of_rough_lines_on_uneven_grids(tmp_path, monkeypatch):
    "Waves that the first scan is too coarse for: it tells, and scans more."
    monkeypatch.setitem(network_builders, "waves", lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 24), Wave(), nn.Linear(24, 10)))
    zoo = train_population(DIGITS, Network("waves"), Recipe(epochs=5), tmp_path / "zoo", n_sources=1, n_heldout=2)
    grid = [0, *np.sort(np.random.default_rng(0).random(60)).tolist(), 1]
    settings = dict(points=grid, align=False, cached=False)
    full, found = barriers(sweep(zoo, "source-heldout", DIGITS, **settings)), adaptive_barriers(zoo, "source-heldout", DIGITS, **settings)
    short = full.loss_barrier - found.loss_barrier
    assert (short > -1e-5).all() and (short <= found.missed + 1e-5).all()
    assert (found.missed <= np.maximum(0.002, 0.05 * found.loss_barrier) + 1e-9).all() and (found.evaluations < 20).all()


@pytest.mark.parametrize("splits", [("test",), ("test", "train"), "train"])
def test_adaptive_barriers_of_some_splits(resnets, splits):
    settings = dict(points=21, splits=splits, cached=False)
    full, found = barriers(sweep(resnets, "source-heldout", DIGITS, **settings)), adaptive_barriers(resnets, "source-heldout", DIGITS, **settings)
    assert list(full.split) == list(found.split)
    assert (full.loss_barrier - found.loss_barrier <= found.missed + 1e-5).all()
    np.testing.assert_allclose(found.first_accuracy, full.first_accuracy, rtol=1e-6)


def test_adaptive_barriers_that_are_tiny(mlps):
    "From a model to one a small step away: the barrier is less than a thousandth of a nat."
    near = {k: v + 0.02 * v.std() * torch.randn(v.shape, generator=torch.Generator().manual_seed(1)) for k, v in mlps.state("source-000").items()}
    mlps.add("near", near, network=mlps.network_of("source-000"), overwrite=True)
    pairs = [("source-000", "near")]
    full = barriers(sweep(mlps, pairs, DIGITS, align=False, **ADAPTIVE))
    found = adaptive_barriers(mlps, pairs, DIGITS, align=False, floor=1e-4, **ADAPTIVE)
    mlps.remove("near")
    assert full.loss_barrier.max() < 1e-3
    assert (full.loss_barrier - found.loss_barrier <= found.missed + 1e-6).all() and (found.missed <= 1.1e-4).all()


def test_adaptive_answers_come_back_from_the_cache(mlps):
    settings = dict(points=11)
    first = adaptive_barriers(mlps, "source-heldout", DIGITS, **settings)
    pd.testing.assert_frame_equal(first, adaptive_barriers(mlps, "source-heldout", DIGITS, **settings))
    with pytest.raises(SettingsError, match="give the zoo"):
        barriers(sweep(mlps, "source-heldout", DIGITS, points=3), adaptive=True)
    with pytest.raises(SettingsError, match="which and on what"):
        barriers(mlps, adaptive=True)


@given(st.lists(st.floats(0, 5), min_size=2, max_size=30), st.lists(st.floats(0, 1), min_size=30, max_size=30))
def test_a_barrier_is_the_largest_rise_above_the_chord(losses, accuracies):
    n, t = len(losses), np.linspace(0, 1, len(losses))
    frame = pd.DataFrame(dict(first="a", second="b", pair="x", aligned=True, split="train", t=t, loss=losses, accuracy=accuracies[:n]))
    found = barriers(frame.sample(frac=1, random_state=0)).iloc[0]
    wanted = max(losses[i] - ((1 - t[i]) * losses[0] + t[i] * losses[-1]) for i in range(n))
    drop = max((1 - t[i]) * accuracies[0] + t[i] * accuracies[n - 1] - accuracies[i] for i in range(n))
    np.testing.assert_allclose([found.loss_barrier, found.accuracy_barrier, found.highest_loss], [wanted, drop, max(losses)], atol=1e-12)


def test_lines_that_differ_only_in_matching_are_kept_apart(mlps):
    pairs = [("source-000", "heldout-000")]
    both = pd.concat([sweep(mlps, pairs, DIGITS, points=3), sweep(mlps, pairs, DIGITS, points=3, align="activations")])
    assert len(barriers(both)) == 4
    with pytest.raises(DataError, match="lacks an end"):
        barriers(both[both.t < 1])


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_the_interval_of_a_difference_holds_it(seed):
    rng = np.random.default_rng(seed)
    rows = [dict(second=f"{pair}{i}", pair=pair, aligned=True, split="test", loss_barrier=mean + rng.normal(0, 0.1))
            for pair, mean in (("regular-regular", 1.0), ("star-heldout", 0.2)) for i in range(12)]
    found = differences(pd.DataFrame(rows)).iloc[0]
    assert (found.higher, found.lower) == ("regular-regular", "star-heldout")
    assert found.low < found.difference < found.high and found.low > 0.5
    assert found.high - found.low < 0.4
    pd.testing.assert_frame_equal(differences(pd.DataFrame(rows)), differences(pd.DataFrame(rows)))


def test_summary_counts_pairs(mlps):
    table = summarise(barriers(sweep(mlps, "source-heldout", DIGITS, points=3)))
    assert set(table.n) == {6} and {"loss_barrier_mean", "loss_barrier_std", "highest_loss_mean"} <= set(table.columns)


def test_two_sweeps_at_once_measure_a_pair_once(mlps, monkeypatch):
    measured, measure = [], Lines.measure

    def slowly(self, *args):
        measured.append(args[:2])
        time.sleep(0.3)
        return measure(self, *args)

    monkeypatch.setattr(Lines, "measure", slowly)
    with ThreadPoolExecutor(2) as pool:
        frames = list(pool.map(lambda _: sweep(Zoo(mlps.path), "source-heldout", DIGITS, points=7), range(2)))
    pd.testing.assert_frame_equal(*frames)
    assert len(measured) == len(set(measured)) == 6
    assert not list((mlps.path / ".unfinished").glob("sweep-*"))
