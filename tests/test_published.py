"""Models from elsewhere: checkpoints as the paper's authors publish them, torchvision's and timm's networks."""
import shutil

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from starscape.barriers import barriers, sweep
from starscape.data import StateError, Task, ZooError, require_torchvision
from starscape.networks import Network
from starscape.zoo import Zoo, read_checkpoint


def conv(generator, n_out, n_in, size):
    return torch.randn(n_out, n_in, size, size, generator=generator) * (2 / (n_in * size * size)) ** 0.5


def batchnorm(generator, prefix, n):
    "The five entries of a BatchNorm layer, none of them at its initial value."
    return {
        f"{prefix}.weight": 1 + 0.2 * torch.randn(n, generator=generator), f"{prefix}.bias": 0.2 * torch.randn(n, generator=generator),
        f"{prefix}.running_mean": 0.2 * torch.randn(n, generator=generator), f"{prefix}.running_var": 0.5 + torch.rand(n, generator=generator),
        f"{prefix}.num_batches_tracked": torch.tensor(100),
    }


def published_resnet18(seed):
    "Keys and shapes of the published CIFAR ResNet-18 checkpoints, with random values."
    g = torch.Generator().manual_seed(seed)
    state = {"conv1.weight": conv(g, 64, 3, 3), **batchnorm(g, "bn1", 64)}
    n_in = 64
    for stage, n in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            prefix = f"layer{stage}.{block}"
            state |= {f"{prefix}.conv1.weight": conv(g, n, n_in, 3), **batchnorm(g, f"{prefix}.bn1", n)}
            state |= {f"{prefix}.conv2.weight": conv(g, n, n, 3), **batchnorm(g, f"{prefix}.bn2", n)}
            if n != n_in:
                state |= {f"{prefix}.shortcut.0.weight": conv(g, n, n_in, 1), **batchnorm(g, f"{prefix}.shortcut.1", n)}
            n_in = n
    return state | {"linear.weight": 0.05 * torch.randn(10, 512, generator=g), "linear.bias": torch.randn(10, generator=g)}


def published_densenet(seed):
    "The same for the CIFAR DenseNet: 40 layers, growth 12, no bottlenecks, no compression."
    g, n = torch.Generator().manual_seed(seed), 24
    state = {"conv1.weight": conv(g, 24, 3, 3)}
    for block in (1, 2, 3):
        for layer in range(12):
            prefix = f"block{block}.layer.{layer}"
            state |= {**batchnorm(g, f"{prefix}.bn1", n), f"{prefix}.conv1.weight": conv(g, 12, n, 3)}
            n += 12
        if block < 3:
            state |= {**batchnorm(g, f"trans{block}.bn1", n), f"trans{block}.conv1.weight": conv(g, n, n, 1)}
    state |= batchnorm(g, "bn1", n)
    return state | {"fc.weight": 0.05 * torch.randn(10, n, generator=g), "fc.bias": torch.randn(10, generator=g)}


def normalised(state, prefix, x):
    s = {key: state[f"{prefix}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}
    return F.batch_norm(x, s["running_mean"], s["running_var"], s["weight"], s["bias"])


def run_resnet18(s, x):
    "The network written out as functions of its state."
    x = F.relu(normalised(s, "bn1", F.conv2d(x, s["conv1.weight"], padding=1)))
    for stage in range(1, 5):
        for block in range(2):
            p, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.relu(normalised(s, f"{p}.bn1", F.conv2d(x, s[f"{p}.conv1.weight"], stride=stride, padding=1)))
            y = normalised(s, f"{p}.bn2", F.conv2d(y, s[f"{p}.conv2.weight"], padding=1))
            if f"{p}.shortcut.0.weight" in s:
                x = normalised(s, f"{p}.shortcut.1", F.conv2d(x, s[f"{p}.shortcut.0.weight"], stride=stride))
            x = F.relu(y + x)
    return F.linear(F.avg_pool2d(x, 4).flatten(1), s["linear.weight"], s["linear.bias"])


def run_densenet(s, x):
    x = F.conv2d(x, s["conv1.weight"], padding=1)
    for block in (1, 2, 3):
        for layer in range(12):
            p = f"block{block}.layer.{layer}"
            x = torch.cat([x, F.conv2d(F.relu(normalised(s, f"{p}.bn1", x)), s[f"{p}.conv1.weight"], padding=1)], 1)
        if block < 3:
            p = f"trans{block}"
            x = F.avg_pool2d(F.conv2d(F.relu(normalised(s, f"{p}.bn1", x)), s[f"{p}.conv1.weight"]), 2)
    return F.linear(F.avg_pool2d(F.relu(normalised(s, "bn1", x)), 8).flatten(1), s["fc.weight"], s["fc.bias"])


PUBLISHED = {"resnet18": (published_resnet18, run_resnet18), "densenet40": (published_densenet, run_densenet)}


@pytest.mark.parametrize("network", PUBLISHED)
def test_a_published_checkpoint_computes_the_same_bits(network, tmp_path):
    "`{'state_dict': …}` with `module.` prefixes, found through the text file of paths that the authors' code reads."
    make, run = PUBLISHED[network]
    states = {f"anchor{seed}": make(seed) for seed in range(2)}
    (tmp_path / "anchors").mkdir()
    for name, state in states.items():
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "anchors" / f"{name}.pt")
    listed = tmp_path / "anchors.txt"
    listed.write_text("".join(f"{tmp_path}/anchors/{name}.pt\n" for name in states))

    zoo = Zoo(tmp_path / "zoo")
    assert zoo.import_checkpoints(listed, network=Network(network, num_classes=10), role="source") == list(states) == zoo.sources
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(9))
    for name, state in states.items():
        assert all(torch.equal(zoo.state(name)[k], v) for k, v in state.items())
        with torch.no_grad():
            assert torch.equal(zoo.network(name)(x), run(state, x))


def test_a_published_checkpoint_of_another_network_is_refused(tmp_path):
    torch.save({"state_dict": published_resnet18(0)}, tmp_path / "a.pt")
    zoo = Zoo(tmp_path / "zoo")
    with pytest.raises(StateError, match=r"a\.pt"):
        zoo.import_checkpoints(tmp_path / "a.pt", network="resnet20", role="source")
    assert len(zoo) == 0


def small_task(size, n=24, num_classes=5):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, 3, size, size, generator=g), torch.arange(n) % num_classes
    return Task("noise", x, y, x, y, num_classes=num_classes)


def pretrained(network):
    "Two differently initialised models in the place of two downloaded ones."
    return {name: Network(network, num_classes=5).build(seed) for seed, name in enumerate(("V1", "V2"))}


@pytest.mark.parametrize("network", ["torchvision:mobilenet_v3_small", "timm:resnet10t"])
def test_two_models_of_a_library_in_three_lines(network, tmp_path):
    models, task = pretrained(network), small_task(32)

    zoo = Zoo(tmp_path / "zoo")
    for name, model in models.items(): zoo.add(name, model, role="source", network=Network(network, num_classes=5))
    found = barriers(sweep(zoo, "regular-regular", task, points=3))

    assert len(found) == 2 and found.loss_barrier.notna().all()
    again = Zoo(tmp_path / "zoo")  # as a new session would: the file alone says what the model is
    with torch.no_grad():
        assert torch.equal(again.network("V1")(task.test_x), models["V1"].eval()(task.test_x))


def test_a_file_of_torchvision_weights_comes_in_as_it_is(tmp_path):
    model = require_torchvision().models.squeezenet1_1().eval()
    torch.save(model.state_dict(), tmp_path / "squeezenet1_1-b8a52dc0.pth")
    zoo = Zoo(tmp_path / "zoo")
    (name,) = zoo.import_checkpoints(tmp_path / "squeezenet1_1-b8a52dc0.pth", network="torchvision:squeezenet1_1", role="source")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(zoo.network(name)(x), model(x))


@pytest.mark.parametrize("layout", [
    lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {}}, "epoch": 3, "loss": 0.1},  # PyTorch's tutorial
    lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}, "pytorch-lightning_version": "2.4"},
    lambda s: {"state_dict": {f"backbone.{k}": v for k, v in s.items()}},
    lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},  # torch.compile
    lambda s: {"state_dict": {f"model._orig_mod.{k}": v for k, v in s.items()}},
    lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
    lambda s: {"model": {"state_dict": s}, "epoch": 3},
    lambda s: {"net": {f"module.{k}": v for k, v in s.items()}},
], ids=lambda layout: "")  # fmt: skip
def test_checkpoints_as_other_programs_write_them(layout, tmp_path):
    network = Network("mlp", width=8, depth=1, input_shape=[1, 8, 8])
    state = network.build(0).state_dict()
    torch.save(layout(state), tmp_path / "a.pt")
    zoo = Zoo(tmp_path / "zoo")
    assert zoo.import_checkpoints(tmp_path / "a.pt", network=network, role="source") == ["a"]
    assert all(zoo.state("a")[k].equal(v) for k, v in state.items())
    if "backbone" not in str(layout(state)):  # a name that says nothing is known by the network's own
        assert read_checkpoint(tmp_path / "a.pt").keys() == state.keys()


class Wrapped(torch.nn.Module):
    "Names its own parts as programs name their wrappers."

    def __init__(self):
        super().__init__()
        self.model, self.module = torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.module(self.model(x))


def test_a_part_that_is_called_like_a_prefix_keeps_its_name(tmp_path):
    state = Wrapped().state_dict()
    zoo = Zoo(tmp_path / "zoo")
    for name, prefix in (("plain", ""), ("parallel", "module."), ("lightning", "model."), ("compiled", "_orig_mod.")):
        torch.save({prefix + k: v for k, v in state.items()}, tmp_path / f"{name}.pt")
        zoo.import_checkpoints(tmp_path / f"{name}.pt", network=Wrapped, role="source")
        assert all(zoo.state(name)[k].equal(v) for k, v in state.items())
    torch.save({"model.a": torch.ones(1), "loss.b": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(StateError, match=r"other\.pt does not fit Wrapped: missing keys.*unexpected keys: 'model.a', 'loss.b'"):
        zoo.import_checkpoints(tmp_path / "other.pt", network=Wrapped, role="source")


def test_a_file_of_another_program_in_the_folder(tmp_path):
    "It is left out with a warning, once; the models that are there go on as if it were not."
    task = small_task(8)
    network = Network.of(Network("mlp", width=4, depth=1), task)
    zoo = Zoo(tmp_path)
    for i in range(2):
        zoo.add(f"source-00{i}", network.build(i), role="source", network=network)
    expected = sweep(zoo, "regular-regular", task, points=3)
    save_file({"weight": torch.ones(3)}, tmp_path / "theirs.safetensors")
    fresh = Zoo(tmp_path)
    with pytest.warns(UserWarning, match=r"theirs\.safetensors is left out: .*import_checkpoints") as caught:
        assert repr(fresh).endswith("2 source)")
        assert list(fresh.frame().name) == fresh.names == fresh.sources == ["source-000", "source-001"]
    assert len([w for w in caught if "theirs" in str(w.message)]) == 1
    assert "theirs" not in fresh and sweep(zoo, "regular-regular", task, points=3, cached=False).equals(expected)
    with pytest.raises(ZooError, match="without starscape's metadata"):
        fresh.metadata("theirs")
    # replaced by a model, it takes part
    shutil.copy(tmp_path / "source-000.safetensors", tmp_path / "theirs.safetensors")
    assert fresh.names == ["source-000", "source-001", "theirs"] and "theirs" in fresh
