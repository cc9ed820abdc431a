"What has to hold for every built-in network and for the path from data to barriers."
import contextlib
import copy
import io
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from starscape.barriers import barriers, sweep
from starscape.cli import main
from starscape.data import DataError, SettingsError, StateError, SymmetryError, Task, TrainingError, UnknownName, ZooError, load_task
from starscape.interpolation import symmetry_for
from starscape.matching import match_weights
from starscape.networks import Network, network_builders
from starscape.star_training import train_star
from starscape.symmetry import PermutationSymmetry
from starscape.training import Recipe, train_population
from starscape.zoo import Zoo

SMALL = {  # the built-in networks, small enough to trace and run in a moment
    "mlp": {"width": 16},
    "mlp, batchnorm": {"width": 16, "batchnorm": True},
    "resnet": {"width": 4},
    "resnet18": {"width": 8},
    "resnet20": {"width": 4},
    "vgg11": {"width": 8},
    "vgg11, plain": {"width": 8, "batchnorm": False},
    "vgg19": {"width": 8},
    "vgg19, plain": {"width": 8, "batchnorm": False},
    "wide_resnet": {"depth": 10, "widen_factor": 1},
    "densenet": {"blocks": [2, 2], "growth": 4},
    "densenet40": {"growth": 2},
    "densenet121": {"growth": 4},
}


@pytest.fixture(scope="module")
def digits():
    return load_task("digits")


@pytest.fixture(scope="module")
def population(digits, tmp_path_factory):
    zoo = train_population(digits, Network("mlp", width=16, depth=2), Recipe(epochs=8), tmp_path_factory.mktemp("zoo"), n_sources=3, n_heldout=2)
    train_star(digits, zoo, Recipe(epochs=10))
    return zoo


def randomised(module, generator):
    "The same network in float64, nothing in it zero or special."
    module = copy.deepcopy(module).double()
    for m in module.modules():
        if isinstance(m, torch.nn.Dropout):
            m.p = 0.0  # a random mask is not permuted with the neurons
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            fan = max(1, value[0].numel()) if value.ndim > 1 else 1
            value.copy_(torch.rand(value.shape, generator=generator, dtype=value.dtype) + 0.5 if value.ndim == 1 and "bias" not in name and "mean" not in name else torch.randn(value.shape, generator=generator, dtype=value.dtype) / fan**0.5)
    return module


def test_the_small_networks_are_all_there_are():
    of_texts = {"text_classifier"}  # tests/test_paper.py
    assert {name.split(",")[0] for name in SMALL} == {n for n in network_builders if not n.startswith("custom:")} - of_texts


@pytest.mark.parametrize("name", SMALL)
def test_any_permutation_keeps_the_function(name):
    network = Network(name.split(",")[0], **SMALL[name], input_shape=[1, 8, 8], num_classes=10)
    module = network.build(seed=0)
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    symmetry = PermutationSymmetry.of(module.eval(), x.float())
    total = sum(p.numel() for p in module.parameters())
    assert round((1 - symmetry.coverage()) * total) == 10, "only the biases of the ten classes stay where they are"
    g = torch.Generator().manual_seed(2)
    for _ in range(3):
        original = randomised(module, g)
        permuted = copy.deepcopy(original)
        permutation = symmetry.random(g)
        permuted.load_state_dict(symmetry.apply(permutation, original.state_dict()))
        for training in (False, True):
            a, b = original.train(training)(x), permuted.train(training)(x)
            assert (a - b).abs().max() <= 1e-10 * a.abs().max()
        # train mode has updated the running statistics of both; they must correspond too
        for k, v in symmetry.apply(permutation, original.state_dict()).items():
            torch.testing.assert_close(permuted.state_dict()[k], v, rtol=1e-9, atol=1e-12)
        back = symmetry.apply(symmetry.inverse(permutation), permuted.state_dict())
        assert all(torch.allclose(back[k].double(), v.double()) for k, v in original.state_dict().items())


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_permutations_form_a_group(seed):
    network = Network("resnet", width=4, input_shape=[1, 8, 8])
    module = network.build(seed=0)
    symmetry = PermutationSymmetry.of(module.eval(), torch.zeros(2, 1, 8, 8))
    g = torch.Generator().manual_seed(seed)
    p, q, r = (symmetry.random(g) for _ in range(3))
    same = lambda a, b: all(a[k].equal(b[k]) for k in symmetry.groups)
    identity = symmetry.identity()
    assert same(symmetry.compose(p, identity), p) and same(symmetry.compose(identity, p), p)
    assert same(symmetry.compose(p, symmetry.inverse(p)), identity) and same(symmetry.compose(symmetry.inverse(p), p), identity)
    assert same(symmetry.compose(symmetry.compose(p, q), r), symmetry.compose(p, symmetry.compose(q, r)))
    state = module.state_dict()
    one, two = symmetry.apply(symmetry.compose(p, q), state), symmetry.apply(p, symmetry.apply(q, state))
    assert all(one[k].equal(two[k]) for k in state)


@pytest.mark.parametrize(("network", "epochs"), [(Network("mlp", width=32, depth=3), 5), (Network("resnet", width=8), 2), (Network("vgg11", width=8, dropout=0.0), 1)])
def test_a_permuted_copy_is_matched_exactly(digits, tmp_path, network, epochs):
    zoo = train_population(digits, network, Recipe(epochs=epochs), tmp_path, n_sources=1, n_heldout=0)
    state, network = zoo.state("source-000"), zoo.network_of("source-000")
    symmetry = symmetry_for(network, digits)
    for seed in range(3):
        permutation = symmetry.random(torch.Generator().manual_seed(seed))
        permuted = symmetry.apply(permutation, state)
        found = match_weights(symmetry, permuted, state, seed=seed)
        again = symmetry.apply(found, state)
        assert all(again[k].equal(permuted[k]) for k in state)
        assert all(found[g].equal(permutation[g]) for g in symmetry.groups)


@settings(max_examples=10)
@given(points=st.integers(2, 12), seed=st.integers(0, 1000), extra=st.lists(st.floats(0.01, 0.99), max_size=3, unique=True))
def test_a_line_agrees_with_the_plain_loop(digits, population, points, seed, extra):
    ts = np.unique(np.concatenate([np.linspace(0, 1, points), extra]))
    names = population.sources + population.heldouts
    first, second = names[seed % 5], names[(seed // 5) % 5]
    frame = sweep(population, [(first, second)], digits, points=ts.tolist(), align=False, cached=False)
    a, b, model = population.state(first), population.state(second), population.network(first)
    for split in ("train", "test"):
        x, y = digits.split(split)
        losses = []
        for t in ts:
            model.load_state_dict({k: (1 - t) * a[k] + t * b[k] for k in a})
            with torch.no_grad():
                losses.append(torch.nn.functional.cross_entropy(model(x), y).item())
        line = frame[frame.split == split]
        np.testing.assert_allclose(line.loss, losses, rtol=1e-5)
        expected = max(loss - ((1 - t) * losses[0] + t * losses[-1]) for loss, t in zip(losses, ts))
        found = barriers(frame).set_index("split").loss_barrier[split]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
        if first == second:
            assert abs(found) < 1e-6


def test_same_seed_same_bits(digits, tmp_path):
    "In two processes: models, star and table."
    script = "import sys; from starscape.cli import Demo, run_demo; run_demo(sys.argv[1], Demo(width=8, depth=1, n_sources=2, n_heldout=1, epochs=2, star_epochs=3, points=3))"
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", script, str(tmp_path / name)], check=True, capture_output=True)
    a, b = Zoo(tmp_path / "a" / "zoo"), Zoo(tmp_path / "b" / "zoo")
    assert a.names == b.names == ["heldout-000", "source-000", "source-001", "star-000"]
    assert [a.digest(n) for n in a.names] == [b.digest(n) for n in b.names]
    assert (tmp_path / "a" / "barriers.csv").read_bytes() == (tmp_path / "b" / "barriers.csv").read_bytes()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    "What the README's command leaves behind, and what it prints."
    out, printed = tmp_path_factory.mktemp("demo"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["demo", "--out", str(out)]) == 0
    return out, printed.getvalue()


def test_demo(demo):
    "The star's barriers to solutions it never saw are a fraction of those between ordinary ones."
    out, printed = demo
    for words in ("regular–regular, unmatched", "regular–regular, matched", "star–source", "star–held-out", "star model", "regular model"):
        assert words in printed
    frame = pd.read_csv(out / "barriers.csv")
    assert list(frame.columns[:7]) == ["first", "second", "pair", "aligned", "split", "loss_barrier", "accuracy_barrier"]
    mean = frame[frame.split == "train"].groupby(["pair", "aligned"]).loss_barrier.mean()
    assert mean["regular-regular", True] >= 3 * mean["star-heldout", True]
    assert mean["regular-regular", False] >= 2 * mean["regular-regular", True]
    models = Zoo(out / "zoo").frame().groupby("role").test_accuracy.mean()
    assert models["star"] > models["heldout"] - 0.02, "low barriers to a bad star would mean nothing"


def test_demo_uses_what_is_there(demo, capsys):
    out, printed = demo
    before = {p.name: p.stat().st_mtime_ns for p in (out / "zoo").glob("*.safetensors")}
    assert main(["demo", "--out", str(out)]) == 0
    assert {p.name: p.stat().st_mtime_ns for p in (out / "zoo").glob("*.safetensors")} == before
    assert capsys.readouterr().out.split("zoo")[0] == printed.split("zoo")[0]


def test_demo_report_opens_offline(demo, page):
    page.context.set_offline(True)
    page.goto(f"file://{demo[0] / 'report.html'}")
    page.wait_for_selector(".js-plotly-plot .scatterlayer .trace")
    text = page.inner_text("body")
    for words in ("star–held-out", "regular–regular, unmatched", "star model", "star_epochs", "Task('digits'"):
        assert words in text


class TestBadInput:
    "A clear error from the package's own family, and nothing lost."

    def test_names(self, digits, population):
        for call, listed in [
            (lambda: load_task("digit"), "digits"),
            (lambda: Network("resnet81").build(), "resnet18"),
            (lambda: population.state("source-999"), "source-000"),
            (lambda: sweep(population, "star-heldin", digits), "star-heldout"),
            (lambda: Recipe(schedule="cosinus"), "cosine"),
            (lambda: train_star(digits, population, t="gauss"), "uniform"),
        ]:
            with pytest.raises(UnknownName, match=f"There are: .*{listed}"):
                call()

    def test_a_state_that_does_not_fit(self, population, tmp_path):
        state, network = population.state("source-000"), population.network_of("source-000")
        zoo = Zoo(tmp_path)
        broken = {
            "wanted": state | {"linear1.weight": torch.zeros(3, 3)},
            "missing keys: 'linear.bias'": {k: v for k, v in state.items() if k != "linear.bias"},
            "unexpected keys: 'linear9.bias'": state | {"linear9.bias": torch.zeros(3)},
            "'linear2.bias' holds 1 values": state | {"linear2.bias": torch.cat([state["linear2.bias"][1:], torch.tensor([torch.inf])])},
        }
        for words, bad in broken.items():
            with pytest.raises(StateError) as e:
                zoo.add("bad", bad, role="source", network=network)
            assert words in str(e.value)
        with pytest.raises(StateError, match=r"'linear1.weight' has shape \(3, 3\), wanted \(16, 64\)"):
            zoo.add("bad", broken["wanted"], role="source", network=network)
        assert zoo.names == []

    def test_different_networks_in_one_sweep(self, digits, population, tmp_path):
        other = Network("mlp", width=8, depth=2, input_shape=[1, 8, 8])
        zoo = Zoo(tmp_path)
        zoo.add("a", population.state("source-000"), role="source", network=population.network_of("source-000"))
        zoo.add("b", other.build(seed=0), role="source", network=other)
        for call in (lambda: sweep(zoo, [("a", "b")], digits), lambda: train_star(digits, zoo)):
            with pytest.raises(SettingsError, match="different networks cannot be combined: 'a' is .*'b' is"):
                call()

    def test_no_sources(self, digits, tmp_path):
        with pytest.raises(ZooError, match="holds no source models"):
            train_star(digits, tmp_path)

    def test_a_loss_that_is_not_finite(self, digits, population):
        with pytest.raises(TrainingError, match=r"epoch \d+, step \d+ \(t 0\.\d+ source source-00\d\).*kept in") as e:
            train_star(digits, population, Recipe(epochs=3, lr=1e20), name="hopeless")
        kept = population.path / ".unfinished" / "hopeless.safetensors"
        assert str(kept) in str(e.value) and kept.exists() and "hopeless" not in population
        from safetensors.torch import load_file

        assert all(v.isfinite().all() for k, v in load_file(kept).items() if k.startswith("tensor.") and v.is_floating_point())
        kept.unlink()

    def test_half_written_and_foreign_files(self, population, tmp_path):
        zoo = Zoo(tmp_path)
        whole = (population.path / "source-000.safetensors").read_bytes()
        (tmp_path / "good.safetensors").write_bytes(whole)
        for n in (0, 5, 100, len(whole) // 2, len(whole) - 1):
            (tmp_path / "half.safetensors").write_bytes(whole[:n])
            for call in (lambda: zoo.state("half"), lambda: zoo.metadata("half"), lambda: zoo.frame()):
                with pytest.raises(ZooError, match="half.safetensors"):
                    call()
            assert (tmp_path / "half.safetensors").read_bytes() == whole[:n], "a damaged file is left for its owner to look at"
        (tmp_path / "half.safetensors").unlink()
        assert zoo.digest("good") == population.digest("source-000")

    def test_a_failed_write_leaves_what_was_there(self, population, tmp_path, monkeypatch):
        import os

        zoo = Zoo(tmp_path)
        zoo.add("a", population.state("source-000"), role="source", network=population.network_of("source-000"))
        before = (tmp_path / "a.safetensors").read_bytes()
        for function in ("fsync", "replace"):
            with monkeypatch.context() as m:
                m.setattr(os, function, lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
                with pytest.raises(ZooError, match="No space left on device. Nothing was changed"):
                    zoo.add("a", population.state("source-001"), role="source", network=population.network_of("source-000"), overwrite=True)
            assert (tmp_path / "a.safetensors").read_bytes() == before
            assert sorted(p.name for p in tmp_path.glob("*") if "cache" not in p.name) == ["a.safetensors"]

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ZooError, match="Give a folder that you may write to"):
            Zoo(tmp_path / "file" / "zoo")

    def test_a_task_that_does_not_fit(self, population):
        x = torch.randn(20, 3, 5, 5)
        task = Task("other", x, torch.arange(20) % 2, x, torch.arange(20) % 2)
        with pytest.raises(DataError, match="Use the task it was trained on"):
            sweep(population, "star-source", task)

    def test_permutations_that_do_not_fit(self, digits, population):
        symmetry = symmetry_for(population.network_of("source-000"), digits)
        with pytest.raises(SymmetryError):
            symmetry.apply({}, population.state("source-000"))

    def test_settings_come_back_from_files_as_they_were(self, population):
        metadata = population.metadata("star-000")
        assert Recipe.from_json(metadata["recipe"]) == Recipe(epochs=10)
        assert metadata["sources"] == population.sources and json.loads(json.dumps(metadata)) == metadata
