"""Whole sweeps, adaptive barriers and the cache, against the usual way of doing it, paired in one run.

    python benchmarks/sweeps.py                 # all cases, written to benchmarks/sweeps.json
    python benchmarks/sweeps.py mlp resnet8     # some of them

The usual way, as the paper's own code has it: at every position the first model is deep-copied, both are flattened, the
interpolated vector is written back, the BatchNorm statistics are updated (momentum 0.1) by a pass of a DataLoader in
training mode with gradients on, and each split is evaluated by another pass. Here it is `usual_sweep`. Both sides get the
same aligned models; finding the permutations is not timed (see benchmarks/matching_methods.py for that). Seconds are CPU
seconds of one thread, because the machine may be shared; a ratio is the median over repeats run in turn.
"""
import argparse
import copy
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

import starscape
from starscape.barriers import Lines, Matching, adaptive_barriers, barriers, sweep
from starscape.data import Task, load_task
from starscape.interpolation import CALIBRATION_BATCH, has_batchnorm
from starscape.networks import Network
from starscape.training import Recipe, train_population

SPLITS = ("train", "test")


def noise_images(n_train=96, n_test=32):
    "Images of CIFAR's shape: what a pass costs does not depend on what they show."
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: (torch.randn(n, 3, 32, 32, generator=generator), torch.randint(10, (n,), generator=generator))
    return Task("noise", *draw(n_train), *draw(n_test), num_classes=10)


CASES = {  # task, network, epochs, pairs, positions, repeats
    "mlp": (lambda: load_task("digits"), Network("mlp", width=64, depth=3), 20, 5, 21, 5),
    "mlp_mnist5k": (lambda: load_task("mnist5k"), Network("mlp", width=64, depth=3), 5, 5, 21, 5),
    "resnet8": (lambda: load_task("digits"), Network("resnet", width=16), 3, 5, 21, 3),
    "resnet18": (noise_images, Network("resnet18"), 1, 5, 21, 1),  # all of so few images would be scanned: an adaptive search needs more
    "resnet18_mnist": (lambda: load_task("mnist5k"), Network("resnet18"), 5, 1, 21, 1),  # for that alone
}


def usual_sweep(ends, task, points, batch_size=128):
    "Loss and accuracy by position and split of one pair of modules."
    loaders = {s: DataLoader(TensorDataset(*task.split(s)), batch_size=batch_size) for s in SPLITS}
    normalised = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in ends[0].modules())

    @torch.no_grad()
    def evaluate(model, loader):
        model.eval()
        total = hits = count = 0
        for x, y in loader:
            out = model(x)
            total += cross_entropy(out, y).item() * len(y)
            hits += (out.argmax(1) == y).sum().item()
            count += len(y)
        return total / count, hits / count

    rows = []
    for t in torch.linspace(0, 1, points).tolist():
        model = copy.deepcopy(ends[0])
        flat = [torch.cat([p.detach().reshape(-1) for p in m.parameters()]) for m in ends]
        mixed, at = (1 - t) * flat[0] + t * flat[1], 0
        for p in model.parameters():
            p.data = mixed[at : at + p.numel()].view(p.shape)
            at += p.numel()
        if t == 1:
            model = copy.deepcopy(ends[1])
        elif t > 0 and normalised:
            model.train()
            for x, _ in loaders["train"]:
                model(x)
        rows.append([evaluate(model, loaders[s]) for s in SPLITS])
    return torch.tensor(rows, dtype=torch.float64)  # (positions, splits, loss and accuracy)


@torch.inference_mode()
def convolutions(module, x, batch_size=512):
    "CPU seconds of the convolutions of one pass over x, and of nothing else."
    given, seconds = [], 0.0
    hooks = [m.register_forward_hook(lambda m, args, y: given.append((m, args[0]))) for m in module.modules() if isinstance(m, nn.Conv2d)]
    for part in x.split(batch_size):
        given.clear()
        module(part)
        inputs = [(m, v.contiguous(memory_format=torch.channels_last)) for m, v in given]
        began = time.process_time()
        for m, v in inputs:
            m._conv_forward(v, m.weight, m.bias)
        seconds += time.process_time() - began
    for hook in hooks:
        hook.remove()
    return seconds


@torch.no_grad()
def from_update_bn(ends, task, frame, second):
    "How much the losses of a sweep differ, at the most, from those with the statistics of PyTorch's own function, relative to these; at every third position."
    worst, line = 0.0, frame[frame.second == second]
    for t in sorted(line.t.unique())[1:-1:3]:
        model = copy.deepcopy(ends[0])
        for p, *both in zip(model.parameters(), *(m.parameters() for m in ends)):
            p.copy_(both[0] + t * (both[1] - both[0]))
        update_bn(task.train_x.chunk(-(-len(task.train_x) // CALIBRATION_BATCH)), model)
        for split in SPLITS:
            x, y = task.split(split)
            loss = cross_entropy(torch.cat([model.eval()(part) for part in x.split(256)]), y).item()
            worst = max(worst, abs(line[(line.t == t) & (line.split == split)].loss.item() / loss - 1))
    return worst


def timed(action):
    wall, began = time.perf_counter(), time.process_time()
    result = action()
    return result, time.process_time() - began, time.perf_counter() - wall


def run(name):
    make_task, network, epochs, n_pairs, points, repeats = CASES[name]
    task = make_task()
    zoo = train_population(task, network, Recipe(epochs=epochs, batch_size=64), tempfile.mkdtemp(), n_sources=1, n_heldout=n_pairs)
    pairs = [("source-000", h) for h in zoo.heldouts]
    lines = Lines(zoo, pairs, task, Matching())
    modules = []
    for pair in pairs:  # the permutations are found here, once
        ends = [copy.deepcopy(lines.module) for _ in pair]
        for module, state in zip(ends, lines.states(*pair)):
            module.load_state_dict(state)
        modules.append(ends)
    settings = dict(points=points, device="cpu")
    plain, x = copy.deepcopy(modules[0][0]).to(memory_format=torch.channels_last).eval(), torch.cat([task.train_x, task.test_x])
    convolves, passes = any(isinstance(m, nn.Conv2d) for m in plain.modules()), n_pairs * (points - 2) + len(zoo.names)
    sides = {
        "usual": lambda: torch.stack([usual_sweep(ends, task, points) for ends in modules]),
        "sweep": lambda: sweep(zoo, pairs, task, cached=repeats == 1, **settings),  # what is measured once alone goes into the cache, for its timing below
        "adaptive": lambda: adaptive_barriers(zoo, pairs, task, cached=False, **settings),
        "adaptive_101": lambda: adaptive_barriers(zoo, pairs, task, cached=False, points=101, device="cpu"),
    }
    if name == "resnet18": del sides["adaptive"], sides["adaptive_101"]
    if name == "resnet18_mnist": del sides["usual"], sides["adaptive_101"]
    seconds, found = {k: [] for k in sides}, {}
    sweep(zoo, pairs, task, points=2, cached=False)  # what is prepared once for a network is prepared
    for _ in range(repeats):
        for side, action in sides.items():
            found[side], cpu, _ = timed(action)
            seconds[side].append(cpu)
        if convolves and "usual" in sides:
            seconds.setdefault("convolutions", []).append(passes * convolutions(plain, x, 512 if x[0].numel() < 1000 else 16))
    sweep(zoo, pairs, task, **settings)
    _, _, cached_wall = min((timed(lambda: sweep(zoo, pairs, task, **settings)) for _ in range(3)), key=lambda r: r[2])

    ratio = lambda a, b: statistics.median(x / y for x, y in zip(seconds[a], seconds[b]))
    result = dict(
        network=str(network), task=repr(task), pairs=n_pairs, points=points, repeats=repeats,
        sweep_cpu_s=statistics.median(seconds["sweep"]), cached_sweep_wall_ms=1000 * cached_wall,
        mean_barrier=float(barriers(found["sweep"]).loss_barrier.mean()),
    )
    if "usual" in sides:
        ours = found["sweep"].pivot_table(index=["second", "split"], columns="t", values="loss").to_numpy().reshape(n_pairs, 2, points)
        difference = abs(ours - found["usual"][..., 0].transpose(1, 2).flip(1).numpy()).max()  # pivoting sorts: test, train
        result |= dict(
            usual_cpu_s=statistics.median(seconds["usual"]), sweep_over_usual=ratio("usual", "sweep"),
            largest_loss_difference=float(difference),  # of definitions too: usual BatchNorm keeps 0.9^batches of stale statistics
        )
    if has_batchnorm(lines.module):
        result |= dict(largest_relative_difference_from_update_bn=max(from_update_bn(ends, task, found["sweep"], pair[1]) for ends, pair in zip(modules, pairs)))
    if "adaptive" in sides:
        both = barriers(found["sweep"]).merge(found["adaptive"], on=["first", "second", "split"], suffixes=("", "_adaptive"))
        result |= dict(
            adaptive_cpu_s=statistics.median(seconds["adaptive"]), adaptive_over_sweep=ratio("sweep", "adaptive"),
            adaptive_evaluations=float(found["adaptive"].evaluations.mean()),
            adaptive_missed_at_most=float(both.missed.max()),
            adaptive_really_missed=float((both.loss_barrier - both.loss_barrier_adaptive).max()),
        )
        if "usual" in sides: result |= dict(adaptive_over_usual=ratio("usual", "adaptive"))
        if "adaptive_101" in sides: result |= dict(adaptive_101_over_adaptive=1 / ratio("adaptive", "adaptive_101"))  # cost of five times as many points
    if "convolutions" in seconds:  # what no engine can go below that evaluates every point once
        result |= dict(convolutions_of_one_pass_cpu_s=statistics.median(seconds["convolutions"]), convolutions_over_usual=ratio("usual", "convolutions"))
    print(name, json.dumps(result, indent=1), flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all if none is given")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    environment = dict(starscape=starscape.__version__, torch=torch.__version__, python=platform.python_version(), machine=platform.machine(), threads=1, seconds="CPU")
    for name in args.cases or CASES:
        found[name] = run(name) | dict(environment=environment)
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
