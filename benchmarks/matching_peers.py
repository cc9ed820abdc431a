"""Weight matching of trained ResNet-18s against other packages, paired in one run, in CPU seconds on one thread.

    python -m venv /tmp/peers && /tmp/peers/bin/pip install -e . rebasin==0.0.47
    git clone https://github.com/themrzmaster/git-re-basin-pytorch /tmp/git-re-basin-pytorch
    OMP_NUM_THREADS=1 /tmp/peers/bin/python benchmarks/matching_peers.py FOLDER --port /tmp/git-re-basin-pytorch

Models are those of matching_models.py, kept in FOLDER. Each round matches model 1 to model 0 once with every package, with
the round's seed, in turns; the objective is the inner product of the two models' parameters after matching, measured
on the permuted states themselves. `port` (git-re-basin-pytorch) is given starscape's groups, since its own
specifications lack BatchNorm. Then sources, which are the trained models under random permutations, are matched to one
reference: 16 of them with one thread and with two, and 50 with one. Seconds by the clock say nothing where others use
the machine, so the load before each run stands beside them; in the committed run the four runs of 16 sources were put
before the others' work (`echo -20 > /proc/PID/autogroup`), the 50 were not. What is not installed is left out; `--rounds 0` keeps the
pairs measured before. Writes benchmarks/matching_peers.json.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
from matching_models import SIDE, resnet18, trained

from starscape.matching import Matcher, match_many, match_weights
from starscape.symmetry import PermutationSymmetry


def spec_of(symmetry, state):
    "Axis by axis the group of each parameter that is moved, as the ports of Git Re-Basin take it."
    one = lambda axis: axis[0][0].groups[0] if axis[0] and axis[0][0].groups else None
    return {name: tuple(map(one, symmetry.axes[name])) for name in state if name not in symmetry.buffers}


def starscape_peer(symmetry, a, b, seed):
    return symmetry.apply(match_weights(symmetry, a, b, seed=seed), b)


def port_peer(port):
    sys.path.insert(0, str(port))
    from utils.weight_matching import apply_permutation, permutation_spec_from_axes_to_perm, weight_matching

    def run(symmetry, a, b, seed):
        axes = spec_of(symmetry, a)
        spec, a, kept = permutation_spec_from_axes_to_perm(axes), {k: a[k] for k in axes}, {k: b[k] for k in axes}
        torch.manual_seed(seed)
        with contextlib.redirect_stdout(io.StringIO()):
            permutation = weight_matching(spec, a, kept)
        permutation = {group: p.long() for group, p in permutation.items()}
        return b | apply_permutation(spec, permutation, kept)

    return run


def rebasin_peer():
    from rebasin import PermutationCoordinateDescent

    def run(symmetry, a, b, seed):
        first, second = resnet18().eval(), resnet18().eval()
        first.load_state_dict(a), second.load_state_dict(b)
        torch.manual_seed(seed)
        PermutationCoordinateDescent(first, second, torch.randn(2, 1, SIDE, SIDE)).rebasin()
        return second.state_dict()

    return run


def inner_product(symmetry, a, b):
    return sum((a[k].double() * b[k].double()).sum().item() for k in a if k not in symmetry.buffers)


def floor(plan_work, seconds):
    "CPU seconds of the multiplications at the rate of a large matrix product here."
    x, y = torch.randn(512, 4608), torch.randn(4608, 512)
    start = time.process_time()
    for _ in range(5):
        x @ y
    rate = 5 * 2 * 512 * 512 * 4608 / (time.process_time() - start)
    return dict(gemm_gflop_per_s=round(rate / 1e9, 1), one_pass_gflop=round(2 * plan_work / 1e9, 1),
                one_pass_floor_s=round(2 * plan_work / rate, 3), of_measured=round(2 * plan_work / rate / seconds, 2))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--port", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--sources", type=int, default=50)
    parser.add_argument("--models", type=int, default=6)
    args = parser.parse_args()
    torch.set_num_threads(1)
    a, *others = [trained(args.folder, seed) for seed in range(args.models)]
    b = others[0]
    start = time.process_time()
    symmetry = PermutationSymmetry.of(resnet18(), torch.randn(2, 1, SIDE, SIDE))
    derived = time.process_time() - start
    peers = {"starscape": starscape_peer}
    if args.port:
        peers["git-re-basin-pytorch"] = port_peer(args.port)
    with contextlib.suppress(ImportError):
        peers["rebasin"] = rebasin_peer()
    seconds, values = {name: [] for name in peers}, {name: [] for name in peers}
    starscape_peer(symmetry, a, b, 0)  # the first call loads libraries
    for seed in range(args.rounds):
        for name, run in peers.items():
            start = time.process_time()
            matched = run(symmetry, a, b, seed)
            seconds[name].append(time.process_time() - start)
            values[name].append(inner_product(symmetry, a, matched))
            print(f"round {seed} {name:22} {seconds[name][-1]:7.2f} CPU s  objective {values[name][-1]:.1f}", flush=True)
    out = Path(__file__).with_suffix(".json")
    if args.rounds:
        result = dict(pair=compared(seconds, values), symmetry_cpu_s=round(derived, 2),
                      floor=floor(Matcher(symmetry, [b])._work(), statistics.mean(seconds["starscape"])))
    else:
        result = {key: value for key, value in json.loads(out.read_text()).items() if key in ("pair", "symmetry_cpu_s", "floor")}
    result["many"] = many(symmetry, a, others, args.sources)
    environment = dict(python=platform.python_version(), torch=torch.__version__, machine=platform.machine(), threads=1)
    out.write_text(json.dumps(dict(environment=environment, **result), indent=1) + "\n")
    print(json.dumps(result, indent=1))


def compared(seconds, values):
    "One row for each package."
    ours = seconds["starscape"]
    return [
        dict(package=name, cpu_seconds=round(statistics.mean(seconds[name]), 3),
             cpu_seconds_all=[round(s, 3) for s in seconds[name]],
             times_starscape=round(statistics.median(s / o for s, o in zip(seconds[name], ours, strict=True)), 2),
             mean_objective=round(statistics.mean(values[name]), 2), best_objective=round(max(values[name]), 2))
        for name in seconds
    ]


def many(symmetry, reference, models, count):
    "CPU and wall seconds of `match_many` with one thread and two, in turns; and of a second match from where the first ended."
    generator = torch.Generator().manual_seed(0)
    sources = [symmetry.apply(symmetry.random(generator), models[i % len(models)]) for i in range(count)]
    rows = []
    for n, jobs in ((16, 1), (16, 2), (16, 1), (16, 2), (count, 1)):
        load, wall, cpu = os.getloadavg()[0], time.perf_counter(), time.process_time()
        match_many(symmetry, reference, sources[:n], n_jobs=jobs)
        rows.append(dict(sources=min(n, count), threads=jobs, cpu_seconds=round(time.process_time() - cpu, 2),
                         wall_seconds=round(time.perf_counter() - wall, 2), load=round(load, 1)))
        print(rows[-1], flush=True)
    matcher = Matcher(symmetry, sources[:10])
    first = matcher.match(reference, n_jobs=1)
    moved = {k: v + 0.01 * v.std() * torch.randn_like(v) if v.is_floating_point() and v.numel() > 1 else v
             for k, v in reference.items()}
    cpu = time.process_time()
    matcher.match(moved, init=first, n_jobs=1)
    rows.append(dict(sources=10, threads=1, warm=True, cpu_seconds=round(time.process_time() - cpu, 2)))
    return rows


if __name__ == "__main__":
    main()
