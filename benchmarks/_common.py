"What the benchmarks share: paired timing in one run, and results beside the environment they came from."
import json
import os
import platform
import statistics
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent


def environment() -> dict:
    "What decides a timing, beside the code."
    return dict(
        processor=platform.machine(),
        cpus=os.cpu_count(),
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        python=platform.python_version(),
        torch=str(torch.__version__),
        load_at_start=round(os.getloadavg()[0], 1),
    )


def cpu_seconds(action) -> float:
    "CPU time of this process, which other processes on the machine disturb less than they disturb the clock."
    began = time.process_time()
    action()
    return time.process_time() - began


def paired(ours, theirs, runs: int = 5, measure=cpu_seconds) -> dict:
    "Both in turn, ours first, after one warm-up each: medians, and the median of the ratios pair by pair."
    ours(), theirs()
    times = [(measure(ours), measure(theirs)) for _ in range(runs)]
    ratio = [b / a for a, b in times]
    return dict(
        ours_s=round(statistics.median(a for a, _ in times), 4),
        theirs_s=round(statistics.median(b for _, b in times), 4),
        ratio=round(statistics.median(ratio), 2),
        ratio_range=[round(min(ratio), 2), round(max(ratio), 2)],
        runs=runs,
    )


def save(name: str, rows: list[dict], **notes) -> None:
    "Write `benchmarks/NAME.json`, and print a table."
    import pandas as pd

    print(pd.DataFrame(rows).to_string(index=False))
    (HERE / f"{name}.json").write_text(json.dumps(dict(environment=environment(), **notes, rows=rows), indent=1) + "\n")
