"""Tables and figures of the paper, computed and written down as CSV files beside this script.

    python benchmarks/paper/run.py digits              # minutes on two cores
    python benchmarks/paper/run.py mnist5k             # nine minutes of CPU time on one core
    python benchmarks/paper/run.py mnist5k-gpu         # ResNet-18 and WRNs; wants a GPU
    python benchmarks/paper/run.py paper --root DATA   # the paper itself, which is work for many GPUs
    python benchmarks/paper/run.py paper --root DATA --settings "resnet18 on cifar10" --only table1 figure3

Models and measurements are kept under --folder; an interrupted run goes on where it was, and several processes may
work on one folder. Results of `digits` and `mnist5k` were computed on a CPU; nothing here was run on a GPU yet.
"""
import argparse
import time
from dataclasses import replace
from pathlib import Path

from starscape.paper import RESULTS, scale_of

here = Path(__file__).parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("scale", choices=["digits", "mnist5k", "mnist5k-gpu", "paper"])
parser.add_argument("--only", nargs="+", choices=list(RESULTS), default=list(RESULTS), help="the tables and figures to compute; all if not given")
parser.add_argument("--settings", nargs="+", help="names of the settings to keep: rows of Table 1; all if not given")
parser.add_argument("--folder", type=Path, default=Path("build/paper"), help="where models and measurements are kept")
parser.add_argument("--out", type=Path, default=here, help="where the CSV files go")
parser.add_argument("--root", help="where the datasets are")
parser.add_argument("--download", action="store_true", help="fetch those that can be fetched")
parser.add_argument("--device", help="cuda, cpu, …; the best there is if not given")
args = parser.parse_args()

scale = scale_of(args.scale)
if args.settings:
    kept = tuple(s for s in scale.settings if s.name in args.settings)
    names = [s.name for s in kept]
    scale = replace(scale, settings=kept, main=tuple(n for n in scale.main if n in names) or tuple(names[:1]))
args.out.mkdir(parents=True, exist_ok=True)
for name in args.only:
    began = time.process_time()
    result = RESULTS[name](scale, args.folder / args.scale, root=args.root, download=args.download, device=args.device)
    path = result.save(args.out / f"{args.scale}-{name}.csv")
    print(f"{path}: {len(result.frame)} rows, {time.process_time() - began:.0f} s of CPU time", flush=True)
