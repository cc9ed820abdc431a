"""The paper's tables and figures: published numbers, every setting once through its real network, recipe and file format,
and a whole run in small."""
import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_data import write_ag_news, write_cifar, write_mnist, write_pictures

from starscape import paper
from starscape.barriers import barriers, sweep
from starscape.data import DataError, SettingsError, UnknownName, load_task, require_torchvision
from starscape.networks import Network
from starscape.paper import RESULTS, SCALES, Place, Scale, Setting, load_result, published, scale_of, table1
from starscape.symmetry import PermutationSymmetry
from starscape.training import Recipe, train
from starscape.zoo import Zoo

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "starscape" / "reference"
PAPER = {s.name: s for s in scale_of("paper").settings}
SUMS = {
    "barriers": "e7fd2fc6b125a1f1179d85d75dbe3efc28f5cbeccdc85d1cdc143ae008b0e15b",
    "barrier_vs_sources": "0ecafcd6a5625c5f2f2699b5e7fc7a0436061e273ecc3c0af3b7b96fe1ea7587",
    "curves": "9b7c9378133c505c6abfc5e1da26bb8c185d3b3635c34cd08230d436862c6c3e",
}


@pytest.mark.parametrize("name", SUMS)
def test_published_numbers_are_those_of_the_authors(name):
    assert hashlib.sha256((REFERENCE / f"{name}.csv").read_bytes()).hexdigest() == SUMS[name]
    assert len(published(name)) == len((REFERENCE / f"{name}.csv").read_text().splitlines()) - 1


def test_rows_of_table_1_hold_the_published_numbers():
    "Every number of barriers.csv, found again cell by cell, with drops of accuracy positive."
    with open(REFERENCE / "barriers.csv") as f:
        rows = list(csv.DictReader(f))
    for row in rows:
        table = paper._theirs((row["model"], row["dataset"], row["setting"])).set_index("split")
        prefix = row["pair"].replace("-", "_")
        for split in ("train", "test"):
            assert table.loc[split, f"n_{prefix}"] == int(row["n_pairs"])
            for m, short, sign in (("loss", "loss", 1), ("accuracy", "acc", -1)):
                for ours, theirs, s in (("", "mean", sign), ("_std", "std", 1)):
                    wanted = row[f"{split}_{short}_barrier_{theirs}"]
                    found = table.loc[split, f"{prefix}_{m}_barrier{ours}"]
                    assert np.isnan(found) if wanted == "" else found == s * float(wanted)


def test_pair_types_look_as_in_the_panels():
    from starscape.viz import series_look

    assert {pair: series_look(pair, True)[1] for pair in paper._COLOURS} == paper._COLOURS


def test_curves_of_figure_3_hold_the_published_numbers():
    with open(REFERENCE / "curves.csv") as f:
        rows = [r for r in csv.DictReader(f) if (r["model"], r["dataset"], r["setting"]) == ("resnet18", "cifar100", "sgd")]
    frame = paper._curves_published(("resnet18", "cifar100", "sgd")).set_index(["split", "pair", "t"])
    assert len(frame) == 2 * len(rows) == 66
    for r in rows:
        for split in ("train", "test"):
            found = frame.loc[(split, r["pair"], float(r["t"]))]
            for column, cell, unit in (("loss", "loss", 1), ("accuracy", "acc_pct", 100)):
                assert [found[f"{column}_{s}"] * unit for s in ("mean", "std")] == pytest.approx([float(r[f"{split}_{cell}_{s}"]) for s in ("mean", "std")], rel=1e-12)


def test_permutations_keep_the_text_classifier():
    module = Network("text_classifier", vocabulary_size=60, embedding_dim=12).build(seed=0)
    x = torch.randint(-1, 60, (20, 15), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    symmetry = PermutationSymmetry.of(module, x)
    assert dict(symmetry.groups) == {"embedding": 12} and symmetry.coverage() == 1 - 4 / sum(p.numel() for p in module.parameters())
    permuted = Network("text_classifier", vocabulary_size=60, embedding_dim=12).build(seed=1)
    permuted.load_state_dict(symmetry.apply(symmetry.random(torch.Generator().manual_seed(1)), module.state_dict()))
    assert not permuted.fc.weight.equal(module.fc.weight)
    torch.testing.assert_close(permuted(x), module(x))


@pytest.fixture
def data(tmp_path, monkeypatch):
    "Every dataset of the paper in its publisher's format, five training examples or so each."
    root = tmp_path / "data"
    require_torchvision()
    write_cifar(root, "cifar10", 1, monkeypatch)
    write_cifar(root, "cifar100", 5, monkeypatch)
    write_mnist(root / "MNIST" / "raw", 5, 3)
    write_pictures(root / "imagenet", n=2)
    write_ag_news(root / "ag_news_csv")
    paper._task.cache_clear()
    yield root
    paper._task.cache_clear()


def short(recipe, n):
    "The same recipe for one epoch of two steps on n examples."
    return replace(recipe, epochs=1, batch_size=n // 2, warmup_epochs=min(recipe.warmup_epochs, 0.5))


@pytest.mark.parametrize("name", PAPER)
def test_two_steps_of_every_setting(name, data):
    "Real network, real recipe, data in the true format."
    setting = PAPER[name]
    task = paper.task_of(setting, Place(data.parent, data, False, "cpu", 0))
    n = len(task.train_y)
    for recipe in {setting.recipe, setting.star, setting.mixed or setting.recipe}:
        before = Network.of(setting.network, task).build(seed=paper_seed()).state_dict()
        module = train(task, setting.network, short(recipe, n), device="cpu")
        state = module.state_dict()
        assert all(v.isfinite().all() for v in state.values()) and state.keys() == before.keys()
        changed = [k for k, _ in module.named_parameters() if not state[k].equal(before[k])]
        assert len(changed) > 0.6 * len(list(module.parameters())), "two steps have moved most of the weights"


def paper_seed():
    from starscape.training import seed_of

    return seed_of(0, "init")


def in_small(setting, n):
    return replace(setting, recipe=short(setting.recipe, n), star=short(setting.star, n), mixed=setting.mixed and short(setting.mixed, n), n_sources=2, n_heldout=2, z=None, measured=(1, 1))


QUICK = ["mlp on mnist, depth_1_width_4", "simple_text_classifier on ag_news", "wrn_22_1 on cifar10"]


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.soak) for n in PAPER])
def test_a_star_and_its_lines_for_every_setting(name, data):
    "Two steps of Starlight and Table 1's row."
    setting = in_small(PAPER[name], len(paper.task_of(PAPER[name], Place(data.parent, data, False, "cpu", 0)).train_y))
    frame = table1(Scale((setting,), (name,), (1,), (1,)), data.parent / "zoos", root=data, device="cpu").frame
    assert frame.whose.tolist() == ["ours"] * 2 + ["published"] * 2 and frame.split.tolist() == ["train", "test"] * 2
    ours = frame[frame.whose == "ours"]
    assert (ours[["n_star_source", "n_star_heldout", "n_regular_regular"]] == 1).all(axis=None)
    assert ours[["star_loss", "regular_loss", "star_heldout_loss_barrier"]].notna().all(axis=None)


def test_the_scales_name_what_there_is():
    for name in SCALES:
        scale = scale_of(name)
        assert set(scale.main) <= {s.name for s in scale.settings}
        assert all(s.n_sources >= (s.z or 0) and s.recipe.epochs > 0 for s in scale.settings)
    with pytest.raises(UnknownName, match="'digits'"):
        table1("digit")
    with pytest.raises(UnknownName, match="There is no setting"):
        table1("digits", settings="resnet18")
    with pytest.raises(SettingsError, match="varies width or depth"):
        paper.figure2(Scale((), (), (), ()))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    "A whole run in small: MLPs of two widths on digits."
    folder = tmp_path_factory.mktemp("paper")
    recipe = Recipe(epochs=6)
    def setting(width, **more):
        settings = dict(n_sources=4, n_heldout=3, n_stars=2, measured=(2, 3), varies=(("by width", width),)) | more
        return Setting(settings.pop("name", f"MLP {width}"), Network("mlp", width=width, depth=1), "digits", recipe, recipe, ("mlp", "mnist", f"depth_1_width_{width}"), settings.pop("zoo", f"mlp-{width}"), **settings)
    mixed = setting(8, name="mixed", zoo="mixed", mixed=replace(recipe, warmup_epochs=1), n_stars=1, measured=(4, 3), varies=())
    scale = Scale((setting(8), setting(16), mixed), ("MLP 8",), (1, 2, 4), (2,), (2, 3))
    return folder, scale, {name: f(scale, folder) for name, f in RESULTS.items()}


def test_table_1_is_what_its_pairs_say(tiny):
    folder, _, results = tiny
    zoo, task = Zoo(folder / "mlp-16"), load_task("digits")
    stars = [n for n in zoo.stars if n.startswith("star-uniform-004-")]
    assert len(stars) == 2
    pairs = [(a, b) for a in stars for b in zoo.heldouts] + [(a, b) for a in zoo.sources[:2] for b in zoo.heldouts]
    found = barriers(sweep(zoo, pairs, task, points=11, cached=False))
    row = results["table1"].frame.query("setting == 'MLP 16' and whose == 'ours'").set_index("split")
    for split, part in found.groupby("split"):
        for pair in ("star-heldout", "regular-regular"):
            values = part[part.pair == pair]
            prefix = pair.replace("-", "_")
            assert row.loc[split, f"n_{prefix}"] == len(values) == 6
            assert row.loc[split, f"{prefix}_loss_barrier"] == pytest.approx(np.mean(values.loss_barrier), rel=1e-6)
            assert row.loc[split, f"{prefix}_loss_barrier_std"] == pytest.approx(np.std(values.loss_barrier, ddof=1), rel=1e-6)
            assert row.loc[split, f"{prefix}_accuracy_barrier"] == pytest.approx(np.mean(values.accuracy_barrier), rel=1e-6)
        losses = [zoo.metadata(n)["metrics"][f"{split}_loss"] for n in stars]
        assert row.loc[split, "star_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
        losses = [zoo.metadata(n)["metrics"][f"{split}_loss"] for n in zoo.sources[:2]]
        assert row.loc[split, "regular_loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_every_second_model_of_a_mixed_population(tiny):
    folder, _, _ = tiny
    zoo = Zoo(folder / "mixed")
    assert zoo.sources == ["source-000-a", "source-000-b", "source-001-a", "source-001-b"]
    assert zoo.heldouts == ["heldout-000-a", "heldout-000-b", "heldout-001-a"]
    assert [zoo.metadata(n)["recipe"]["warmup_epochs"] for n in zoo.sources] == [0, 1, 0, 1]
    assert zoo.metadata(zoo.stars[0])["sources"] == zoo.sources


def test_stars_of_figure_1_have_the_sources_it_says(tiny):
    folder, _, results = tiny
    frame = results["figure1"].frame
    ours = frame[(frame.whose == "ours") & (frame.split == "train")]
    assert ours.n_sources.tolist() == [1, 2, 4] and (ours.n_pairs == 6).all()
    zoo = Zoo(folder / "mlp-8")
    for z in (1, 2, 4):
        assert zoo.metadata(f"star-uniform-{z:03}-000")["sources"] == zoo.sources[:z]
    with open(REFERENCE / "barrier_vs_sources.csv") as f:
        wanted = {(f"resnet18 on {r['dataset']}", int(r["n_sources"])): float(r["test_loss_barrier_mean"]) for r in csv.DictReader(f)}
    test = frame[(frame.whose == "published") & (frame.split == "test")]
    assert dict(zip(zip(test.setting, test.n_sources), test["mean"])) == wanted


def test_figure_1_says_which_sizes_it_cannot_have(tiny, tmp_path):
    folder, scale, _ = tiny
    for wrong in ([1, 100], [0], ["2"], [1.5]):
        with pytest.raises(SettingsError, match=f"has 4 source models: sizes are whole numbers from 1 to 4, found {wrong[-1]!r}"):
            paper.figure1(scale, tmp_path / "none", sizes=wrong)
    with pytest.raises(SettingsError, match="found none"):
        paper.figure1(scale, tmp_path / "none", sizes=[])
    assert not (tmp_path / "none").exists()  # it is said before anything is trained
    ours = paper.figure1(scale, folder, sizes=[2]).frame.query("whose == 'ours'")
    assert set(ours.n_sources) == {2}


def test_figure_2_fits_its_points(tiny):
    frame = tiny[2]["figure2"].frame
    assert set(frame.setting) == {"MLP 8", "MLP 16"}
    for _, part in frame.groupby(["series", "whose", "split"]):
        x, y = part.regular_regular_loss_barrier.to_numpy(), part.star_heldout_loss_barrier.to_numpy()
        slope, *_ = np.linalg.lstsq(x[:, None], y, rcond=None)
        assert part.slope.tolist() == pytest.approx([slope[0]] * len(part))


def test_stars_of_the_ablation_differ_in_t(tiny):
    folder, _, results = tiny
    zoo, frame = Zoo(folder / "mlp-8"), results["ablation_t"].frame
    for t in ("uniform", "beta", "constant"):
        assert zoo.metadata(f"star-{t}-004-000")["t"] == t
    ours = frame[(frame.whose == "ours") & (frame.split == "train")].set_index("t")
    assert ours.star_loss["constant"] > ours.star_loss["uniform"]
    theirs = frame[(frame.whose == "published") & (frame.split == "train")].set_index("t")
    assert theirs.loss_barrier.to_dict() == dict(uniform=0.0836, beta=0.069, constant=0.0179)


@pytest.mark.parametrize("name", RESULTS)
def test_a_second_run_trains_and_measures_nothing(tiny, name, monkeypatch):
    from starscape import barriers as barriers_module, star_training, training

    folder, scale, results = tiny
    monkeypatch.setattr(training, "fit", lambda *a, **k: pytest.fail("trained again"))
    monkeypatch.setattr(star_training, "fit", lambda *a, **k: pytest.fail("trained again"))
    monkeypatch.setattr(barriers_module.Lines, "measure", lambda *a: pytest.fail("measured again"))
    pd.testing.assert_frame_equal(RESULTS[name](scale, folder).frame, results[name].frame)


@pytest.mark.parametrize("name", RESULTS)
def test_what_was_saved_is_drawn_again(tiny, name, tmp_path):
    result = tiny[2][name]
    assert {"ours", "published"} >= set(result.frame.whose) >= {"ours"}
    path = result.save(tmp_path / "result.csv")
    again = load_result(name, path)
    pd.testing.assert_frame_equal(again.frame, result.frame, check_dtype=False, rtol=1e-5)
    drawn = [len(json.loads(r.figure.to_json())["data"]) for r in (result, again)]
    assert drawn[0] == drawn[1] > 0
    other = "figure4" if name != "figure4" else "table1"
    with pytest.raises(DataError, match=f"does not hold {other}"):
        load_result(other, path)


def test_figures_show_the_numbers_of_the_frame(tiny):
    figure, frame = tiny[2]["figure3"].figure, tiny[2]["figure3"].frame
    part = frame[(frame.whose == "ours") & (frame.pair == "star-heldout") & (frame.split == "train")]
    lines = [t for t in figure.data if t.mode == "lines+markers" and t.name == "star–held-out"]
    assert any(np.allclose(t.y, part.loss_mean) and np.allclose(t.x, part.t) for t in lines)


COMMITTED = sorted((ROOT / "benchmarks" / "paper").glob("*.csv"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.stem)
def test_committed_results_are_of_these_settings(path):
    "They draw, name the settings that there are, and hold the published numbers as they are published."
    scale, _, name = path.stem.rpartition("-")
    frame = load_result(name, path).frame
    settings = {s.name: s for s in scale_of(scale).settings}
    assert set(frame[frame.whose == "ours"].setting) <= set(settings)
    if name in ("table1", "figure2"):
        wanted = {n for n, s in settings.items() if name == "table1" or s.varies}
        assert set(frame.setting) == wanted
        for (setting, split), part in frame[frame.whose == "published"].groupby(["setting", "split"]):
            theirs = paper._theirs(settings[setting].published).set_index("split").loc[split]
            for column, value in theirs.items():
                assert part[column].iloc[0] == pytest.approx(value, rel=1e-5, nan_ok=True)


def test_published_networks_stand_at_their_own_depth():
    frame = pd.read_csv(ROOT / "benchmarks" / "paper" / "digits-figure2.csv")
    depth = frame[frame.series == "by depth"]
    assert set(depth[depth.whose == "published"].place) == {22, 28, 34} and set(depth[depth.whose == "ours"].place) == {8, 14, 20}
