"Training of networks as people write them: what a stack cannot run, what draws random numbers, what changed since the last call."
import copy
import pickle
import warnings
from dataclasses import replace
from functools import partial

import joblib
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from starscape.data import Augment, DataError, SettingsError, Task, UnknownName, ZooError, load_task
from starscape.interpolation import symmetry_for
from starscape.matching import match_cycle_consistent, match_differentiable, match_weights
from starscape.networks import Network, network_builders, register_network
from starscape.star_training import _Starlight, train_star
from starscape.training import Checkpoint, Recipe, memory_format_for, stack_size, train, train_population
from starscape.zoo import Zoo

DIGITS = load_task("digits").subset(192, 64)
RECIPE = Recipe(epochs=2, batch_size=64)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def builders():
    before = dict(network_builders)
    yield
    network_builders.clear()
    network_builders.update(before)


class Recurrent(nn.Module):
    kind = nn.LSTM

    def __init__(self):
        super().__init__()
        self.cells, self.head = self.kind(8, 6, batch_first=True), nn.Linear(6, 10)

    def forward(self, x):
        return self.head(self.cells(x.squeeze(1))[0][:, -1])


class Gated(Recurrent):
    kind = nn.GRU


class Tied(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 10))
        self[5].weight = self[3].weight


class Averaging(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8, momentum=None), nn.ReLU(), nn.Linear(8, 10))


class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))


class StochasticDepth(Plain):
    def forward(self, x):
        x = self[1](self[0](x))
        return self[3](x if self.training and torch.rand(()).item() < 0.3 else self[2](x))


class LooksAtValues(Plain):
    def forward(self, x):
        y = super().forward(x)
        return y if y.mean() > 0 else 1.5 * y


class Dropout(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 10))


class FunctionalDropout(Plain):
    def forward(self, x):
        return self[3](F.dropout(self[2](self[1](self[0](x))), 0.5, self.training))


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 10)

    def forward(self, x):
        x = F.relu(self.conv(x))
        return self.linear(x.view(x.size(0), -1))


@pytest.mark.parametrize("network", [Recurrent, Gated, Tied, Averaging, StochasticDepth, LooksAtValues])
def test_what_a_stack_cannot_run_is_trained_alone(tmp_path, network):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zoo = train_population(DIGITS, network, RECIPE, tmp_path / "zoo", n_sources=2, n_heldout=0)
    alone = train_population(DIGITS, network, RECIPE, tmp_path / "alone", n_sources=2, n_heldout=0, stacked=1)
    assert [zoo.digest(n) for n in zoo.names] == [alone.digest(n) for n in zoo.names] and len(zoo) == 2
    if network is Tied:
        assert all(zoo.state(n)["3.weight"].equal(zoo.state(n)["5.weight"]) for n in zoo.names)
    if network is not StochasticDepth:  # under torch.rand alone it is the looking at values that fails
        with pytest.raises(SettingsError, match="cannot be trained as a stack: .*stacked=1"):
            train_population(DIGITS, network, RECIPE, tmp_path / "stacked", n_sources=2, n_heldout=0, stacked=2)


def test_what_a_stack_runs_stays_a_stack():
    for network, n in (("mlp", 32), (Network("mlp", width=8, batchnorm=True), 16), (Network("resnet", width=4), 16)):
        network = Network.of(network, DIGITS)
        assert stack_size(network, CPU, DIGITS) == stack_size(network, CPU) == n


def test_a_view_after_a_convolution(tmp_path):
    "`x.view` wants channels first; the same network with a reshape is faster with channels last."
    assert memory_format_for(LeNet(), DIGITS.train_x[:2]) == torch.contiguous_format
    assert memory_format_for(Network.of("resnet", DIGITS).build(), DIGITS.train_x[:2]) == torch.channels_last
    assert memory_format_for(Plain(), DIGITS.train_x[:2]) == torch.contiguous_format
    zoo = train_population(DIGITS, LeNet, RECIPE, tmp_path, n_sources=2, n_heldout=0, stacked=1)
    assert train_star(DIGITS, zoo, RECIPE) in zoo


class Interrupting(Recipe):
    def lr_at(self, step, steps_per_epoch):
        if step == steps_per_epoch + 1:
            raise KeyboardInterrupt
        return super().lr_at(step, steps_per_epoch)


@pytest.mark.parametrize("network", [Dropout, FunctionalDropout, StochasticDepth])
@pytest.mark.parametrize("stacked", [None, 2])
def test_dropout_draws_from_the_seed_alone(tmp_path, network, stacked):
    if stacked and network is StochasticDepth:
        pytest.skip("no stack runs it")
    populate = lambda folder, recipe=RECIPE: train_population(DIGITS, network, recipe, tmp_path / folder, n_sources=2, n_heldout=0, stacked=stacked)
    digests = []
    for global_seed, folder in ((1, "a"), (2, "b")):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        digests.append([populate(folder).digest(f"source-00{i}") for i in (0, 1)])
        assert torch.get_rng_state().equal(before), "training leaves the global random state as it was"
    with pytest.raises(KeyboardInterrupt):
        populate("c", Interrupting(epochs=2, batch_size=64))
    torch.manual_seed(3)
    digests.append([populate("c").digest(f"source-00{i}") for i in (0, 1)])
    assert digests[0] == digests[1] == digests[2] and digests[0][0] != digests[0][1]


def test_dropout_in_threads_and_alone(tmp_path):
    "Threads share PyTorch's random state; a larger population does not change the models of a smaller one."
    one = train_population(DIGITS, Dropout, RECIPE, tmp_path / "one", n_sources=4, n_heldout=0)
    with joblib.parallel_config(backend="threading", n_jobs=2):
        two = train_population(DIGITS, Dropout, RECIPE, tmp_path / "two", n_sources=4, n_heldout=0)
    fewer = train_population(DIGITS, Dropout, RECIPE, tmp_path / "fewer", n_sources=2, n_heldout=0)
    train_population(DIGITS, Dropout, RECIPE, fewer, n_sources=4, n_heldout=0)
    digests = [[zoo.digest(n) for n in one.names] for zoo in (one, two, fewer)]
    assert digests[0] == digests[1] == digests[2]


def test_dropout_really_drops(tmp_path):
    "The masks differ from epoch to epoch and step to step, and from none at all."
    torch.manual_seed(0)
    drawn = []

    class Watched(Dropout):
        def forward(self, x):
            hidden = self[3](self[2](self[1](self[0](x))))
            if self.training and len(x) == 64:
                drawn.append((hidden == 0).clone())
            return self[4](hidden)

    train(DIGITS, Watched, replace(RECIPE, lr=1e-12))
    assert len(drawn) == 6 and not any(a.equal(b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_a_star_of_a_network_with_dropout(tmp_path):
    zoo = train_population(DIGITS, Dropout, RECIPE, tmp_path, n_sources=2, n_heldout=0)
    with pytest.raises(KeyboardInterrupt):
        train_star(DIGITS, zoo, Interrupting(epochs=2, batch_size=64), name="a")
    train_star(DIGITS, zoo, RECIPE, name="a")
    torch.manual_seed(5)
    train_star(DIGITS, zoo, RECIPE, name="b")
    assert zoo.digest("a") == zoo.digest("b")


def test_another_augmentation_is_noticed(tmp_path):
    network, augmented = Network("mlp", width=8, depth=1), replace(DIGITS, augment=Augment(1))
    zoo = train_population(augmented, network, RECIPE, tmp_path, n_sources=2, n_heldout=0)
    train_star(augmented, zoo, RECIPE)
    assert augmented.fingerprint == DIGITS.fingerprint, "cached results depend on what is measured on"
    for task in (replace(DIGITS, augment=Augment(3)), replace(DIGITS, augment=Augment(1, flip=False)), DIGITS):
        with pytest.raises(ZooError, match=r"another augmentation of the task: it was Augment\(pad=1, flip=True.*is now"):
            train_population(task, network, RECIPE, zoo, n_sources=3, n_heldout=0)
        with pytest.raises(ZooError, match="another augmentation"):
            train_star(task, zoo, RECIPE)
    assert len(zoo) == 3
    # what a recipe does not use makes no difference
    plain = replace(RECIPE, augment=False)
    train_population(augmented, network, plain, tmp_path / "plain", n_sources=1, n_heldout=0)
    train_population(DIGITS, network, plain, tmp_path / "plain", n_sources=2, n_heldout=0)


def test_a_file_from_before_augmentation_was_written_down(tmp_path):
    task, network = replace(DIGITS, augment=Augment(1)), Network("mlp", width=8, depth=1)
    zoo = train_population(task, network, RECIPE, tmp_path, n_sources=1, n_heldout=0)
    told = {k: v for k, v in zoo.metadata("source-000").items() if k not in ("augment", "created", "versions", "network")}
    zoo.add("source-000", zoo.state("source-000"), network=zoo.network_of("source-000"), overwrite=True, **told)
    before = zoo.digest("source-000")
    assert "augment" not in zoo.metadata("source-000")
    train_population(task, network, RECIPE, zoo, n_sources=2, n_heldout=0)
    assert zoo.digest("source-000") == before and len(zoo) == 2


def test_the_setting_that_differs_is_named(tmp_path):
    network = Network("mlp", width=8, depth=1)
    zoo = train_population(DIGITS, network, replace(RECIPE, label_smoothing=0.1), tmp_path, n_sources=1, n_heldout=0)
    with pytest.raises(ZooError, match=r"made with another recipe: label_smoothing was 0.1, is now 0.0, clip_norm was None, is now 2.0\. Use"):
        train_population(DIGITS, network, replace(RECIPE, clip_norm=2.0), zoo, n_sources=1)
    with pytest.raises(ZooError, match="made with another network: width was 8, is now 9, depth was 1, is now 2"):
        train_population(DIGITS, Network("mlp", width=9, depth=2), replace(RECIPE, label_smoothing=0.1), zoo, n_sources=1)
    with pytest.raises(ZooError, match="another task, of that name but of other data"):
        train_population(DIGITS.subset(100), network, replace(RECIPE, label_smoothing=0.1), zoo, n_sources=1)
    assert zoo.names == ["source-000"] and isinstance(zoo, Zoo)


class Lazy(nn.Sequential):
    def __init__(self, shown=False):
        super().__init__(nn.Flatten(), nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.Linear(8, 10))
        if shown:
            self(torch.zeros(2, 1, 8, 8))


def test_layers_that_do_not_know_their_size_yet(tmp_path):
    for call in (lambda: train(DIGITS, Lazy), lambda: train_population(DIGITS, Lazy, RECIPE, tmp_path), lambda: Network.of(Lazy).build()):
        with pytest.raises(SettingsError, match=r"wait for a first input to know their size \('1.weight'\). Let what builds it show it one"):
            call()
    train_population(DIGITS, partial(Lazy, shown=True), RECIPE, tmp_path, n_sources=1, n_heldout=0)


def like_digits(x):
    return Task("made", x, DIGITS.train_y, x[:64], DIGITS.train_y[:64])


@pytest.mark.parametrize(("change", "advice"), [
    (lambda x: x.double(), r"weights of the network are torch.float32: convert the inputs, x.float\(\)"),
    (lambda x: x.bfloat16(), r"weights of the network are torch.float32: convert the inputs, x.float\(\)"),
    (lambda x: (x * 16).clamp(0, 255).byte(), r"These are bytes.*x.float\(\) / 255"),
    (lambda x: x.permute(0, 2, 3, 1), r"channels seem to come last.*x.permute\(0, 3, 1, 2\)"),
    (lambda x: x.repeat(1, 2, 1, 1), "Give inputs of the shape and type that it takes"),
], ids=["float64", "bfloat16", "bytes", "channels last", "two channels"])  # fmt: skip
def test_advice_about_inputs_when_nothing_is_trained_yet(tmp_path, change, advice):
    network, task = Network("resnet", width=4, input_shape=[1, 8, 8]), like_digits(change(DIGITS.train_x))
    for call in (lambda: train(task, network), lambda: train_population(task, network, RECIPE, tmp_path)):
        with pytest.raises(DataError, match=advice) as e:
            call()
        assert "trained on" not in str(e.value)


def test_a_network_of_half_the_precision(tmp_path):
    task = like_digits(DIGITS.train_x.bfloat16())
    assert task.fingerprint == like_digits(DIGITS.train_x.bfloat16()).fingerprint != like_digits((DIGITS.train_x + 1).bfloat16()).fingerprint
    register_network("half", lambda: Plain().bfloat16())
    zoo = train_population(task, "half", RECIPE, tmp_path, n_sources=1, n_heldout=0)
    assert zoo.state("source-000")["1.weight"].dtype == torch.bfloat16


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return train_population(DIGITS, Network("mlp", width=8, depth=1), RECIPE, tmp_path_factory.mktemp("pair"), n_sources=2, n_heldout=0)


@pytest.mark.parametrize(("options", "words"), [
    (dict(realign_every=1.5), "realign_every must be a whole number, found 1.5"),
    (dict(align_ahead=2.5), "align_ahead, .* must be a whole number, found 2.5"),
    (dict(pairs=1.5), "pairs, .* must be a whole number, found 1.5"),
    (dict(pairs=2.5), "pairs, .* must be a whole number, found 2.5"),
    (dict(pairs=True), "pairs, .* must be a whole number, found True"),
    (dict(mu="1"), "mu must be a number, found '1'"),
    (dict(memory=-5), "memory, in bytes, must be at least 0, found -5"),
    (dict(memory=1e9), "memory, in bytes, must be a whole number"),
    (dict(sources=["source-000", "source-000"]), "sources names 'source-000' 2 times"),
    (dict(sources="source-000"), r"sources is a list of names: sources=\['source-000'\]"),
    (dict(sources=[]), "sources is an empty list.*leave it out"),
    (dict(init="averge"), "Did you mean 'average'"),
    (dict(init="source-01"), "Did you mean 'source-001'"),
    (dict(recipe=5), "recipe is a Recipe, found int 5"),
], ids=str)  # fmt: skip
def test_options_of_a_star_that_are_not_of_their_type(pair, options, words):
    with pytest.raises((SettingsError, UnknownName), match=words):
        train_star(DIGITS, pair, **options)
    assert pair.stars == []


def test_tasks_and_recipes_that_are_something_else(pair, tmp_path):
    network = Network("mlp", width=8, depth=1)
    for call in (lambda: train("digits", network), lambda: train_population("digits", network, RECIPE, tmp_path), lambda: train_star("digits", pair)):
        with pytest.raises(SettingsError, match=r"task is a Task, found str 'digits'.*load_task"):
            call()
    for recipe in (60, 0, "paper", {"epochs": 3}):
        for call in (lambda r: train(DIGITS, network, r), lambda r: train_population(DIGITS, network, r, tmp_path), lambda r: train_star(DIGITS, pair, r)):
            with pytest.raises(SettingsError, match=f"recipe is a Recipe, found {type(recipe).__name__}.*Recipe\\(epochs="):
                call(recipe)
    with pytest.raises(UnknownName, match="no recipe setting 'epoch'. Did you mean 'epochs'"):
        Recipe(epoch=3)
    with pytest.raises(UnknownName, match="Did you mean 'label_smoothing'"):
        replace(RECIPE, label_smooth=0.1)
    assert pickle.loads(pickle.dumps(RECIPE)) == copy.deepcopy(RECIPE) == RECIPE == Recipe(2, 64)


def test_numbers_of_searches_that_are_no_numbers(pair):
    symmetry = symmetry_for(pair.network_of("source-000"), DIGITS)
    a, b = (pair.state(n) for n in pair.sources)
    for n in (2.5, 0, "2", True):
        for call in (lambda n: match_weights(symmetry, a, b, n_restarts=n), lambda n: match_differentiable(symmetry, a, b, n_restarts=n, steps=1),
                     lambda n: match_cycle_consistent(symmetry, [a, b], n_restarts=n), lambda n: match_weights(symmetry, a, b, max_sweeps=n)):  # fmt: skip
            with pytest.raises(SettingsError, match=r"(n_restarts|max_sweeps) is a whole number, at least 1; found"):
                call(n)


def test_a_star_of_tied_weights_is_aligned_as_a_whole(tmp_path):
    "The weights are one under both names also where a star is matched, at a point that the network itself is not at."
    zoo = train_population(DIGITS, Tied, RECIPE, tmp_path, n_sources=3, n_heldout=0)
    star = _Starlight(DIGITS, zoo, RECIPE, zoo.network_of("source-000"), zoo.sources, 0, t="uniform", mu=0.0, realign_every=1, init=None, pairs=2, ema=0.0, align_ahead=0)
    seen, match_one = [], star.matcher.match_one
    star.matcher.match_one = lambda i, state, **k: seen.append(state["3.weight"].equal(state["5.weight"])) or match_one(i, state, **k)
    star.run(Checkpoint(None, {}), "")
    assert len(seen) > 3 and all(seen)
    name = train_star(DIGITS, zoo, RECIPE, pairs=2, init="average", ema=0.5)
    assert zoo.state(name)["3.weight"].equal(zoo.state(name)["5.weight"])
