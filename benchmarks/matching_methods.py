"""Loss barriers after each way of matching, on pairs of independently trained networks.

`python benchmarks/matching_methods.py FOLDER [--tasks digits mnist5k] [--networks mlp resnet8]` trains 6 networks per
row (kept in FOLDER), matches 5 of them to the first, and writes benchmarks/matching_methods.json: train- and test-loss
barriers on 11 points (means over the 5 pairs), with BatchNorm recalibrated on the training set at each interior point.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import torch
from torch.func import functional_call
from torch.nn import functional as F

from starscape.data import load_task
from starscape.matching import match_activations, match_differentiable, match_weights, objective
from starscape.networks import build_network
from starscape.symmetry import PermutationSymmetry
from starscape.training import Recipe, train_population

NETWORKS = {
    "mlp": (dict(name="mlp", width=64, depth=3), 40, 0.1),
    "resnet8": (dict(name="resnet", width=16), 12, 0.1),
}
POINTS = 11


@torch.no_grad()
def losses(model, state, task):
    "Train and test loss; BatchNorm takes the statistics of the training set, which is one batch."
    state = {name: tensor.clone() for name, tensor in state.items()}
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for m in norms:
        m.momentum = 1.0
    model.train()
    logits = functional_call(model, state, (task.train_x,))
    model.eval()
    test = functional_call(model, state, (task.test_x,))
    return F.cross_entropy(logits, task.train_y).item(), F.cross_entropy(test, task.test_y).item()


def barrier(model, a, b, task):
    mix = lambda t: {n: torch.lerp(a[n], b[n], t) if a[n].is_floating_point() else a[n] for n in a}
    grid = torch.linspace(0, 1, POINTS).tolist()
    curve = torch.tensor([losses(model, mix(t), task) for t in grid])
    t = torch.tensor(grid)[:, None]
    return (curve - ((1 - t) * curve[0] + t * curve[-1])).max(0).values.tolist()


def methods(symmetry, a, b, model, task, seed):
    x, y = task.train_x, task.train_y
    descend = lambda **kw: match_differentiable(
        symmetry, a, b, model=model, inputs=x, targets=y, objective="midpoint", seed=seed, **kw
    )
    yield "unmatched", lambda: symmetry.identity()
    yield "activations, covariance", lambda: match_activations(symmetry, a, b, model=model, inputs=x, form="covariance")
    yield "activations, correlation", lambda: match_activations(symmetry, a, b, model=model, inputs=x)
    yield "weights", lambda: match_weights(symmetry, a, b, seed=seed)
    yield "weights, best of 10", lambda: match_weights(symmetry, a, b, seed=seed, n_restarts=10)
    yield "differentiable, midpoint", descend
    yield "straight-through, midpoint", lambda: descend(estimator="straight-through")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--tasks", nargs="+", default=["digits", "mnist5k"])
    parser.add_argument("--networks", nargs="+", default=["mlp", "resnet8"])
    parser.add_argument("--out", default=Path(__file__).with_suffix(".json"))
    args, rows = parser.parse_args(), []
    for task_name in args.tasks:
        task = load_task(task_name)
        for network in args.networks:
            settings, epochs, lr = NETWORKS[network]
            settings = dict(settings)
            model = build_network(settings["name"], **{k: v for k, v in settings.items() if k != "name"},
                                  input_shape=task.input_shape, num_classes=task.num_classes)
            rows += compare(task, network, settings, epochs, lr, model, args.folder)
    environment = dict(python=platform.python_version(), torch=torch.__version__, threads=torch.get_num_threads())
    if Path(args.out).exists():  # rows of other tasks and networks stay
        measured = {(row["task"], row["network"]) for row in rows}
        earlier = json.loads(Path(args.out).read_text())["rows"]
        rows = sorted([row for row in earlier if (row["task"], row["network"]) not in measured] + rows, key=lambda row: (row["task"], row["network"]))
    Path(args.out).write_text(json.dumps(dict(environment=environment, rows=rows), indent=1) + "\n")


def compare(task, network, settings, epochs, lr, model, folder):
    from starscape.networks import Network

    zoo = train_population(
        task, Network(**settings, input_shape=task.input_shape, num_classes=task.num_classes),
        Recipe(epochs=epochs, lr=lr, batch_size=64), os.path.join(folder, f"{task.name}-{network}"),
        n_sources=6, n_heldout=0,
    )
    symmetry = PermutationSymmetry.of(model, task.train_x[:2])
    states = [zoo.state(name) for name in zoo.sources]
    found = {}
    for seed, b in enumerate(states[1:]):
        for method, match in methods(symmetry, states[0], b, model, task, seed):
            start = time.process_time()
            p = match()
            spent = time.process_time() - start
            train, test = barrier(model, states[0], symmetry.apply(p, b), task)
            found.setdefault(method, []).append((train, test, objective(symmetry, states[0], b, p), spent))
    rows = []
    for method, values in found.items():
        mean, std = torch.tensor(values).mean(0).tolist(), torch.tensor(values).std(0).tolist()
        row = dict(task=task.name, network=network, method=method, pairs=len(values),
                   train_barrier=mean[0], train_barrier_std=std[0], test_barrier=mean[1], test_barrier_std=std[1],
                   objective=mean[2], cpu_seconds=mean[3])
        rows.append({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
        print(f"{task.name:8} {network:8} {method:27} train {mean[0]:.3f} ± {std[0]:.3f}  test {mean[1]:.3f}"
              f"  objective {mean[2]:.1f}  {mean[3]:.2f} CPU s", flush=True)
    return rows


if __name__ == "__main__":
    main()
