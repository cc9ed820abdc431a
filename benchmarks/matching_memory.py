"""Peak memory of weight matching, in units of the two models that are matched.

`python benchmarks/matching_memory.py` runs each case in a process of its own and writes benchmarks/matching_memory.json:
bytes of both models, the most memory that the process held over what it held with both models, and
(models + growth) / models. The transformer is `layers` pre-norm blocks of width d with a 4 d feed-forward, the shape for
which nbs/tutorials/costs.ipynb counts what matching a billion parameters needs.
"""

import ctypes
import gc
import json
import resource
import subprocess
import sys
import threading
from pathlib import Path

import torch
from torch import nn

from starscape.matching import match_weights
from starscape.networks import build_network
from starscape.symmetry import PermutationSymmetry

CASES = {
    "resnet18 width 64": lambda: (build_network("resnet18", width=64, input_shape=(3, 32, 32)), torch.randn(2, 3, 32, 32)),
    "resnet18 width 256": lambda: (build_network("resnet18", width=256, input_shape=(3, 32, 32)), torch.randn(2, 3, 32, 32)),
    "transformer d 512, 8 layers": lambda: (transformer(512, 8), torch.randn(2, 4, 16)),
    "transformer d 1024, 12 layers": lambda: (transformer(1024, 12), torch.randn(2, 4, 16)),
}


def transformer(d, layers):
    block = nn.TransformerEncoderLayer(d, 8, 4 * d, batch_first=True, norm_first=True)
    body = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
    return nn.Sequential(nn.Linear(16, d), body, nn.Linear(d, 10))


def held() -> int:
    "Bytes that the process has allocated and holds now; pages of libraries come and go with what else the machine does."
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


class Peak(threading.Thread):
    "The most that is held, looked up 500 times a second."

    def __enter__(self):
        self.most, self.over = held(), threading.Event()
        self.start()
        return self

    def run(self):
        while not self.over.wait(0.002):
            self.most = max(self.most, held())

    def __exit__(self, *_):
        self.over.set()
        self.join()


def measure(name):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, x = CASES[name]()
    symmetry = PermutationSymmetry.of(model, x)
    a = {k: v.detach().clone() for k, v in model.state_dict().items()}
    b = {k: torch.randn_like(v) * 0.02 if v.is_floating_point() else v.clone() for k, v in a.items()}
    del model
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what tracing left behind would hide growth
    size, before = sum(v.nbytes for s in (a, b) for v in s.values()), held()
    with Peak() as peak:
        match_weights(symmetry, a, b, max_sweeps=1)
    growth = peak.most - before
    seconds = resource.getrusage(resource.RUSAGE_SELF)
    return dict(case=name, parameters=size // 8, models_mb=round(size / 1e6, 1), growth_mb=round(growth / 1e6, 1),
                times_the_models=round((size + growth) / size, 2), cpu_seconds=round(seconds.ru_utime + seconds.ru_stime, 1))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        run = lambda name: subprocess.run([sys.executable, __file__, name], check=True, capture_output=True, text=True).stdout
        rows = [json.loads(run(name).splitlines()[-1]) for name in CASES]
        Path(__file__).with_suffix(".json").write_text(json.dumps(dict(torch=torch.__version__, rows=rows), indent=1) + "\n")
        print(json.dumps(rows, indent=1))
