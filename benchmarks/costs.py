"""How time and memory of each stage grow with width, depth, number of sources |Z|, points of a sweep, and data.

    python benchmarks/costs.py             # about 20 minutes on one core; writes benchmarks/costs.json

Stages: "population" (one model, one epoch; timed over two), "matching" (weights, one pair), "star" (one epoch from |Z| sources, with
their alignment), "sweep" (one pair, already aligned). One factor is varied at a time around an MLP of width 128 and depth 3
on 2,048 random inputs of 64 numbers, |Z| = 4, 11 points; and around a ResNet-8 with BatchNorm, whose depth is in blocks a stage. Random data cost
what real ones do; matching is of trained models. Seconds are CPU seconds of one thread, the median of three; memory is how
far the highest resident memory (VmHWM) rises above what was resident before, when all that was freed has been given back to
the system (malloc_trim), the median of three. "exponent" is the slope of log(cost) over log(factor) through the three largest
values, where fixed costs matter least; below 1 MB there is no slope of memory.

"lap": linear assignments of matching's kind by size. "resnet50": matching two ResNet-50 of ImageNet's shape (25.6 million parameters,
random weights), and their forward and backward passes on 224×224 images: what the page "Costs" extrapolates from.
"""
import ctypes
import gc
import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _common import environment

from starscape.barriers import alignment, sweep
from starscape.data import Task, require_torchvision
from starscape.matching import match_weights
from starscape.networks import Network
from starscape.star_training import train_star
from starscape.symmetry import PermutationSymmetry
from starscape.training import Recipe, train_population

BASE = {"mlp": dict(width=128, depth=3, sources=4, points=11, examples=2048), "resnet8": dict(width=16, depth=1, sources=2, points=5, examples=512)}
FACTORS = {
    "mlp": dict(width=(32, 64, 128, 256, 512, 1024), depth=(2, 4, 8, 16), sources=(2, 4, 8, 16, 32), points=(6, 11, 21, 41, 81), examples=(1024, 2048, 4096, 8192, 16384)),
    "resnet8": dict(width=(8, 16, 32, 64), depth=(1, 2, 4), sources=(2, 4, 8), points=(5, 9, 17), examples=(256, 512, 1024, 2048)),
}
TOUCHES = dict(population=("width", "depth", "examples"), matching=("width", "depth"), star=("width", "depth", "sources", "examples"), sweep=("width", "depth", "points", "examples"))
REPEATS = 3


def status_kb(field: str) -> int:
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))


def cost(action) -> dict:
    "CPU seconds and the rise of the highest resident memory in MB, both medians."
    seconds, memory = [], []
    action()
    for _ in range(REPEATS):
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # else freed memory serves again, and nothing rises
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before, began = status_kb("VmRSS"), time.process_time()
        action()
        seconds.append(time.process_time() - began)
        memory.append((status_kb("VmHWM") - before) / 1024)
    return dict(seconds=round(statistics.median(seconds), 5), memory_mb=round(statistics.median(memory), 2))


def random_task(kind: str, examples: int) -> Task:
    generator = torch.Generator().manual_seed(0)
    shape = (64,) if kind == "mlp" else (1, 16, 16)
    draw = lambda n: (torch.randn(n, *shape, generator=generator), torch.randint(10, (n,), generator=generator))
    return Task(f"random-{examples}", *draw(examples), *draw(examples // 4), num_classes=10)


def stages(kind: str, width, sources, points, examples, depth) -> dict:
    "Stage -> what runs it once."
    network = Network("mlp", width=width, depth=depth) if kind == "mlp" else Network("resnet", width=width, blocks=[depth] * 3)
    task, recipe = random_task(kind, examples), Recipe(epochs=2, batch_size=64, lr=0.01)
    zoo = train_population(task, network, Recipe(epochs=1, batch_size=64, lr=0.01), tempfile.mkdtemp(), n_sources=sources, n_heldout=1)
    symmetry = PermutationSymmetry.of(zoo.network("source-000"), task.train_x[:2])
    a, b = zoo.state("source-000"), zoo.state("heldout-000")
    alignment(zoo, "source-000", "heldout-000", task)

    def star():
        if "timed" in zoo.names:
            zoo.remove("timed")
        train_star(task, zoo, Recipe(epochs=1, batch_size=64, lr=0.01), name="timed")

    return dict(
        population=lambda: train_population(task, network, recipe, tempfile.mkdtemp(), n_sources=1, n_heldout=0),
        matching=lambda: match_weights(symmetry, a, b, seed=0),
        star=star,
        sweep=lambda: sweep(zoo, [("source-000", "heldout-000")], task, points=points, cached=False),
    )


def exponent(rows, value: str) -> float | None:
    "Slope of log(value) over log(factor) through the three largest."
    last = sorted(rows, key=lambda r: r["value"])[-3:]
    x, y = [math.log(r["value"]) for r in last], [r[value] for r in last]
    return round(float(np.polyfit(x, np.log(y), 1)[0]), 2) if min(y) > (value == "memory_mb") else None


def growth() -> tuple[list[dict], list[dict]]:
    rows, fits = [], []
    for kind, factors in FACTORS.items():
        for factor, values in factors.items():
            for value in values:
                actions = stages(kind, **(BASE[kind] | {factor: value}))
                for stage, touched in TOUCHES.items():
                    if factor in touched:
                        rows.append(dict(network=kind, stage=stage, factor=factor, value=value) | cost(actions[stage]))
                        print(rows[-1], flush=True)
            for stage in TOUCHES:
                here = [r for r in rows if (r["network"], r["stage"], r["factor"]) == (kind, stage, factor)]
                if here:
                    fits.append(dict(network=kind, stage=stage, factor=factor, time_exponent=exponent(here, "seconds"), memory_exponent=exponent(here, "memory_mb")))
    return rows, fits


def assignments() -> list[dict]:
    import lap

    rows = []
    for n in (128, 256, 512, 1024, 2048):
        gram = torch.randn(n, 4 * n, generator=torch.Generator().manual_seed(0))
        matrix = -(gram @ torch.randn(n, 4 * n, generator=torch.Generator().manual_seed(1)).T).numpy().astype(np.float64)
        began = time.process_time()
        lap.lapjv(matrix)
        rows.append(dict(size=n, seconds=round(time.process_time() - began, 4)))
        print(rows[-1], flush=True)
    return rows


def resnet50() -> dict:
    models = [require_torchvision().models.resnet50(weights=None).eval() for _ in range(2)]
    x = torch.randn(4, 3, 224, 224)
    began = time.process_time()
    symmetry = PermutationSymmetry.of(models[0], x[:1])
    derived = time.process_time() - began
    a, b = (m.state_dict() for m in models)
    Path("/proc/self/clear_refs").write_text("5")
    before, began = status_kb("VmRSS"), time.process_time()
    match_weights(symmetry, a, b, seed=0)
    matched, memory = time.process_time() - began, (status_kb("VmHWM") - before) / 1024
    model = models[0].to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward():
        model(x)

    def step():
        model.zero_grad()
        torch.nn.functional.cross_entropy(model.train()(x), torch.zeros(4, dtype=torch.long)).backward()

    per_image = lambda f: cost(f)["seconds"] / len(x)
    result = dict(parameters=sum(p.numel() for p in model.parameters()), derive_s=round(derived, 2), match_s=round(matched, 2), match_memory_mb=round(memory, 1),
                  forward_s_per_image=round(per_image(forward), 4), forward_and_backward_s_per_image=round(per_image(step), 4))
    print(result, flush=True)
    return result


def main():
    torch.set_num_threads(1)
    began, out = time.process_time(), Path(__file__).with_suffix(".json")
    parts = dict(resnet50=resnet50, lap=assignments, growth=growth)
    found = json.loads(out.read_text()) if out.exists() else {}
    for name in sys.argv[1:] or parts:
        result = parts[name]()
        found |= dict(rows=result[0], fits=result[1]) if name == "growth" else {name: result}
        found |= dict(environment=environment(), command="python benchmarks/costs.py", base=BASE)
        if not sys.argv[1:]:
            found["cpu_seconds_in_all"] = round(time.process_time() - began)
        out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
