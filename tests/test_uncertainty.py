"What has to hold for posteriors, their averages and the scores, over random inputs and for other networks than the notebook's."
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score

from starscape.barriers import alignment
from starscape.data import DataError, SettingsError, Task, UnknownName, ZooError, load_task, require_torchvision
from starscape.interpolation import recalibrate, symmetry_for
from starscape.networks import Network
from starscape.star_training import train_star
from starscape.training import Recipe, train_population
from starscape.uncertainty import (
    METRICS, POSTERIORS, DropoutPosterior, EnsemblePosterior, Posterior, StarPosterior, auroc, aurc, bma, compare, ece, inputs_like, outcomes, paired_bootstrap, posterior_of,
    predictive, scores,
)
from starscape.zoo import Zoo

NETWORKS = {"mlp": Network("mlp", width=16, depth=2), "batchnorm": Network("mlp", width=16, depth=2, batchnorm=True)}


@pytest.fixture(scope="module")
def digits():
    return load_task("digits").subset(400, 120)


@pytest.fixture(scope="module", params=NETWORKS)
def zoo(request, digits, tmp_path_factory):
    zoo = train_population(digits, NETWORKS[request.param], Recipe(epochs=6), tmp_path_factory.mktemp("zoo"), n_sources=4, n_heldout=0)
    train_star(digits, zoo, Recipe(epochs=6))
    return zoo


def by_hand(module, state, x):
    module.load_state_dict(state)
    with torch.no_grad():
        return module.eval()(x).double().softmax(-1).numpy()


def random_predictions(seed, n=200, classes=5):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.4), n)
    y = np.where(rng.random(n) < 0.6, p.argmax(1), rng.integers(classes, size=n))
    return p, y


@given(st.integers(0, 10_000), st.integers(2, 300), st.integers(2, 12))
@settings(max_examples=40, deadline=None)
def test_scores_equal_scikit_learn_and_torchmetrics(seed, n, classes):
    require_torchvision()
    from torchmetrics.functional.classification import multiclass_calibration_error
    p, y = random_predictions(seed, n, classes)
    found, e = scores(outcomes(p, y)), outcomes(p, y)
    assert found["accuracy"] == pytest.approx(accuracy_score(y, p.argmax(1)), abs=1e-12)
    assert found["nll"] == pytest.approx(log_loss(y, p, labels=range(classes)), rel=1e-6)
    # scikit-learn has two conventions for two classes; ours is the sum over classes for any number of them
    assert found["brier"] == pytest.approx(brier_score_loss(y, p, labels=list(range(classes)), scale_by_half=False), abs=1e-10)
    assert found["ece"] == pytest.approx(float(multiclass_calibration_error(torch.tensor(p), torch.tensor(y), classes, n_bins=15)), abs=1e-6)
    if 0 < e["correct"].sum() < n:
        assert found["auroc_max_prob"] == pytest.approx(roc_auc_score(e["correct"], p.max(1)), abs=1e-12)
        entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(1)
        assert found["auroc_entropy"] == pytest.approx(roc_auc_score(e["correct"], -entropy), abs=1e-12)
    else:
        assert np.isnan(found["auroc_max_prob"])


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=40))
def test_ranking_scores_equal_brute_force_with_ties(examples):
    confidence, correct = np.array([c / 4 for c, _ in examples]), np.array([ok for _, ok in examples])
    pairs = [(a > b) + 0.5 * (a == b) for a, ok in zip(confidence, correct) if ok for b, bad in zip(confidence, ~correct) if bad]
    assert auroc(confidence, correct) == pytest.approx(np.mean(pairs) if pairs else np.nan, nan_ok=True)
    # the mean of AURC over random orders of the tied, here over many of them
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        order = np.lexsort((rng.random(len(correct)), -confidence))
        found.append((np.cumsum(~correct[order]) / np.arange(1, len(correct) + 1)).mean())
    assert aurc(confidence, correct) == pytest.approx(np.mean(found), abs=5 * np.std(found) / 20 + 1e-9)


def test_adaptive_ece_equals_a_loop():
    for seed in range(5):
        e = outcomes(*random_predictions(seed, 203))
        order = np.argsort(e["max_prob"], kind="stable")
        bins = [[i for k, i in enumerate(order) if k * 15 // 203 == b] for b in range(15)]
        want = sum(len(b) / 203 * abs(e["max_prob"][b].mean() - e["correct"][b].mean()) for b in bins)
        assert ece(e["max_prob"], e["correct"], adaptive=True) == pytest.approx(want, abs=1e-12)
        assert max(map(len, bins)) - min(map(len, bins)) <= 1


def test_perfect_and_constant_predictors():
    y = np.arange(60) % 6
    perfect, constant = scores(outcomes(np.eye(6)[y], y)), scores(outcomes(np.full((60, 6), 1 / 6), y))
    assert perfect["accuracy"] == 1 and [perfect[k] for k in ("nll", "brier", "ece", "ece_adaptive", "aurc")] == [0] * 5
    assert np.isnan(perfect["auroc_max_prob"])
    assert constant["accuracy"] == pytest.approx(1 / 6) and constant["nll"] == pytest.approx(np.log(6)) and constant["brier"] == pytest.approx(5 / 6)
    assert constant["ece"] == pytest.approx(0, abs=1e-12) and constant["auroc_max_prob"] == constant["auroc_entropy"] == 0.5
    assert constant["aurc"] == pytest.approx(5 / 6)
    stubborn = scores(outcomes(np.eye(6)[np.zeros(60, int)], y))
    assert stubborn["ece"] == pytest.approx(5 / 6) and stubborn["brier"] == pytest.approx(2 * 5 / 6)


def test_a_planted_temperature_is_found():
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(40_000, 5))
    softmax = lambda z: np.exp(z - z.max(1, keepdims=True)) / np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)
    planted = 2.0
    truth = softmax(logits / planted)
    y = (truth.cumsum(1) < rng.random((40_000, 1))).sum(1)
    by_temperature = {t: scores(outcomes(softmax(logits / t), y)) for t in (0.5, 1.0, 1.5, planted, 2.5, 3.0, 4.0)}
    for metric in ("ece", "ece_adaptive", "nll", "brier"):
        assert min(by_temperature, key=lambda t: by_temperature[t][metric]) == planted, metric
    assert by_temperature[planted]["ece"] < 0.01 < 0.1 < by_temperature[1.0]["ece"]
    assert len({s["accuracy"] for s in by_temperature.values()}) == 1


@pytest.mark.parametrize("p, y", [(np.ones((3, 4)), [0, 1, 2]), (np.full((3, 4), np.nan), [0, 1, 2]), (np.full((3, 4), 0.25), [0, 1]), (np.zeros((0, 4)), [])])
def test_what_is_no_prediction_is_refused(p, y):
    with pytest.raises(DataError):
        outcomes(p, np.array(y, dtype=int))


def test_every_source_once_is_the_deep_ensemble(zoo, digits):
    x, y = digits.split("test")
    module = zoo.network("source-000")
    mean = np.mean([by_hand(module, zoo.state(n), x) for n in zoo.sources], axis=0)
    assert np.abs(predictive(zoo, digits, "ensemble", len(zoo.sources)) - mean).max() < 1e-6  # models are called in single precision
    row = bma(zoo, digits, "ensemble", [4], repeats=3)
    assert np.allclose(row.nll, scores(outcomes(mean, y.numpy()))["nll"], atol=1e-6)


def test_the_star_posterior_at_both_ends(zoo, digits):
    star = zoo.stars[0]
    posterior = posterior_of(zoo, digits, "star")
    generator = torch.Generator().manual_seed(0)
    import starscape.uncertainty as module
    for t, wanted in ((0.0, [zoo.state(star)]), (1.0, [symmetry_for(zoo.network_of(star), digits).apply(alignment(zoo, star, n, digits), zoo.state(n)) for n in zoo.sources])):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "draw_t", lambda *_, t=t: torch.tensor([t]))
            for _, drawn in zip(range(8), posterior.draws(generator)):
                assert any(all(torch.equal(drawn[k], w[k]) for k in w if w[k].is_floating_point()) for w in wanted)
    # and its permuted source is the source, as a function
    network, x = zoo.network(star), digits.test_x
    for drawn, name in zip(posterior.sources, zoo.metadata(star)["sources"]):
        assert np.abs(by_hand(network, drawn, x) - by_hand(network, zoo.state(name), x)).max() < 1e-4


def test_one_sample_curve_equals_draws_by_hand(zoo, digits):
    "Same draws, recalibrated one by one and averaged afterwards: what the running averages must come to."
    from starscape.training import generator_for
    posterior, module = posterior_of(zoo, digits, "star"), zoo.network(zoo.stars[0])
    members = []
    for _, state in zip(range(6), posterior.draws(generator_for(3, "bma", 1))):
        module.load_state_dict(state)
        recalibrate(module, digits)
        members.append(by_hand(module, {k: v.clone() for k, v in module.state_dict().items()}, digits.test_x))
    curve = bma(zoo, digits, "star", range(1, 7), repeats=2, seed=3).query("repeat == 1").set_index("n_samples")
    for s in range(1, 7):
        want = scores(outcomes(np.mean(members[:s], axis=0), digits.test_y.numpy()))
        assert np.allclose(curve.loc[s, list(want)].astype(float), list(want.values()), atol=1e-5, equal_nan=True)
        own = np.mean([-(p * np.log(np.maximum(p, 1e-300))).sum(1).mean() for p in members[:s]])
        assert curve.loc[s, "aleatoric"] == pytest.approx(own, abs=1e-6)
        assert curve.loc[s, "entropy"] == pytest.approx(curve.loc[s, "aleatoric"] + curve.loc[s, "epistemic"], abs=1e-9)


def test_a_curve_costs_as_many_models_as_its_longest_average(zoo, digits):
    class Counting(Posterior):
        drawn = 0
        def draws(self, generator):
            while True:
                Counting.drawn += 1
                yield zoo.state("source-000")
    frame = bma(zoo, digits, Counting(), range(2, 20), repeats=1)
    assert Counting.drawn == 19 and frame.n_samples.tolist() == list(range(2, 20))
    assert list(frame)[3:] == METRICS
    assert frame.epistemic.abs().max() < 1e-12  # a posterior over one model


def test_draws_are_reproducible_and_repeats_differ(zoo, digits, tmp_path):
    names = [p for p in POSTERIORS if p != "dropout"]
    first = bma(zoo, digits, names, [3], repeats=2, cached=False)
    assert first.equals(bma(zoo, digits, names, [3], repeats=2, cached=False))
    cached = bma(zoo, digits, names, [3], repeats=2)
    assert cached.equals(first) and bma(zoo, digits, names, [3], repeats=2).equals(first)
    other = bma(zoo, digits, names, [3], repeats=2, seed=1)
    random = first.posterior != "ensemble"  # three of four sources may well be the same three
    assert (first.nll != other.nll)[random].all()
    assert all(rows.nll.nunique() == 2 for _, rows in first[random].groupby("posterior"))
    assert (first.epistemic > 0).all()


def test_drawn_models_are_recalibrated_and_trained_ones_are_not(digits, tmp_path):
    zoo = train_population(digits, NETWORKS["batchnorm"], Recipe(epochs=6), tmp_path, n_sources=2, n_heldout=0)
    train_star(digits, zoo, Recipe(epochs=6))
    keep, fresh = (bma(zoo, digits, "star", [4], 2, batchnorm=m).nll for m in ("keep", "cumulative"))
    assert (fresh < keep).all()
    keep, fresh = (bma(zoo, digits, "ensemble", [2], 1, batchnorm=m).nll for m in ("keep", "cumulative"))
    assert keep.equals(fresh)


def test_dropout_draws_differ_and_leave_no_trace(digits, tmp_path):
    network = Network("vgg11", width=8, dropout=0.5)
    zoo = train_population(digits, network, Recipe(epochs=1), tmp_path, n_sources=1, n_heldout=0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    frame = bma(zoo, digits, "dropout", [1, 8], repeats=2, cached=False)
    assert torch.equal(before, torch.get_rng_state())
    assert frame.equals(bma(zoo, digits, "dropout", [1, 8], repeats=2, cached=False))
    at = frame.groupby("n_samples").epistemic.min()
    assert at[8] > 1e-6 and abs(frame[frame.n_samples == 1].epistemic).max() < 1e-12
    assert isinstance(posterior_of(zoo, digits, "dropout"), DropoutPosterior)


def test_out_of_distribution_inputs(zoo, digits):
    noise = Task("noise", *(f(t) for t in (digits.train_x, digits.test_x) for f in (lambda t: 3 * torch.randn(len(t), 1, 20, 20, generator=torch.Generator().manual_seed(0)), lambda t: torch.arange(len(t)) % 10)))
    assert inputs_like(noise, digits).shape == (len(noise.test_y), 1, 8, 8)
    assert torch.allclose(inputs_like(digits, digits), digits.test_x, atol=1e-5)
    frame = bma(zoo, digits, ["star", "ensemble"], [3], 2, ood=noise)
    columns = [c for c in frame if c.startswith("ood_auroc")]
    assert len(columns) == 3 and frame[columns].to_numpy().min() >= 0 and frame[columns].to_numpy().max() <= 1
    same = bma(zoo, digits, "ensemble", [4], 1, ood=digits)
    assert np.allclose(same[columns], 0.5, atol=1e-3)  # the same inputs cannot be told apart
    assert frame[METRICS].equals(bma(zoo, digits, ["star", "ensemble"], [3], 2)[METRICS])
    text = Task("text", torch.zeros(4, 9), torch.arange(4) % 2, torch.zeros(4, 9), torch.arange(4) % 2)
    with pytest.raises(DataError, match="only images"):
        bma(zoo, digits, "ensemble", [2], 1, ood=text)


def test_the_bootstrap_sees_a_difference_that_is_there_and_none_that_is_not(zoo, digits):
    noisy = EnsemblePosterior([{k: v + 0.5 * torch.randn(v.shape, generator=torch.Generator().manual_seed(0)) if "weight" in k else v for k, v in zoo.state("source-000").items()}])
    found = compare(zoo, digits, "ensemble", noisy, 3, 2, resamples=100).set_index("metric")
    assert found.differs["nll"] and found.difference["nll"] < 0 and found.low["nll"] <= found.difference["nll"] <= found.high["nll"]
    same = compare(zoo, digits, "ensemble", "ensemble", len(zoo.sources), 2, resamples=100)
    assert np.allclose(same.difference, 0, atol=1e-12) and not same.differs[~same.metric.isin(["ece", "ece_adaptive"])].any()


def test_bootstrap_intervals_cover_and_pair():
    "Of 95 % intervals for the difference of two equally good predictors, about 95 in 100 must hold zero."
    rng, covered = np.random.default_rng(0), 0
    for i in range(60):
        y = rng.integers(3, size=150)
        a, b = (outcomes(rng.dirichlet(np.ones(3), 150), y) for _ in range(2))
        found = paired_bootstrap([a], [b], resamples=200, seed=i).set_index("metric").loc["brier"]
        covered += found.low <= 0 <= found.high
    assert 51 <= covered <= 60
    # predictions that differ by the same small step everywhere: unpaired, the noise of the examples would hide it
    worse = {k: v + 0.001 if k == "nll" else v for k, v in a.items()}
    found = paired_bootstrap([worse], [a], resamples=50).set_index("metric")
    assert found.differs["nll"] and found.low["nll"] == pytest.approx(0.001) and not found.differs["ece"]


def test_errors_say_what_to_do(zoo, digits, tmp_path):
    with pytest.raises(UnknownName, match="Did you mean 'star'"):
        bma(zoo, digits, "stars")
    for bad in (dict(n_samples=[0, 2]), dict(n_samples=[]), dict(repeats=0)):
        with pytest.raises(SettingsError, match="(n_samples|repeats) is a whole number, at least 1|At least one sample"):
            bma(zoo, digits, "ensemble", **bad)
    for wrong in ("5", [2.5], 2.5, ["a"], None, [None]):
        value = wrong[0] if isinstance(wrong, list) else wrong
        for measure in (bma, predictive) if wrong is value else (bma,):
            with pytest.raises(SettingsError, match=f"n_samples is a whole number, at least 1; found {value!r}"):
                measure(zoo, digits, "ensemble", n_samples=wrong)
        with pytest.raises(SettingsError, match="repeats is a whole number"):
            bma(zoo, digits, "ensemble", repeats=wrong)
        with pytest.raises(SettingsError, match="n_samples is a whole number"):
            compare(zoo, digits, n_samples=wrong)
    assert bma(zoo, digits, "ensemble", np.int64(2), np.int64(1), cached=False).n_samples.tolist() == [2]
    with pytest.raises(SettingsError, match="dropout"):
        bma(zoo, digits, "dropout")
    with pytest.raises(ZooError, match="no such folder"):
        bma(tmp_path / "nowhere", digits, "ensemble")
    with pytest.raises(ZooError, match="no source models"):
        bma(tmp_path, digits, "ensemble")
    bare = Zoo(tmp_path / "bare")
    bare.add("source-000", zoo.state("source-000"), role="source", network=zoo.network_of("source-000"))
    with pytest.raises(ZooError, match="train_star"):
        bma(bare, digits, "star")
    with pytest.raises(DataError, match="does not take inputs"):
        bma(zoo, Task("wide", torch.zeros(8, 1, 9, 9), torch.arange(8) % 10, torch.zeros(8, 1, 9, 9), torch.arange(8) % 10), "ensemble")


def test_a_star_posterior_of_ones_own():
    star, sources = {"w": torch.zeros(3)}, [{"w": torch.ones(3)}, {"w": -torch.ones(3)}]
    drawn = torch.stack([s["w"] for _, s in zip(range(4000), StarPosterior(star, sources).draws(torch.Generator().manual_seed(0)))])
    assert (drawn == drawn[:, :1]).all() and drawn.abs().max() <= 1
    assert abs(drawn[:, 0].mean()) < 0.03 and abs(drawn[:, 0].abs().mean() - 0.5) < 0.02 and abs((drawn[:, 0] > 0).float().mean() - 0.5) < 0.03
