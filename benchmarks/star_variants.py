"""Which way of training a star is best where, and why the average of the sources is a bad start with BatchNorm.

`python benchmarks/star_variants.py` writes star_variants.json: eight fresh populations of each network, the same for all
variants; held-out barriers with the star's own loss, accuracy and the highest loss on the path. Models and results are
kept in the folder that `--folder` names, so an interrupted study goes on where it was. About 25 minutes on one thread."""
import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TQDM_DISABLE"] = "1"

import dataclasses

import numpy as np
import pandas as pd
import torch
from _common import save
from torch.nn import functional as F

from starscape.barriers import barriers, sweep
from starscape.data import load_task
from starscape.interpolation import recalibrate, symmetry_for
from starscape.matching import Matcher
from starscape.networks import Network
from starscape.star_training import _Starlight, aligned_average, train_star
from starscape.training import Recipe, metrics_of, seed_of, train_population

torch.set_num_threads(1)

SETTINGS = {  # task, network, epochs of a source, epochs of a star, sources, held-out models, points of a sweep
    "mlp, digits": ("digits", Network("mlp", width=32, depth=3), 60, 120, 15, 5, 21),
    "mlp, mnist5k": ("mnist5k", Network("mlp", width=32, depth=2), 20, 40, 10, 3, 11),
    "mlp with batchnorm, digits": ("digits", Network("mlp", width=32, depth=3, batchnorm=True), 30, 60, 10, 3, 11),
    "resnet-8, digits": ("digits", Network("resnet", width=8), 12, 24, 10, 3, 11),
}
PLAIN = {  # changes to the recipe, options of train_star
    "algorithm 1": ({}, {}),
    "average": ({}, dict(init="average")),
    "4 pairs": ({}, dict(pairs=4)),
    "4 pairs, lr 0.2": (dict(lr=0.2), dict(pairs=4)),
    "average, 4 pairs, lr 0.2": (dict(lr=0.2), dict(init="average", pairs=4)),
    "ema 0.99": ({}, dict(ema=0.99)),
    "ema 0.99, constant lr 0.03": (dict(lr=0.03, schedule="constant"), dict(ema=0.99)),
}
WITH_BATCHNORM = {
    "algorithm 1": ({}, {}),
    "average": ({}, dict(init="average")),
    "average, rescaled": ({}, dict(init="start-average-rescaled")),
    "average, lr 0.03": (dict(lr=0.03), dict(init="average")),
    "average, warm-up": (dict(warmup_epochs=5), dict(init="average")),
    "average, rescaled, lr 0.03": (dict(lr=0.03), dict(init="start-average-rescaled")),
    "random, shrunk": ({}, dict(init="start-random-shrunk")),
    "algorithm 1, lr 0.03": (dict(lr=0.03), {}),
    "4 pairs": ({}, dict(pairs=4)),
    "ema 0.99": ({}, dict(ema=0.99)),
}


def scale_free(network: Network) -> list[str]:
    "Weights in front of a BatchNorm layer: their scale changes nothing that the network computes."
    last = [k for k, p in network.build().named_parameters() if p.ndim > 1][-1]
    return [k for k, p in network.build().named_parameters() if p.ndim > 1 and k != last]


def norm(state, keys) -> float:
    return float(torch.cat([state[k].flatten() for k in keys]).norm())


def with_norms(state, keys, norms):
    return {k: v * (norms[k] / v.norm()) if k in keys else v for k, v in state.items()}


def starts(zoo, task, network):
    "Add starts to the zoo that differ from the average, or from random weights, in the norm of scale-free weights alone."
    if "start-random-shrunk" in zoo:
        return
    keys, states = scale_free(network), [zoo.state(s) for s in zoo.sources]
    mean, _ = aligned_average(Matcher(symmetry_for(network, task), states), seed=0)
    of_sources = {k: torch.stack([s[k].norm() for s in states]).mean() for k in keys}
    random = network.build(seed_of(0, "star", "init")).state_dict()  # what Algorithm 1 starts from
    add = lambda name, state: zoo.add(name, state, role="other", network=network)
    add("start-average-rescaled", with_norms(mean, keys, of_sources))
    add("start-random-shrunk", with_norms(random, keys, {k: mean[k].norm() for k in keys}))


def gradient_at_start(zoo, task, recipe, options) -> dict:
    "Size of the gradient at the start against the weights', and how far the gradients of two batches agree."
    run = _Starlight(task, zoo, recipe, zoo.network_of("source-000"), zoo.sources, 0, **(dict(t="uniform", mu=0.0, realign_every=1, init=None, pairs=1, ema=0.0, align_ahead=0) | options))
    run.before_epoch(0)
    keys, gradients = set(scale_free(zoo.network_of("source-000"))), []
    for i in range(20):
        run.step(0, i)
        gradients.append(torch.cat([leaf.grad.flatten() for name, leaf in zip(run.network.names, run.leaves) if name in keys]))
    weights = torch.cat([leaf.detach().flatten() for name, leaf in zip(run.network.names, run.leaves) if name in keys])
    g = torch.stack(gradients)
    cosines = F.cosine_similarity(g[:, None], g[None], dim=-1)[~torch.eye(len(g), dtype=bool)]
    return dict(start_norm=float(weights.norm()), gradient_over_weights=float(g.norm(dim=1).mean() / weights.norm()), gradient_cosine=float(cosines.mean()))


def measured(zoo, task, star, points) -> dict:
    "Means over the held-out models, and over as many sources."
    frame = barriers(sweep(zoo, [(star, h) for h in zoo.heldouts], task, points=points))
    out = dict(source_train_barrier=barriers(sweep(zoo, [(star, s) for s in zoo.sources[: len(zoo.heldouts)]], task, points=points, splits=("train",))).loss_barrier.mean())
    for split, rows in frame.groupby("split"):
        out |= {f"{split}_barrier": rows.loss_barrier.mean(), f"{split}_highest_loss": rows.highest_loss.mean(), f"{split}_accuracy_barrier": rows.accuracy_barrier.mean(), f"{split}_t_barrier": rows.t_barrier.mean()}
    return out | zoo.metadata(star)["metrics"]


def study(setting: str, population: int, folder: Path) -> list[dict]:
    "All variants on one population."
    name, network, epochs, star_epochs, n_sources, n_heldout, points = SETTINGS[setting]
    task = load_task(name)
    zoo = train_population(task, network, Recipe(epochs=epochs), folder / f"{setting.replace(', ', '-').replace(' ', '-')}-{population}", n_sources=n_sources, n_heldout=n_heldout, seed=population)
    batchnorm = "batchnorm" in setting or "resnet" in setting
    pairs = [(s, h) for s, h in zip(zoo.sources, zoo.heldouts)]
    regular = barriers(sweep(zoo, pairs, task, points=points)).groupby("split").loss_barrier.mean()
    rows = [dict(setting=setting, population=population, variant="two regular models", train_barrier=regular["train"], test_barrier=regular["test"])]
    if batchnorm:
        starts(zoo, task, zoo.network_of("source-000"))
    for variant, (changes, options) in (WITH_BATCHNORM if batchnorm else PLAIN).items():
        recipe = Recipe(**(dict(epochs=star_epochs) | changes))
        star = train_star(task, zoo, recipe, **options, name=variant.replace(",", ""))
        row = dict(setting=setting, population=population, variant=variant) | measured(zoo, task, star, points)
        if batchnorm:
            keys = scale_free(zoo.network_of("source-000"))
            row |= gradient_at_start(zoo, task, recipe, {k: v for k, v in options.items() if k == "init"})
            row |= dict(end_norm=norm(zoo.state(star), keys), source_norm=float(np.mean([norm(zoo.state(s), keys) for s in zoo.sources])))
            if variant == "average":  # the finished star with the sources' norms: the same function, another line
                norms = {k: torch.stack([zoo.state(s)[k].norm() for s in zoo.sources]).mean() for k in keys}
                after = "average rescaled afterwards"
                if after not in zoo:
                    module = zoo.network_of("source-000").build()
                    module.load_state_dict(with_norms(zoo.state(star), keys, norms))
                    zoo.add(after, recalibrate(module.eval(), task), role="star", network=zoo.network_of("source-000"), metrics=metrics_of(module, task))
                rows.append(dict(setting=setting, population=population, variant="average, rescaled when finished") | measured(zoo, task, after, points))
        rows.append(row)
    return rows


def interval(values: np.ndarray, draws: int = 10_000) -> list[float]:
    "Bootstrap interval (95 %) of the mean, over populations."
    picked = np.random.default_rng(0).integers(len(values), size=(draws, len(values)))
    return [round(float(q), 4) for q in np.quantile(values[picked].mean(1), [0.025, 0.975])]


def summary(frame: pd.DataFrame) -> list[dict]:
    "One row a setting and variant: means and standard deviations over populations, and the difference from Algorithm 1."
    out = []
    for setting, of_setting in frame.groupby("setting", sort=False):
        base = of_setting.query("variant == 'algorithm 1'").set_index("population").train_barrier
        for variant, rows in of_setting.groupby("variant", sort=False):
            row = dict(setting=setting, variant=variant, populations=len(rows))
            for column in rows.columns.drop(["setting", "population", "variant"]):
                if rows[column].notna().any():
                    row[column] = round(float(rows[column].mean()), 4)
                    if column in ("train_barrier", "test_barrier"):
                        row[f"{column}_std"] = round(float(rows[column].std()), 4)
            difference = (rows.set_index("population").train_barrier - base).dropna().to_numpy()
            row |= dict(difference=round(float(difference.mean()), 4), difference_interval=interval(difference))
            out.append(row)
    return out


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "starscape-star-variants")
    arguments.add_argument("--populations", type=int, nargs="*", default=list(range(8)))
    arguments.add_argument("--settings", nargs="*", default=list(SETTINGS))
    arguments.add_argument("--no-save", action="store_true", help="only do the work; another call writes the file")
    chosen = arguments.parse_args()
    rows = [row for setting in chosen.settings for population in chosen.populations for row in study(setting, population, chosen.folder)]
    if not chosen.no_save:
        table = [dict(network=repr(n), epochs=e, star_epochs=s, sources=z, heldout=h, points=p, name=name) for name, (_, n, e, s, z, h, p) in SETTINGS.items()]
        save("star_variants", summary(pd.DataFrame(rows)), settings=table, recipe=dataclasses.asdict(Recipe()),
             note="means over populations of means over held-out models; barriers in nats; difference: train barrier less Algorithm 1's, with a 95 % bootstrap interval over populations")
