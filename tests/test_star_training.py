"Starlight's options against plain loops that say what they mean, and what a step on a GPU must not do."
import copy
import io
import math
from types import SimpleNamespace

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

from starscape.data import Augment, SettingsError, Task, load_task
from starscape.interpolation import recalibrate, symmetry_for
from starscape.matching import Matcher
from starscape.networks import Network
from starscape.star_training import _Starlight, aligned_average, train_star
from starscape.training import Recipe, _memory_format, train_population
from starscape.zoo import Zoo

NETWORKS = {"mlp": Network("mlp", width=8, depth=2), "mlp, batchnorm": Network("mlp", width=8, depth=2, batchnorm=True), "resnet": Network("resnet", width=4)}
RECIPE = Recipe(epochs=3, batch_size=32, lr=0.05)


@pytest.fixture(scope="module")
def task():
    return load_task("digits").subset(160, 80)


@pytest.fixture(scope="module")
def zoos(task, tmp_path_factory):
    return {name: train_population(task, network, RECIPE, tmp_path_factory.mktemp("zoo"), n_sources=4, n_heldout=1) for name, network in NETWORKS.items()}


def starlight(task, zoo, recipe=RECIPE, **options):
    defaults = dict(t="uniform", mu=0.0, realign_every=1, init=None, pairs=1, ema=0.0, align_ahead=0)
    return _Starlight(task, zoo, recipe, zoo.network_of("source-000"), zoo.sources, 0, **(defaults | options))


def by_hand(task, zoo, recipe, *, mu=0.0, realign_every=1, ema=0.0, **options):
    "The same training with one functional call for each point, autograd through the interpolation, and torch's own optimiser."
    draws = starlight(task, zoo, recipe, mu=mu, realign_every=realign_every, **options)  # gives the start and the random draws; never stepped
    module, star = copy.deepcopy(draws.module), {k: v.clone().requires_grad_() for k, v in zip(draws.network.names, draws.network.views(draws.star))}
    optimizer = torch.optim.SGD(star.values(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True)
    average = {k: v.detach().clone() for k, v in star.items()}
    for epoch in range(recipe.epochs):
        with torch.no_grad():
            for name, value in star.items():
                dict(zip(draws.network.names, draws.network.views(draws.star)))[name].copy_(value)
        draws.before_epoch(epoch)
        sources = [draws.symmetry.apply({g: p[n] for g, p in draws.permutations.items()}, state) for n, state in enumerate(draws.states)]
        for i, (x, y) in enumerate(draws.batches):
            loss, sizes = 0.0, [len(p) for p in torch.arange(len(y)).tensor_split(draws.pairs)]
            for n, t, xs, ys in zip(draws.sources[i], draws.ts[i], x.split(sizes), y.split(sizes)):
                line = {k: (1 - t) * p + t * sources[n][k] for k, p in star.items()}
                loss = loss + F.cross_entropy(functional_call(module, line, (xs,)), ys) * len(ys) / len(y)
            if mu:
                loss = (loss + mu * F.cross_entropy(functional_call(module, star, (x,)), y)) / (1 + mu)
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr_at(epoch * draws.steps + i, draws.steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for k, v in average.items():
                    v.lerp_(star[k], 1 - ema)
    module.load_state_dict(average, strict=False)
    return recalibrate(module.eval(), task).state_dict()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("options", [{}, dict(t="beta", mu=0.5), dict(pairs=4), dict(pairs=3, realign_every=2), dict(pairs=2, mu=1.0, t="constant"), dict(init="average", ema=0.9)], ids=str)
def test_every_option_is_what_a_plain_loop_does(task, zoos, tmp_path, name, options):
    zoo = zoos[name]
    star = train_star(task, zoo, RECIPE, **options, name=str(options).replace(":", "").replace("'", "")[1:-1] or "default")
    got = zoo.state(star)
    for key, value in by_hand(task, zoo, RECIPE, **options).items():
        torch.testing.assert_close(got[key], value, rtol=2e-3, atol=2e-4, msg=lambda m, key=key: f"{key}: {m}")


def test_an_alignment_that_starts_early_is_of_the_star_as_it_was_then(task, zoos, tmp_path):
    zoo = zoos["mlp"]
    recipe = Recipe(epochs=2, batch_size=32, lr=0.3)
    run = starlight(task, zoo, recipe, align_ahead=2)
    stars, references, match = [], [], run.match
    run.match = lambda vector, epoch, **k: references.append(vector.clone()) or match(vector, epoch, **k)
    step = run.step
    run.step = lambda epoch, i: stars.append(run.star.clone()) or step(epoch, i)
    from starscape.training import Checkpoint

    run.run(Checkpoint(None, {}), "")
    assert len(references) == 2 and references[0].equal(stars[0]) and references[1].equal(stars[run.steps - 2]) and not references[1].equal(stars[run.steps])


def test_the_average_is_the_best_start_that_a_matching_finds(task, zoos):
    zoo = zoos["mlp"]
    states = [zoo.state(s) for s in zoo.sources]
    matcher = Matcher(symmetry_for(zoo.network_of("source-000"), task), states)
    mean, found = aligned_average(matcher)
    for k in mean:
        torch.testing.assert_close(mean[k], torch.stack([matcher.symmetry.apply(p, s)[k] for p, s in zip(found, states)]).mean(0))
    distance = lambda ps: sum((matcher.symmetry.apply(p, s)[k] - mean[k]).square().sum() for p, s in zip(ps, states) for k in mean)
    assert distance(found) < distance([matcher.symmetry.identity()] * len(states))


class NoSync(TorchDispatchMode):
    "Fails on whatever would make the processor wait for the device, or send it something."

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        assert name not in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero", "aten::masked_select", "aten::unique_dim", "aten::_unique2", "aten::lift_fresh"), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, dict(mu=1.0), dict(pairs=4, ema=0.9)], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_never_waits_for_the_device(task, zoos, monkeypatch, name, options):
    augmented = Task(task.name, task.train_x, task.train_y, task.test_x, task.test_y, augment=Augment(pad=1, fill=(-0.8,)))
    run = starlight(augmented, zoos[name], **options)
    run.before_epoch(0)
    optimizer = torch.optim.SGD(run.leaves, 0.1, 0.9, fused=True)
    run.step(0, 0)  # some things are made once
    forbidden = lambda kind: lambda *_, **__: pytest.fail(f"Tensor.{kind} in a step")
    for kind in ("item", "tolist", "numpy", "cpu", "cuda", "__float__", "__int__", "__bool__"):
        monkeypatch.setattr(torch.Tensor, kind, forbidden(kind))
    with NoSync():
        for i in range(1, run.steps):
            assert run.step(0, i).ndim == 0
            optimizer.step()


@pytest.mark.parametrize("arrives", [3, 10**6])
def test_the_progress_bar_never_waits_for_a_loss(task, monkeypatch, arrives):
    "A loss that is still on its way is not looked at; it is shown when it is there, and the next is asked for then."
    from starscape import training

    class Slow(training._Reading):
        asked = 0

        def ready(self):
            self.asked += 1
            return self.asked > arrives

        def __str__(self):
            assert self.asked > arrives
            shown.append(super().__str__())
            return shown[-1]

    shown = []
    monkeypatch.setattr(training, "_Reading", Slow)
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=iter(range(10**9)).__next__))  # each look at the clock is a second later
    monkeypatch.setattr(training, "progress", lambda **settings: tqdm(total=settings["total"], file=io.StringIO()))
    training.train(task, Network("mlp", width=4, depth=1), Recipe(epochs=2, batch_size=4))
    assert len(shown) == (2 * (40 // (arrives + 1)) if arrives < 40 else 0) and all(s.startswith("loss ") for s in shown)


@pytest.mark.parametrize("flat", [False, True])
def test_images_of_one_channel_stay_channels_last(task, zoos, flat):
    "Of their two layouts the convolutions keep to the one of their weights."
    module = starlight(task, zoos["resnet"]).module if flat else _memory_format(NETWORKS["resnet"].of(NETWORKS["resnet"], task).build(0), task.train_x[:2])
    seen = []
    for m in module.modules():
        if isinstance(m, torch.nn.Conv2d):
            m.register_forward_hook(lambda m, a, out: seen.append(out.is_contiguous(memory_format=torch.channels_last) and not out.is_contiguous()))
    module.train()(task.train_x[:8])
    assert task.train_x.shape[1] == 1 and seen and all(seen)


def test_what_forbids_waiting_sees_it():
    with NoSync(), pytest.raises(AssertionError):
        torch.ones(1).item()
    with NoSync(), pytest.raises(AssertionError):
        torch.tensor(1.0)


def test_bfloat16_keeps_weights_sources_and_statistics_in_float32(task, zoos):
    zoo = zoos["resnet"]
    run = starlight(task, zoo, Recipe(epochs=1, batch_size=32, precision="bfloat16"))
    seen = set()
    for module in run.module.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda m, a, out: seen.add(out.dtype))
    run.before_epoch(0)
    loss = run.step(0, 0)
    assert seen == {torch.bfloat16} and loss.dtype == torch.float32
    assert {t.dtype for t in (run.star, run.aligned, run.network.vector, *(leaf.grad for leaf in run.leaves))} == {torch.float32}
    assert {b.dtype for k, b in run.module.named_buffers() if "running" in k} == {torch.float32}
    exact = starlight(task, zoo, Recipe(epochs=1, batch_size=32))
    exact.before_epoch(0)
    wanted = exact.step(0, 0)
    assert 0 < (loss - wanted).abs() < 0.02 * wanted
    cosine = F.cosine_similarity(*(torch.cat([leaf.grad.flatten() for leaf in r.leaves]) for r in (run, exact)), dim=0)
    assert cosine > 0.99


def test_compiled_steps_are_the_same_and_compile_once(task, zoos):
    zoo = zoos["mlp, batchnorm"]
    torch._dynamo.reset()
    compiled, eager = (starlight(task, zoo, Recipe(epochs=1, batch_size=32, compile=flag)) for flag in (True, False))
    if compiled.gradient is not None:
        for p, g in zip(compiled.network.params, compiled.network.views(compiled.gradient)):
            p.grad = g
    counters = torch._dynamo.utils.counters
    counters.clear()
    try:
        for run in (compiled, eager):
            run.before_epoch(0)
        losses = [(compiled.step(0, i), eager.step(0, i)) for i in range(4)]
    except torch._dynamo.exc.BackendCompilerFailed:
        pytest.skip("no C++ compiler")
    assert len({(tuple(s), tuple(t)) for s, t in zip(compiled.sources[:4], compiled.ts[:4])}) == 4, "every step another source and t"
    for a, b in losses:
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for a, b in zip(compiled.leaves, eager.leaves):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1, dict(counters["stats"])


def test_flat_storage_survives_the_zoo(task, zoos):
    zoo = zoos["resnet"]
    star = train_star(task, zoo, Recipe(epochs=0), init="source-001", name="as it was")
    for k, v in zoo.state("source-001").items():
        if "running" not in k and "num_batches" not in k:
            assert zoo.state(star)[k].equal(v)


def test_options_out_of_range_are_refused(task, zoos):
    for bad in (dict(pairs=33), dict(pairs=0), dict(ema=1.0), dict(ema=-0.1), dict(align_ahead=6), dict(mu=-1), dict(realign_every=0), dict(mu=math.nan)):
        with pytest.raises(SettingsError, match=next(iter(bad))):
            train_star(task, zoos["mlp"], RECIPE, **bad)
    with pytest.raises(SettingsError, match="of one type"):
        from starscape.star_training import FlatParameters

        FlatParameters(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).double()))


def test_a_star_made_with_other_options_is_another_star(task, zoos):
    from starscape.data import ZooError

    train_star(task, zoos["mlp"], Recipe(epochs=1), name="one")
    with pytest.raises(ZooError, match="another pairs"):
        train_star(task, zoos["mlp"], Recipe(epochs=1), name="one", pairs=2)
    assert isinstance(zoos["mlp"], Zoo)
