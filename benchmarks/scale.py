"""Star training against the number of sources |Z|: memory, time, and what it changes that only drawn sources are aligned.

`python benchmarks/scale.py` takes about two minutes on one core and writes benchmarks/scale.json.

- "memory": an MLP of 60,000 parameters (width 128, depth 3) on digits, three epochs in batches of 16 (89 draws an epoch),
  from 10, 100 and 1,000 sources. Their weights are random, which costs as much memory as trained ones. Each case in a process
  of its own; `growth_mb` is the highest resident memory (VmHWM, mapped files included) while it trains, above what it was
  when everything was imported and the zoo was open. `memory_mb` is what `train_star` may keep of the sources.
- "schedule": 100 sources (width 32, depth 2) and batches of 256, so that an epoch draws 5 of them. Algorithm 1 aligns all
  100 at the start of each of 120 epochs; we align those that are drawn. Five seeds of the star; train-loss barriers to 10
  held-out models; CPU seconds of one thread.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from _common import environment

from starscape.barriers import barriers, pairs_of, sweep
from starscape.data import load_task
from starscape.networks import Network
from starscape.star_training import _Starlight, train_star
from starscape.training import Recipe, train_population
from starscape.zoo import Zoo

SIZES, MEMORIES = (10, 100, 1000), (2**22, 2**30)


def peak_kb() -> int:
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)


def fill(zoo: Zoo, network: Network, n: int) -> None:
    for i in range(len(zoo), n):
        zoo.add(f"source-{i:04}", network.build(seed=i), role="source", network=network)


def measure(path: str, n: int, memory: int) -> dict:
    "In a process of its own."
    torch.set_num_threads(1)
    task, zoo = load_task("digits"), Zoo(path)
    names = zoo.sources[:n]
    train_star(task, zoo, Recipe(epochs=1, batch_size=256), sources=names[:2], name="warm-up", memory=memory)  # what every training needs
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, began = peak_kb(), time.process_time()
    train_star(task, zoo, Recipe(epochs=3, batch_size=16), sources=names, name="measured", memory=memory)
    row = dict(sources=n, memory_mb=memory / 2**20, growth_mb=round((peak_kb() - before) / 1024, 1), cpu_seconds=round(time.process_time() - began, 2),
               sources_mb=round(n * sum(v.nbytes for v in zoo.state(names[0]).values()) / 1e6, 1))
    for star in ("warm-up", "measured"):
        zoo.remove(star)
    return row


def memory_rows(folder: Path) -> list[dict]:
    zoo, task = Zoo(folder / "random"), load_task("digits")
    fill(zoo, Network.of(Network("mlp", width=128, depth=3), task), max(SIZES))
    run = lambda *args: subprocess.run([sys.executable, __file__, *map(str, args)], check=True, capture_output=True, text=True, env=os.environ | {"TQDM_DISABLE": "1"}).stdout
    return [json.loads(run(zoo.path, n, memory).splitlines()[-1]) for memory in MEMORIES for n in SIZES]


def schedule_rows(folder: Path) -> list[dict]:
    torch.set_num_threads(1)
    task = load_task("digits")
    zoo = train_population(task, Network("mlp", width=32, depth=2), Recipe(epochs=30), folder / "trained", n_sources=100, n_heldout=10)
    missing, rows = _Starlight.missing, []
    for schedule in ("drawn", "all"):
        if schedule == "all":
            _Starlight.missing = lambda self, window, draws: missing(self, window, torch.arange(len(self.names)))
        found, seconds = [], []
        for seed in range(5):
            began = time.process_time()
            star = train_star(task, zoo, Recipe(epochs=120, batch_size=256), seed=seed, name=f"{schedule}-{seed}")
            seconds.append(time.process_time() - began)
            frame = barriers(sweep(zoo, [p for p in pairs_of(zoo, "star-heldout", limit=None) if star in p], task, points=11))
            found.append(frame[frame.split == "train"].loss_barrier.mean())
        _Starlight.missing = missing
        losses = [zoo.metadata(f"{schedule}-{seed}")["metrics"]["train_loss"] for seed in range(5)]
        rows.append(dict(aligned=schedule, barrier=round(statistics.mean(found), 4), barrier_std=round(statistics.stdev(found), 4),
                         own_train_loss=round(statistics.mean(losses), 4), cpu_seconds=round(statistics.median(seconds), 2)))
    return rows


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], *map(int, sys.argv[2:]))))
    else:
        with tempfile.TemporaryDirectory() as folder:
            memory, schedule = memory_rows(Path(folder)), schedule_rows(Path(folder))
        result = dict(environment=environment(), command="python benchmarks/scale.py", memory=memory, schedule=schedule,
                      cpu_seconds_in_all=round(sum(resource.getrusage(who).ru_utime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))))
        Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result, indent=1))
