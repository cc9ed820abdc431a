"One name means one network: whatever is given as a builder, in this session and in another."
import os
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from starscape.barriers import sweep
from starscape.data import SettingsError, StarscapeError, ZooError, load_task
from starscape.networks import Network, network_builders, register_network
from starscape.training import Recipe, train_population
from starscape.zoo import Zoo

DIGITS = load_task("digits").subset(128, 64)
ONE_EPOCH = Recipe(epochs=1)


class Net(nn.Sequential):
    def __init__(self, ch=4, act=nn.ReLU, num_classes=10):
        super().__init__(nn.Flatten(), nn.Linear(64, ch), act(), nn.Linear(ch, num_classes))

    @classmethod
    def wide(cls):
        return cls(32)


@pytest.fixture(autouse=True)
def builders():
    "What a test registers is gone after it."
    before = dict(network_builders)
    yield
    network_builders.clear()
    network_builders.update(before)


def two_layers(act):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), act, nn.Linear(4, 10))


def width(network):
    return network.build()[1].out_features


def test_arguments_of_a_partial_are_settings(tmp_path):
    train_population(DIGITS, partial(Net, ch=8), ONE_EPOCH, tmp_path, n_sources=2, n_heldout=0)
    assert Zoo(tmp_path).network_of("source-001") == Network("custom:Net", ch=8, num_classes=10)
    with pytest.raises(ZooError, match="another network"):
        train_population(DIGITS, partial(Net, ch=16), ONE_EPOCH, tmp_path, n_sources=3, n_heldout=0)
    assert len(Zoo(tmp_path)) == 2
    assert Network.of(partial(Net, 8)) == Network.of(partial(Net, ch=8)) == Network("custom:Net", ch=8)
    assert Network.of(partial(partial(Net, ch=8), ch=9)) == Network("custom:Net", ch=9)


def test_a_default_that_is_written_out_is_no_other_setting(tmp_path):
    short, long = Network("mlp", width=8, input_shape=[1, 8, 8]), Network("mlp", width=8, depth=3, input_shape=(1, 8, 8), batchnorm=False)
    assert short == long and len({short, long}) == 1 and short != Network("mlp", width=8, depth=2, input_shape=[1, 8, 8])
    zoo = train_population(DIGITS, short, ONE_EPOCH, tmp_path, n_sources=1, n_heldout=0)
    before = zoo.digest("source-000")
    train_population(DIGITS, long, ONE_EPOCH, zoo, n_sources=2, n_heldout=0)
    zoo.add("mine", zoo.state("source-001"), "heldout", network=long)
    assert zoo.digest("source-000") == before and len(sweep(zoo, "source-heldout", DIGITS, 3)) == 2 * 2 * 3


def test_arguments_that_are_no_settings_make_another_network():
    relu, tanh = Network.of(partial(Net, act=nn.ReLU)), Network.of(partial(Net, act=nn.Tanh))
    assert relu != tanh and relu == Network.of(partial(Net, act=nn.ReLU))
    assert isinstance(tanh.build()[2], nn.Tanh) and isinstance(relu.build()[2], nn.ReLU)


def test_two_lambdas_are_two_networks(tmp_path):
    first = train_population(DIGITS, lambda: two_layers(nn.Tanh()), ONE_EPOCH, tmp_path / "tanh", n_sources=2, n_heldout=0)
    alone = sweep(first, "regular-regular", DIGITS, points=3, cached=False)
    train_population(DIGITS, lambda: two_layers(nn.ReLU()), ONE_EPOCH, tmp_path / "relu", n_sources=1, n_heldout=0)
    assert isinstance(first.network("source-000")[2], nn.Tanh)
    assert sweep(first, "regular-regular", DIGITS, points=3, cached=False).equals(alone)
    with pytest.raises(ZooError, match="another network"):
        train_population(DIGITS, lambda: two_layers(nn.ReLU()), ONE_EPOCH, first, n_sources=3, n_heldout=0)


def test_what_a_function_refers_to_is_part_of_it():
    def factory(ch):
        def build():
            return Net(ch)

        return build

    settings = SimpleNamespace(ch=3)
    networks = [Network.of(b) for b in (factory(3), factory(5), lambda: Net(settings.ch), lambda ch=6: Net(ch), Net.wide)]
    assert [width(n) for n in networks] == [3, 5, 3, 6, 32]
    assert Network.of(factory(3)) == networks[0] and networks[4].name == "custom:Net.wide"
    settings = SimpleNamespace(ch=7)
    assert width(Network.of(lambda: Net(settings.ch))) == 7 and [width(n) for n in networks[:2]] == [3, 5]


def test_names_are_the_same_in_another_session():
    "Also with other hash seeds, which change the order of sets."
    script = """
from functools import partial
from torch import nn
from starscape.networks import Network
class Net(nn.Sequential):
    def __init__(self, ch=4): super().__init__(nn.Linear(64, ch))
def factory(kinds):
    class Local(nn.Linear):
        def forward(self, x): return super().forward(x) if "a" in kinds else x
    return lambda: Local(3, 3)
for f in (Net, partial(Net, 8), lambda: Net(3), factory({"a", "b", "c"}), partial(Net, ch={"x", "y", "z"})): print(Network.of(f))
print(Network.of_module(Net())); print(Network.of_module(Net(7))); print(Network.of_module(nn.Sequential(nn.Tanh(), nn.Linear(3, 3))))
"""
    run = lambda seed: subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": seed}).stdout
    found = run("1")
    assert found == run("2") and len(set(found.splitlines())) == 7, "the class and the module that it builds are one"


def test_a_cell_may_be_run_again():
    cell = "from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, {}))"
    names = {"__name__": "__main__"}
    for ch in (10, 10, 12):
        exec(cell.format(ch), names)
        assert width(Network.of(names["build"])) == ch


def test_a_changed_builder_does_not_go_on_with_the_old_models(tmp_path):
    cell = "from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, {}), nn.ReLU(), nn.Linear({}, 10))"
    names = {"__name__": "__main__"}
    exec(cell.format(8, 8), names)
    train_population(DIGITS, names["build"], ONE_EPOCH, tmp_path, n_sources=1, n_heldout=0)
    exec(cell.format(9, 9), names)
    with pytest.raises(ZooError, match=r"source-000.*'1.weight' has shape \(8, 64\).*\(9, 64\).*another folder"):
        train_population(DIGITS, names["build"], ONE_EPOCH, tmp_path, n_sources=2, n_heldout=0)
    assert Zoo(tmp_path).names == ["source-000"]


CELLS = {
    "a function": "from torch import nn\ndef Small(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.{}(), nn.Linear(8, 10))",
    "an attribute": """from torch import nn
class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.act, self.one, self.two = "{}", nn.Linear(64, 8), nn.Linear(8, 10)
    def forward(self, x): return self.two(getattr(nn, self.act)()(self.one(x.flatten(1))))""",
    "code": """from torch import nn
class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(64, 8), nn.Linear(8, 10)
    def forward(self, x):
        def act(x): return nn.{}()(x)
        return self.two(act(self.one(x.flatten(1))))""",
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_results_of_code_that_has_changed_are_not_taken_from_the_cache(cell, tmp_path):
    names, found = {"__name__": "__main__"}, {}
    for act in ("ReLU", "Tanh", "ReLU"):
        exec(cell.format(act), names)
        zoo = train_population(DIGITS, names["Small"], ONE_EPOCH, tmp_path, n_sources=2, n_heldout=0)
        frame = sweep(zoo, "source-source", DIGITS, 3)
        assert frame.loss.tolist() == pytest.approx(sweep(zoo, "source-source", DIGITS, 3, cached=False).loss.tolist(), rel=1e-5)
        assert found.setdefault(act, frame).equals(frame)
    assert not found["ReLU"].loss.equals(found["Tanh"].loss)
    assert len(zoo.cache.items("sweep")) == 2


def test_a_name_of_two_modules_is_refused():
    modules = {}
    for name, ch in (("theirs", 10), ("ours", 12)):
        modules[name] = {"__name__": name}
        exec(f"from torch import nn\nclass Model(nn.Sequential):\n    def __init__(self): super().__init__(nn.Flatten(), nn.Linear(64, {ch}))", modules[name])
    first = Network.of(modules["theirs"]["Model"])
    with pytest.raises(SettingsError, match="'custom:Model' is taken: it means theirs.Model, not ours.Model.*register_network"):
        Network.of(modules["ours"]["Model"])
    assert width(first) == 10
    register_network("ours", modules["ours"]["Model"])
    assert width(Network("ours")) == 12


def test_modules_of_one_class_are_not_mixed_up(tmp_path):
    zoo, x = Zoo(tmp_path), DIGITS.test_x
    models = {name: two_layers(act).eval() for name, act in (("tanh", nn.Tanh()), ("relu", nn.ReLU()), ("gelu", nn.GELU()))}
    models |= dict(small=Net(), tanh_net=Net(act=nn.Tanh), tied=two_layers(nn.ReLU()))
    for name, model in models.items():
        zoo.add(name, model)
    for name, model in models.items():
        assert zoo.network(name)(x).equal(model(x)), name
    assert zoo.network_of("small") == Network("custom:Net")
    with pytest.raises(SettingsError, match="different networks"):
        sweep(zoo, [("tanh", "relu")], DIGITS, points=3)


def test_a_call_that_fails_leaves_no_name_behind(tmp_path):
    before = dict(network_builders)
    torch.save(Net().state_dict(), tmp_path / "theirs.pt")
    zoo = Zoo(tmp_path / "zoo")

    def broken():
        raise RuntimeError("no such file")

    for wrong in (Net(), nn.Sequential(), 5, None, broken, partial(Net, channels=3), nn.Linear):
        with pytest.raises(StarscapeError):
            zoo.import_checkpoints(tmp_path / "theirs.pt", network=wrong, role="source")
        with pytest.raises(StarscapeError):
            train_population(DIGITS, wrong, ONE_EPOCH, zoo, n_sources=1, n_heldout=0)
    assert network_builders == before
    for call in (lambda: Network.of(Net()), lambda: register_network("mine", Net()), lambda: zoo.import_checkpoints(tmp_path / "theirs.pt", network=Net(), role="source")):
        with pytest.raises(SettingsError, match="pass a function that builds it"):
            call()
    assert zoo.import_checkpoints(tmp_path / "theirs.pt", network=Net, role="source") == ["theirs"]
