"""What checkpoints cost: CPU seconds of training with and without, one thread, in turn in one run; then what one write costs.

`python benchmarks/checkpoints.py` writes checkpoints.json. With a path, the state is copied at the start of each epoch, so
that an interrupt loses less than one; `share_copies` is that cost. A file is written every 30 s at the most, and seldomer
where a write takes more than 0.6 s: `share_writes` is its time over 30 s. Their sum is to stay below 0.02."""
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TQDM_DISABLE"] = "1"

import tempfile
import time
from pathlib import Path

import torch
from _common import paired, save

from starscape.data import load_task
from starscape.networks import Network
from starscape.training import Checkpoint, Recipe, _train_one, _train_stack, generator_for

torch.set_num_threads(1)


def row(task, models, epochs, name, **settings):
    network, recipe, folder = Network.of(Network(name, **settings), task), Recipe(epochs=epochs), Path(tempfile.mkdtemp())

    def work(path):
        modules, generators = [network.build(i) for i in range(models)], [generator_for(i, "order") for i in range(models)]
        checkpoint = Checkpoint(path, {}, every=30.0)
        if models > 1:
            _train_stack(modules, task, recipe, generators, checkpoint)
        else:
            _train_one(modules[0], task, recipe, generators[0], checkpoint)

    timing = paired(lambda: work(folder / "a.safetensors"), lambda: work(None), runs=7)
    tensors = {f"{i}.{k}.{copy}": v.clone() for i in range(models) for k, v in network.build(i).state_dict().items() for copy in ("value", "momentum")}
    checkpoint, seconds = Checkpoint(folder / "b.safetensors", {}), []
    for _ in range(5):
        began = time.perf_counter()
        checkpoint.save(tensors, 0)
        seconds.append(time.perf_counter() - began)
    write = sorted(seconds)[2]
    copies = 1 / timing["ratio"] - 1 if timing["ratio"] else 0.0
    return dict(network=repr(network), models=models, epochs=epochs, **timing, write_s=round(write, 4), share_copies=round(copies, 4), share_writes=round(write / max(30, 50 * write), 4))


if __name__ == "__main__":
    digits = load_task("digits")
    rows = [row(digits, 20, 10, "mlp", width=64, depth=3), row(digits, 1, 20, "mlp", width=512, depth=3), row(digits, 1, 1, "resnet", width=16)]
    save("checkpoints", rows, note="ratio is without / with checkpoints: 0.98 is a cost of 2 %")
