"What has to hold for merged models and the fusion table, by brute force and for other networks than the notebook's."
import itertools

import numpy as np
import pytest
import torch

from starscape.barriers import sweep
from starscape.data import SettingsError, ZooError, load_task
from starscape.fusion import METHODS, fusion_table, greedy_soup, repair, sequential_merge, soup
from starscape.interpolation import recalibrate, symmetry_for
from starscape.matching import match_weights
from starscape.networks import Network
from starscape.star_training import train_star
from starscape.training import Recipe, evaluate, train_population

NETWORKS = {"mlp": Network("mlp", width=16, depth=2), "batchnorm": Network("mlp", width=16, depth=2, batchnorm=True)}


@pytest.fixture(scope="module")
def digits():
    return load_task("digits").subset(400, 120)


@pytest.fixture(scope="module", params=NETWORKS)
def zoo(request, digits, tmp_path_factory):
    return train_population(digits, NETWORKS[request.param], Recipe(epochs=8), tmp_path_factory.mktemp("zoo"), n_sources=3, n_heldout=0)


@pytest.fixture(scope="module")
def table(zoo, digits):
    return fusion_table(zoo, digits, [2, 3], Recipe(epochs=4), n_stars=2)


def only(table, n, method):
    return table[(table.n_sources == n) & (table.method == method)].iloc[0]


def test_rows_and_costs(zoo, digits, table):
    assert table.method.tolist() == 2 * METHODS and table.n_sources.tolist() == len(METHODS) * [2] + len(METHODS) * [3]
    one = sum(v.numel() * v.element_size() for v in zoo.state("source-000").values())
    for row in table.itertuples():
        passes = row.n_sources if row.method == "ensemble" else 1
        assert row.forward_passes == passes and row.bytes == one * passes and row.ms_per_1000 > 0
    assert table.accuracy.between(0, 1).all() and table.loss.gt(0).all()
    assert set(table[table.method.isin(["best of n", "best star"])].chosen_by) == {"test"}


def test_regular_best_and_ensemble_by_hand(zoo, digits, table):
    for n in (2, 3):
        models = [zoo.network(name) for name in zoo.sources[:n]]
        own = [evaluate(m, digits)["accuracy"] for m in models]
        regular = only(table, n, "regular")
        assert regular.accuracy == pytest.approx(np.mean(own)) and regular.accuracy_std == pytest.approx(np.std(own, ddof=1)) and regular.models == n
        assert only(table, n, "best of n").accuracy == pytest.approx(max(own))
        with torch.no_grad():
            mean = torch.stack([m(digits.test_x).double().softmax(-1) for m in models]).mean(0)
        ensemble = only(table, n, "ensemble")
        assert ensemble.accuracy == pytest.approx((mean.argmax(1) == digits.test_y).double().mean().item())
        assert ensemble.loss == pytest.approx(-mean.log()[torch.arange(len(mean)), digits.test_y].mean().item(), rel=1e-6)


def test_stars_are_stored_and_reused(zoo, digits, table):
    for n in (2, 3):
        names = [f"star-fusion-{n:03}-{i:03}" for i in range(2)]
        assert all(zoo.metadata(name)["mu"] == 1.0 and zoo.metadata(name)["sources"] == zoo.sources[:n] for name in names)
        own = [evaluate(zoo.network(name), digits)["accuracy"] for name in names]
        assert only(table, n, "star").accuracy == pytest.approx(np.mean(own)) and only(table, n, "best star").accuracy == pytest.approx(max(own))
    before = {name: zoo.digest(name) for name in zoo.names}
    again = fusion_table(zoo, digits, [2, 3], Recipe(epochs=4), n_stars=2)
    assert before == {name: zoo.digest(name) for name in zoo.names}
    assert again.drop(columns="ms_per_1000").equals(table.drop(columns="ms_per_1000"))


def test_stars_of_the_table_are_no_stars_of_the_zoo(zoo, digits, table):
    assert zoo.stars == [] and {zoo.role(n) for n in zoo.names if n.startswith("star-fusion")} == {"other"}
    own = train_star(digits, zoo, Recipe(epochs=2))
    try:
        assert sweep(zoo, "star-source", digits, 3)["first"].unique().tolist() == zoo.stars == [own]
        name = "star-fusion-002-000"  # as earlier versions stored it
        made, digest = zoo.metadata(name), zoo.digest(name)
        zoo.add(name, zoo.state(name), "star", network=zoo.network_of(name), overwrite=True, **{k: v for k, v in made.items() if k not in ("role", "network")})
        assert fusion_table(zoo, digits, [2], Recipe(epochs=4), n_stars=1).method.tolist() == METHODS
        assert zoo.stars == [own] and zoo.digest(name) == digest
        assert {k: v for k, v in zoo.metadata(name).items() if k != "created"} == {k: v for k, v in made.items() if k != "created"}
    finally:
        (zoo.path / f"{own}.safetensors").unlink()


def test_soup_of_hand_aligned_models(zoo, digits, table):
    symmetry = symmetry_for(zoo.network_of("source-000"), digits)
    states = [zoo.state(n) for n in zoo.sources]
    aligned = [states[0]] + [symmetry.apply(match_weights(symmetry, states[0], s), s) for s in states[1:]]
    module = zoo.network("source-000")
    module.load_state_dict({k: sum(s[k] for s in aligned) / 3 if v.is_floating_point() else v for k, v in aligned[0].items()})
    assert only(table, 3, "soup").loss == pytest.approx(evaluate(recalibrate(module, digits), digits)["loss"], rel=1e-4)


def test_greedy_soup_never_gets_worse_and_starts_with_the_best():
    rng = np.random.default_rng(0)
    for _ in range(20):
        states = [{"w": torch.tensor(rng.normal(size=3))} for _ in range(5)]
        loss = lambda s: float(s["w"].square().sum())
        mixed, kept = greedy_soup(states, loss)
        assert kept[0] == int(np.argmin([loss(s) for s in states])) and len(set(kept)) == len(kept)
        assert loss(mixed) <= min(map(loss, states)) + 1e-12
        assert torch.allclose(mixed["w"], torch.stack([states[i]["w"] for i in kept]).mean(0))
        losses = [loss(soup([states[i] for i in kept[:k]])) for k in range(1, len(kept) + 1)]
        assert all(b <= a + 1e-12 for a, b in itertools.pairwise(losses))


def test_copies_in_disguise_merge_to_the_model(zoo, digits):
    network, state = zoo.network_of("source-000"), zoo.state("source-000")
    symmetry = symmetry_for(network, digits)
    disguised = [state] + [symmetry.apply(symmetry.random(torch.Generator().manual_seed(i)), state) for i in range(3)]
    merged = sequential_merge(network, digits, disguised)
    for k, v in state.items():
        assert torch.allclose(merged[k].double(), v.double(), atol=1e-5), k


@pytest.mark.parametrize("network", [Network("mlp", width=16, depth=3), Network("vgg11", width=8, batchnorm=False, dropout=0.0)], ids=["mlp", "convolutions"])
def test_repair_gives_each_unit_the_mean_moments(digits, network):
    from starscape.fusion import _layers, _moments
    network = Network.of(network, digits)
    states = [network.build(seed=i).state_dict() for i in range(3)]
    module, x = network.build(), digits.train_x[:300]
    merged = soup(states)
    fixed = repair(module, merged, states, digits, examples=300)
    names = _layers(module)
    wanted = [_moments(module, s, x, names) for s in states]
    found, before = _moments(module, fixed, x, names), _moments(module, merged, x, names)
    hidden = list(found)[:-1]
    for name in hidden:
        for i in (0, 1):
            mean = torch.stack([w[name][i] for w in wanted]).mean(0)
            moved = before[name][1] > 1e-6
            assert torch.allclose(found[name][i][moved], mean[moved], rtol=1e-3, atol=1e-4)
    last = list(found)[-1]
    assert torch.equal(fixed[f"{last}.weight"], merged[f"{last}.weight"])


def test_repair_of_batchnorm_is_recalibration(digits):
    network = Network.of(NETWORKS["batchnorm"], digits)
    states = [network.build(seed=i).state_dict() for i in range(2)]
    module = network.build()
    fixed = repair(module, soup(states), states, digits)
    module.load_state_dict(soup(states))
    for k, v in recalibrate(module, digits).state_dict().items():
        assert torch.equal(v, fixed[k]), k


def test_errors_say_what_to_do(zoo, digits, tmp_path):
    for bad in ([4], [0], []):
        with pytest.raises(SettingsError, match="holds 3 source models"):
            fusion_table(zoo, digits, bad)
    with pytest.raises(ZooError, match="no such folder"):
        fusion_table(tmp_path / "nowhere", digits)
    with pytest.raises(ZooError, match="no source models"):
        fusion_table(tmp_path, digits)
    with pytest.raises(SettingsError, match="at least one"):
        soup([])
