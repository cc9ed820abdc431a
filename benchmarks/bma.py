"""A Figure-4 curve (S = 2 … 19) by running averages, against calling all S models again for each S.

`python benchmarks/bma.py [FOLDER]` trains 4 sources and a star per row (kept in FOLDER, if given) and writes bma.json.

The authors' way is written here as their code has it (`recalculate_batch_statistics` and `extensive_evaluation` of
aktsonthalia/starlight; the loop over S is not published): one list of 19 copies of the network, drawn once and, with
BatchNorm, recalibrated once by a pass of a DataLoader in training mode; then for each S the first S of them are called
on every batch of a DataLoader, with torchmetrics' AUROC at 20 thresholds (twice) and calibration error (twice). That is
19 recalibrations and 189 passes over the test data; ours are 19 and 19, with eleven scores. Rows:

`authors`   the whole curve, from drawing to scores, each side in its own way
`forwards`  drawn and recalibrated models to scores: the same batches, scores and memory layout on both sides
`whole`     drawing and our recalibration added to both sides of `forwards`: what is left when only the calls differ

Where there is BatchNorm the ratio is bounded by the recalibrations, which both sides need once a model: on digits a pass
over the training data costs four times a pass over the test data, two thirds of it in convolutions.

Both sides draw the same models from the star posterior. CPU seconds, one thread, the two sides in turn in one run. Peak
memory is that of a fresh process, above what it held before the first model was drawn.
"""
import argparse
import copy
import os
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import torch
from _common import paired, save
from torch.utils.data import DataLoader, TensorDataset

from starscape.data import load_task, require_torchvision
from starscape.interpolation import has_batchnorm, recalibrate
from starscape.networks import Network
from starscape.star_training import train_star
from starscape.training import Recipe, _memory_format, generator_for, train_population
from starscape.uncertainty import Posterior, member_probabilities, outcomes, posterior_of, running_averages, scores

require_torchvision()  # torchmetrics imports it
from torchmetrics.classification import BinaryAUROC, BinaryCalibrationError, MulticlassCalibrationError  # noqa: E402

torch.set_num_threads(1)

ROWS = {
    "mlp 64 × 3, digits": ("digits", Network("mlp", width=64, depth=3), 10),
    "mlp 512 × 3, MNIST-5k": ("mnist5k", Network("mlp", width=512, depth=3), 2),
    "ResNet-8 (BatchNorm), digits": ("digits", Network("resnet", width=16), 2),
}
SAMPLES = range(2, 20)
SEED = 0


def prepare(folder, row):
    name, network, epochs = ROWS[row]
    task = load_task(name)
    zoo = train_population(task, network, Recipe(epochs=epochs), Path(folder) / row, n_sources=4, n_heldout=0)
    train_star(task, zoo, Recipe(epochs=epochs))
    module = _memory_format(zoo.network_of("star-000").build(), task.train_x[:2]).eval()  # as `bma` has it
    return task, module, posterior_of(zoo, task, "star", device="cpu")


def draws():
    return generator_for(SEED, "bma", 0)


def running(task, module, posterior, counts=SAMPLES):
    "Our way: each model is drawn, called once, and forgotten."
    labels = task.test_y.numpy()
    members = member_probabilities(posterior, max(counts), module, task, task.test_x, draws())
    return [scores(outcomes(p, labels)) for _, p, _ in running_averages(members, counts)]


def model_list(task, module, posterior, n):
    "The models of the repeated way."
    models = []
    for state in islice(posterior.draws(draws()), n):
        model = copy.deepcopy(module)
        model.load_state_dict(state)
        models.append(recalibrate(model, task).eval())
    return models


@torch.no_grad()
def repeated(task, models, counts=SAMPLES):
    "The repeated way: for each S the first S models are called again."
    labels, found = task.test_y.numpy(), []
    for s in counts:
        p = torch.cat([torch.stack([m(x).double().softmax(-1) for m in models[:s]]).mean(0) for x in task.test_x.split(2000)])
        found.append(scores(outcomes(p.numpy(), labels)))
    return found


class Ready(Posterior):
    "Draws that were made before: what is left is calling them."
    mixes = False

    def __init__(self, models):
        self.states = [m.state_dict() for m in models]

    def draws(self, generator):
        yield from self.states


def authors(task, module, posterior, counts=SAMPLES, batch_size=128):
    "The authors' way: accuracy, AUROC twice and calibration error twice for each S."
    train, test = (DataLoader(TensorDataset(*task.split(split)), batch_size=batch_size) for split in ("train", "test"))
    models = []
    for state in islice(posterior.draws(draws()), max(counts)):
        model = copy.deepcopy(module).to(memory_format=torch.contiguous_format)
        model.load_state_dict(state)
        if has_batchnorm(model):
            model.train()
            for x, _ in train:
                model(x)
        models.append(model)
    return [evaluation(models[:s], test, task.num_classes) for s in counts]


@torch.no_grad()
def evaluation(models, loader, num_classes):
    for model in models:
        model.eval()
    correct = total = 0
    of_probability, of_entropy = BinaryAUROC(thresholds=20), BinaryAUROC(thresholds=20)
    ece, ece_of_error = MulticlassCalibrationError(num_classes), BinaryCalibrationError()
    for x, y in loader:
        p = torch.stack([model(x).softmax(1) for model in models]).mean(0)
        right, confidence = p.argmax(1) == y, p.max(1).values
        correct, total = correct + right.sum().item(), total + len(y)
        ece.update(p, y)
        of_probability.update(confidence, right)
        of_entropy.update(1 + (p * p.log()).sum(1), right)
        ece_of_error.update(confidence, right)
    scores = dict(auroc_max_prob=of_probability, auroc_entropy=of_entropy, ece=ece, ece_of_error=ece_of_error)
    return dict(accuracy=correct / total) | {k: metric.compute().item() for k, metric in scores.items()}


def agree(mine, other, keys=None):
    "The two ways must come to the same scores; a tie of rounded confidences may be broken differently."
    worst = max(abs(x[k] - y[k]) for x, y in zip(mine, other) for k in keys or x if not np.isnan(x[k]))
    if worst > 1e-4:
        raise AssertionError(f"the two ways differ by {worst}")
    return worst


def measure(folder, row):
    task, module, posterior = prepare(folder, row)
    n = max(SAMPLES)
    ready = model_list(task, module, posterior, n)
    mine, theirs = running(task, module, posterior), authors(task, module, posterior)
    difference = agree(mine, repeated(task, ready))
    if not has_batchnorm(module):  # theirs are momentum statistics
        agree(mine, theirs, ["accuracy"])
    sides = {
        "authors": (lambda: running(task, module, posterior), lambda: authors(task, module, posterior)),
        "forwards": (lambda: running(task, module, Ready(ready)), lambda: repeated(task, ready)),
        "whole": (lambda: running(task, module, posterior), lambda: repeated(task, model_list(task, module, posterior, n))),
    }
    largest = dict(authors=max(abs(x["accuracy"] - y["accuracy"]) for x, y in zip(mine, theirs)), forwards=difference, whole=difference)
    return [dict(network=row, what=what, **paired(*two, runs=5), largest_difference=largest[what]) for what, two in sides.items()]


def high_water():
    "Most memory resident at once since the mark was last reset, in kilobytes (Linux)."
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def peak(folder, row, way, n):
    "Megabytes that this process needs for the average of n models, above those it held before."
    task, module, posterior = prepare(folder, row)
    running(task, module, posterior, [2])  # first calls allocate what stays
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = high_water()
    if way == "running":
        running(task, module, posterior, [n])
    else:
        repeated(task, model_list(task, module, posterior, n), [n])
    return (high_water() - before) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="where the models are kept")
    parser.add_argument("--peak", nargs=3, metavar=("ROW", "WAY", "S"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = args.folder or tempfile.mkdtemp()
    if args.peak:
        print(peak(folder, args.peak[0], args.peak[1], int(args.peak[2])))
        return
    rows = [found for row in ROWS for found in measure(folder, row)]
    memory_row, memory = "mlp 512 × 3, MNIST-5k", {}
    for way in ("running", "repeated"):
        for n in (19, 95):
            command = [sys.executable, __file__, folder, "--peak", memory_row, way, str(n)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            memory[f"{way}, S = {n}"] = round(float(out.splitlines()[-1]), 1)
    print(memory)
    save("bma", rows, samples=[min(SAMPLES), max(SAMPLES)], peak_megabytes={memory_row: memory})


if __name__ == "__main__":
    main()
