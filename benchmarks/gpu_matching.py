"""Re-alignment of 50 ResNet-18 sources on one GPU: score matrices on the device, assignments on CPU threads beside it.

`python benchmarks/gpu_matching.py [--sources 50] [--threads N]` needs the compute modules alone. Weights are random, so that
nothing has to be trained; the second match starts from the permutations of the first and a reference that has moved by
1 %, as in star training. Prints what it measured. On a machine without CUDA it says that nothing was run; `--tiny` runs
all of it on a processor, on three small networks, to see that it works.
"""

import argparse
import json
import os
import sys
import time

import torch

from starscape.matching import Matcher
from starscape.networks import build_network
from starscape.symmetry import PermutationSymmetry


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sources", type=int, default=50)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    if not (args.tiny or torch.cuda.is_available()):
        sys.exit("There is no CUDA device here: nothing was run, nothing was measured.")
    device = torch.device("cpu" if args.tiny else "cuda")
    sources, width = (3, 4) if args.tiny else (args.sources, 64)
    make = lambda: build_network("resnet18", width=width, input_shape=(3, 32, 32), num_classes=10)
    symmetry = PermutationSymmetry.of(make(), torch.randn(2, 3, 32, 32))
    drawn = lambda seed: (torch.manual_seed(seed), make().state_dict())[1]
    reference, *states = [{k: v.to(device) for k, v in drawn(seed).items()} for seed in range(sources + 1)]
    matcher = Matcher(symmetry, states, device=device)
    matcher.match(reference, n_jobs=1, max_sweeps=1)  # loads libraries
    first, seconds = timed(device, lambda: matcher.match(reference, n_jobs=args.threads))
    moved = {k: v + 0.01 * v.std() * torch.randn_like(v) if v.is_floating_point() and v.numel() > 1 else v
             for k, v in reference.items()}
    _, again = timed(device, lambda: matcher.match(moved, init=first, n_jobs=args.threads))
    gpu = device.type == "cuda"
    print(json.dumps(dict(device=torch.cuda.get_device_name() if gpu else "cpu", torch=torch.__version__, sources=sources,
                          threads=args.threads, match_s=round(seconds, 2), realign_s=round(again, 2),
                          peak_gib=round(torch.cuda.max_memory_allocated() / 2**30, 2) if gpu else None), indent=1))


def timed(device, action):
    wait = lambda: torch.cuda.synchronize() if device.type == "cuda" else None
    wait()
    start = time.perf_counter()
    result = action()
    wait()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
