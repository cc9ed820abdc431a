"""ResNet-18 on 32×32 images on a GPU: training, Starlight, a sweep, alignment; against the paper's eager loop in the same run.

`python benchmarks/gpu.py` writes gpu.json. Needs the compute modules alone. Data are random images with CIFAR-10's shapes:
speed does not depend on what is in them. `--tiny` runs all of it in a minute on a processor, to see that it works, and
writes nothing. Wall time, after warm-up, with the device waited for at both ends."""
import argparse
import copy
import os
import statistics
import tempfile
import time

os.environ["TQDM_DISABLE"] = "1"

import torch
from _common import environment, save
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from starscape.barriers import sweep
from starscape.data import Augment, Task, best_device, require_torchvision
from starscape.interpolation import interpolate, recalibrate, symmetry_for
from starscape.matching import Matcher
from starscape.networks import Network
from starscape.star_training import _Starlight
from starscape.training import Recipe, _memory_format, autocast, compiled, epoch_batches, evaluate, generator_for, make_optimizer, steps_per_epoch
from starscape.zoo import Zoo

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def waited(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(action, device, runs=3) -> float:
    "Median seconds of an action, after one to warm up."
    action()
    times = []
    for _ in range(runs):
        began = waited(device)
        action()
        times.append(waited(device) - began)
    return statistics.median(times)


def matmul_ceiling(device, n) -> float:
    "Floating-point operations a second of a large bfloat16 product: what this device gives at best."
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / seconds(lambda: [a @ b for _ in range(10)], device) * 10


def random_task(n_train, n_test) -> tuple[Task, torch.Tensor]:
    "A task of random images, and their bytes."
    g = torch.Generator().manual_seed(0)
    raw = torch.randint(256, (n_train + n_test, 3, 32, 32), dtype=torch.uint8, generator=g)
    y = torch.arange(n_train + n_test) % 10
    x = (raw.float() / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    task = Task("random images", x[:n_train], y[:n_train], x[n_train:], y[n_train:], augment=Augment(fill=tuple(-m / s for m, s in zip(MEAN, STD))))
    return task, raw[:n_train]


class Images(Dataset):
    "Images as torchvision's CIFAR gives them, with the paper's transforms."

    def __init__(self, raw, labels):
        t = require_torchvision().transforms
        self.images, self.labels = raw.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist()
        self.transform = t.Compose([t.ToPILImage(), t.RandomHorizontalFlip(), t.RandomCrop(32, padding=4), t.ToTensor(), t.Normalize(MEAN, STD)])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(self.images[i]), self.labels[i]


def authors_epoch(network, sources, raw, labels, batch, device, workers, star):
    """An epoch as the paper's code runs it, made once: data loader with workers, float32, loss and accuracy read at every
    step; with `star` the interpolated model built from flattened vectors. Its deterministic kernels are not asked for, which
    is to its advantage."""
    module = network.build(seed=0).to(device).train()
    anchors = [network.build(seed=s).to(device) for s in sources]
    between = copy.deepcopy(module)
    optimizer = torch.optim.SGD(module.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    loader = DataLoader(Images(raw, labels), batch, shuffle=True, num_workers=workers, pin_memory=device.type == "cuda", persistent_workers=workers > 0)

    def epoch():
        for x, y in loader:
            optimizer.zero_grad(set_to_none=True)
            x, y = x.to(device), y.to(device)
            if star:
                t, anchor = torch.rand(1).item(), anchors[torch.randint(len(anchors), (1,)).item()]
                ours, theirs = (torch.cat([p.reshape(-1) for p in m.parameters()]) for m in (module, anchor))
                line, start = (1 - t) * ours + t * theirs, 0
                for p in between.parameters():
                    p.data, start = line[start : start + p.numel()].view(p.size()), start + p.numel()
                    p.grad = None
                for m in between.modules():
                    if isinstance(m, torch.nn.BatchNorm2d):
                        m.reset_running_stats()
                logits = between(x)
            else:
                logits = module(x)
            loss = F.cross_entropy(logits, y)
            loss.backward()
            if star:
                for p, q in zip(between.parameters(), module.parameters()):
                    q.grad = p.grad * (1 - t)
            optimizer.step()
            loss.item(), (logits.argmax(1) == y).float().mean().item()

    return epoch


def sgd_epoch(network, task, recipe):
    "An epoch of ordinary training with our engine, made once."
    device = task.device
    module = _memory_format(network.build(seed=0).to(device), task.train_x[:2]).train()
    forward, params, generator = compiled(module, recipe, device), list(module.parameters()), generator_for(0, "order", device=device)
    optimizer = make_optimizer(params, recipe)

    def epoch():
        for x, y in epoch_batches(task, recipe, generator):
            with autocast(recipe, device):
                logits = forward(x)
            for p in params:
                p.grad = None
            F.cross_entropy(logits.float(), y).backward()
            optimizer.step()

    return epoch


def starlight_epoch(zoo, task, recipe):
    "An epoch of Starlight without its alignment, made once."
    run = _Starlight(task, zoo, recipe, zoo.network_of(zoo.sources[0]), zoo.sources, 0, t="uniform", mu=0.0, realign_every=10**9, init=None, pairs=1, ema=0.0, align_ahead=0)
    if run.gradient is not None:
        for p, g in zip(run.network.params, run.network.views(run.gradient)):
            p.grad = g
    optimizer = make_optimizer(run.leaves, recipe)
    run.before_epoch(0)

    def epoch():
        run.before_epoch(1)
        for i in range(run.steps):
            run.step(1, i)
            optimizer.step()

    return epoch


def bfloat16_difference(zoo, task, points) -> dict:
    "Losses along a line in float32 and with bfloat16 autocast: how far the barriers are apart."
    a, b = (zoo.state(s) for s in zoo.sources[:2])
    module = _memory_format(zoo.network_of(zoo.sources[0]).build().to(task.device), task.train_x[:2]).eval()
    ts, curves = torch.linspace(0, 1, points), {}
    for precision in ("float32", "bfloat16"):
        losses = []
        for t in ts.tolist():
            module.load_state_dict(interpolate(a, b, t))
            with autocast(Recipe(precision=precision), task.device):
                losses.append(evaluate(recalibrate(module, task), task, "test")["loss"])
        curves[precision] = torch.tensor(losses)
    height = {k: float((v - torch.lerp(v[0], v[-1], ts)).max()) for k, v in curves.items()}
    return dict(barrier_float32=height["float32"], barrier_bfloat16=height["bfloat16"], largest_loss_difference=float((curves["float32"] - curves["bfloat16"]).abs().max()))


def peak(device) -> float | None:
    "Gigabytes."
    return round(torch.cuda.max_memory_allocated(device) / 2**30, 3) if device.type == "cuda" else None


def measure(device, tiny: bool, compile_too: bool) -> list[dict]:
    n_train, n_test, n_sources, batches, width = (256, 128, 3, (32,), 8) if tiny else (50_000, 10_000, 50, (128, 512), 64)
    workers, points, runs = (0, 3, 1) if tiny else (8, 21, 3)
    task, raw = random_task(n_train, n_test)
    labels, task = task.train_y, task.to(device)
    network = Network.of(Network("resnet18", width=width), task)
    zoo = Zoo(tempfile.mkdtemp())
    for i in range(n_sources):
        zoo.add(f"source-{i:03}", network.build(seed=i), role="source", network=network)
    with FlopCounterMode(display=False) as counter:
        network.build(seed=0)(torch.zeros(1, 3, 32, 32))
    per_image, ceiling, rows = 3 * counter.get_total_flops(), matmul_ceiling(device, 256 if tiny else 8192), []
    for batch in batches:
        recipe = Recipe(epochs=1, batch_size=batch, precision="bfloat16", compile=compile_too)
        eager = Recipe(epochs=1, batch_size=batch)
        images, few = steps_per_epoch(task, recipe) * batch, raw if tiny else raw[: 40 * batch]
        for what, star in (("SGD", False), ("Starlight", True)):
            theirs = seconds(authors_epoch(network, range(2), few, labels[: len(few)], batch, device, workers, star), device, runs) / len(few)
            for precision, settings in (("bfloat16", recipe), ("float32", eager)):
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                ours = seconds(starlight_epoch(zoo, task, settings) if star else sgd_epoch(network, task, settings), device, runs) / images
                rows.append(dict(what=what, batch=batch, precision=precision, compiled=settings.compile, images_per_s=round(1 / ours), authors_images_per_s=round(1 / theirs), ratio=round(theirs / ours, 2),
                                 share_of_matmul=round(per_image / ours / ceiling, 3), peak_gb=peak(device)))
    pair = [tuple(zoo.sources[:2])]
    rows.append(dict(what=f"sweep of {points} points over {n_train:,} images", seconds=round(seconds(lambda: sweep(zoo, pair, task, points=points, splits=("train",), cached=False, device=device), device, runs), 3), peak_gb=peak(device)))
    states = [{k: v.to(device) for k, v in zoo.state(s).items()} for s in zoo.sources]
    star = {k: v.to(device) for k, v in network.build(seed=1000).state_dict().items()}
    matcher = Matcher(symmetry_for(network, task), states)
    found = matcher.match(star)
    nearly = {k: torch.lerp(v, states[0][k], 0.05) if v.is_floating_point() else v for k, v in star.items()}
    rows.append(dict(what=f"{n_sources} sources aligned from nothing", seconds=round(seconds(lambda: matcher.match(star), device, runs), 3)))
    rows.append(dict(what=f"{n_sources} sources re-aligned", seconds=round(seconds(lambda: matcher.match(nearly, init=found), device, runs), 3)))
    rows.append(dict(what="bfloat16 against float32 along a line", **bfloat16_difference(zoo, task, points)))
    return [*rows, dict(what="bfloat16 matrix product", tflops=round(ceiling / 1e12, 2))]


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tiny", action="store_true")
    arguments.add_argument("--device", default=None)
    arguments.add_argument("--no-compile", action="store_true")
    chosen = arguments.parse_args()
    device = best_device(chosen.device)
    torch.backends.cudnn.benchmark = True
    rows = measure(device, chosen.tiny, not (chosen.tiny or chosen.no_compile))
    if chosen.tiny:
        print(environment())
        for row in rows:
            print(row)
    else:
        save("gpu", rows, note="wall seconds; ratio: the authors' time for an image over ours; share_of_matmul: operations of forward and backward pass a second over those of a large bfloat16 product")
