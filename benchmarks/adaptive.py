"""How often the bounds of adaptive barriers are exceeded: `missed` against whole sweeps of the same lines.

`python benchmarks/adaptive.py` trains populations on the digits and writes adaptive.json (four CPU minutes).

Lines go between models of a population, three of them with noise on all their values and one with doubled weights, so that
barriers are high and low, in the middle and beside it; each is measured aligned and not, on five grids. A bound is exceeded
where the barrier on the whole grid is higher than the one found by more than `missed` and a rounding error.
"""
import os
import random
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TQDM_DISABLE"] = "1"

import pandas as pd
import torch
from _common import save

from starscape.barriers import adaptive_barriers, barriers, sweep
from starscape.data import load_task
from starscape.networks import Network
from starscape.training import Recipe, train_population

torch.set_num_threads(1)

NETWORKS = {  # network, epochs
    "mlp 8 × 2": (Network("mlp", width=8, depth=2), 1),
    "mlp 16 × 1": (Network("mlp", width=16, depth=1), 3),
    "mlp 32 × 2": (Network("mlp", width=32, depth=2), 20),
    "mlp 64 × 3": (Network("mlp", width=64, depth=3), 10),
    "mlp 32 × 2, BatchNorm": (Network("mlp", width=32, depth=2, batchnorm=True), 10),
    "ResNet-8, width 4, BatchNorm": (Network("resnet", width=4), 2),
}
GRIDS = {"11": 11, "21": 21, "101": 101, "201": 201, "uneven": [0, 0.05, 0.1, 0.5, 0.6, 0.61, 0.62, 0.9, 0.97, 1]}
SEEDS = range(3)
ROUNDING = 1e-6  # nats


def population(task, network, epochs, seed):
    zoo = train_population(task, network, Recipe(epochs=epochs, batch_size=64), tempfile.mkdtemp(), n_sources=3, n_heldout=3, seed=seed)
    generator, network = torch.Generator().manual_seed(seed), Network.of(network, task)
    def noisy(key, v, share):
        if not v.is_floating_point(): return v
        v = v * (1 + share * torch.randn(v.shape, generator=generator))
        return v.abs() if key.endswith("running_var") else v
    for name, share in zip(zoo.names, (0.03, 0.1, 0.3)): zoo.add(f"noisy-{share}", {k: noisy(k, v, share) for k, v in sorted(zoo.state(name).items())}, network=network)
    zoo.add("doubled", {k: 2 * v if v.ndim > 1 else v for k, v in zoo.state(zoo.names[0]).items()}, network=network)
    return zoo


def compare(zoo, task, pairs, points, align):
    "One row a line and split: both barriers, what may be missed, and the evaluations."
    full = barriers(sweep(zoo, pairs, task, points, align, cached=False))
    return full.merge(adaptive_barriers(zoo, pairs, task, points, align, cached=False), on=["first", "second", "split"], suffixes=("", "_adaptive"))


def main():
    task, rows = load_task("digits"), []
    for label, (network, epochs) in NETWORKS.items():
        frames, n_pairs = [], 4 if "BatchNorm" in label else 12
        for seed in SEEDS:
            zoo, rng = population(task, network, epochs, seed), random.Random(seed)
            pairs = [(a, b) for a in zoo.names for b in zoo.names if a < b]
            for grid, points in GRIDS.items():
                drawn = rng.sample(pairs, n_pairs)
                frames += [compare(zoo, task, drawn, points, align).assign(grid=grid) for align in (True, False)]
        found = pd.concat(frames)
        excess = found.loss_barrier - found.loss_barrier_adaptive - found.missed
        rows.append(dict(
            network=label, bounds=len(found), exceeded=int((excess > ROUNDING).sum()), largest_excess_nats=float(excess.max()),
            largest_excess_share_of_barrier=float((excess / found.loss_barrier)[excess > ROUNDING].max()) if (excess > ROUNDING).any() else 0.0,
            mean_barrier_nats=float(found.loss_barrier.mean()),
            **{f"evaluations_{g}": float(v) for g, v in found.groupby("grid", sort=False).evaluations.mean().round(2).items()},
        ))
        print(rows[-1], flush=True)
    save("adaptive", rows)


if __name__ == "__main__":
    main()
