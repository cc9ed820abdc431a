"""Training: a population against a plain loop, a Starlight step against an SGD step and against the authors' step.

`python benchmarks/training.py` writes training.json. CPU seconds of one thread, the two sides in turn in one run, medians
of the ratios pair by pair; the rows on worker processes are wall time, and say so."""
import argparse
import copy
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TQDM_DISABLE"] = "1"

import torch
from _common import paired, save
from torch.nn import functional as F

from starscape.data import batch_order, load_task
from starscape.networks import Network
from starscape.star_training import FlatParameters, add_gradient
from starscape.training import Recipe, _memory_format, _train_one, _train_stack, generator_for, make_optimizer, stack_size

torch.set_num_threads(1)
RECIPE = Recipe(epochs=3, batch_size=64, lr=0.01)


def population(task, network, n):
    modules, generators = [network.build(seed=i) for i in range(n)], [generator_for(i, "order") for i in range(n)]
    return modules, generators


def one_by_one(task, network, n):
    for module, generator in zip(*population(task, network, n)):
        _train_one(module, task, RECIPE, generator)


def plain_loop(task, network, n):
    "As one would write it: a model after another, data on the device, no data loader."
    x, y = task.split("train")
    for i in range(n):
        model, generator = network.build(seed=i).train(), torch.Generator().manual_seed(i)
        optimizer = torch.optim.SGD(model.parameters(), lr=RECIPE.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
        for _ in range(RECIPE.epochs):
            for index in batch_order(len(y), RECIPE.batch_size, generator):
                optimizer.zero_grad()
                F.cross_entropy(model(x[index]), y[index]).backward()
                optimizer.step()


def stacked_row(task, name, n, **settings):
    "One stack, and one after another with the same loop."
    network = Network.of(Network(name, **settings), task)
    timing = paired(lambda: _train_stack(population(task, network, n)[0], task, RECIPE, population(task, network, n)[1]), lambda: one_by_one(task, network, n), runs=3)
    return dict(what="stack against one by one", network=repr(network), parameters=sum(p.numel() for p in network.build().parameters()), models=n, **timing)


def population_row(task, name, n, runs=3, **settings):
    "What train_population does in one process, against the plain loop."
    network = Network.of(Network(name, **settings), task)
    if stack_size(network, torch.device("cpu")) > 1:
        ours = lambda: _train_stack(population(task, network, n)[0], task, RECIPE, population(task, network, n)[1])
    else:
        ours = lambda: one_by_one(task, network, n)
    return dict(what="population against a plain loop, CPU time", network=repr(network), models=n, **paired(ours, lambda: plain_loop(task, network, n), runs=runs))


def workers_row(task, name, n, workers=2, runs=3, **settings):
    "The same in worker processes that are there already, wall time."
    import joblib

    network = Network.of(Network(name, **settings), task)

    def one(i):
        torch.set_num_threads(1)
        module = _train_one(network.build(seed=i), task, RECIPE, generator_for(i, "order"))
        return {k: v.numpy() for k, v in module.state_dict().items()}

    with joblib.Parallel(workers) as parallel:
        timing = paired(lambda: parallel(joblib.delayed(one)(i) for i in range(n)), lambda: plain_loop(task, network, n), runs=runs, measure=wall_seconds)
    return dict(what=f"population in {workers} processes against a plain loop, wall time", network=repr(network), models=n, **timing)


def wall_seconds(action) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


class Steps:
    "Steps of three kinds on the same network, batch and optimiser settings."

    def __init__(self, task, network, n):
        self.n = n
        self.x, self.y = (z[: RECIPE.batch_size] for z in task.split("train"))
        build = lambda seed: _memory_format(network.build(seed=seed), task.train_x[:2]).train()
        self.plain, self.module = build(0), build(0)
        self.flat = FlatParameters(self.module)
        self.star = self.flat.vector.clone()
        self.source = self.flat.fill(torch.zeros_like(self.star), build(1).state_dict())
        self.leaves = [v.detach().requires_grad_() for v in self.flat.views(self.star)]
        self.optimizers = make_optimizer(list(self.plain.parameters()), RECIPE), make_optimizer(self.leaves, RECIPE)
        self.scale = torch.tensor(0.7)
        # the authors' side: networks as they build them, the optimiser as they call it
        self.theirs, self.anchor = network.build(seed=0).train(), network.build(seed=1)
        self.between = copy.deepcopy(self.theirs)
        self.their_optimizer = torch.optim.SGD(self.theirs.parameters(), RECIPE.lr, RECIPE.momentum, weight_decay=RECIPE.weight_decay, nesterov=True)

    def sgd(self):
        for _ in range(self.n):
            for p in self.plain.parameters():
                p.grad = None
            F.cross_entropy(self.plain(self.x).float(), self.y).backward()
            self.optimizers[0].step()

    def starlight(self):
        loss_of = lambda x, y: F.cross_entropy(self.module(x).float(), y)
        for _ in range(self.n):
            for p in self.flat.params:
                p.grad = None
            add_gradient(loss_of, (self.x, self.y), self.flat.vector, self.star, self.source, 0.3, self.scale)
            for leaf, p in zip(self.leaves, self.flat.params):
                leaf.grad = p.grad
            self.optimizers[1].step()

    def authors(self):
        """A step as the paper's code takes it: both models flattened, the interpolated vector cut up again, BatchNorm
        reset, gradients copied; and loss and accuracy read at every step, as its loop does."""
        for _ in range(self.n):
            self.their_optimizer.zero_grad(set_to_none=True)
            labels = self.y.clone()
            vectors = [torch.cat([p.reshape(-1) for p in m.parameters()]) for m in (self.theirs, self.anchor)]
            line, start = (1 - 0.3) * vectors[0] + 0.3 * vectors[1], 0
            for p in self.between.parameters():
                p.data = line[start : start + p.numel()].view(p.size())
                start += p.numel()
                p.grad = None
            self.between.train()
            for m in self.between.modules():
                if isinstance(m, torch.nn.modules.batchnorm._BatchNorm):
                    m.reset_running_stats()
            logits = self.between(self.x)
            loss = F.cross_entropy(logits, self.y)
            loss.backward()
            for source, target in zip(self.between.parameters(), self.theirs.parameters()):
                target.grad = source.grad * (1 - 0.3)
            self.their_optimizer.step()
            loss.item(), (logits.argmax(1) == labels).sum().div(len(labels)).item()

    def lerp(self):
        for _ in range(self.n):
            torch.lerp(self.star, self.source, 0.3, out=self.flat.vector)


def step_rows(task, name, steps, runs=9, **settings):
    network = Network.of(Network(name, **settings), task)
    s = Steps(task, network, steps)
    floor = paired(s.lerp, s.sgd, runs=3)
    common = dict(network=repr(network), models=1)
    against_sgd = paired(s.starlight, s.sgd, runs=runs)
    return [
        dict(what="Starlight step against SGD step", **common, **against_sgd, cost=round(1 / against_sgd["ratio"], 3), floor=round(1 + floor["ours_s"] / floor["theirs_s"], 3)),
        dict(what="Starlight step against the authors' step", **common, **paired(s.starlight, s.authors, runs=runs)),
    ]


def show_profile(task, name, **settings):
    "Where the time of a Starlight step goes."
    s = Steps(task, Network.of(Network(name, **settings), task), 20)
    s.starlight()
    with torch.profiler.profile() as profile:
        s.starlight()
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=50))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--profile", action="store_true", help="show where the time goes, and write nothing")
    digits = load_task("digits")
    if arguments.parse_args().profile:
        for name, settings in (("mlp", dict(width=64, depth=3)), ("resnet", dict(width=16))):
            show_profile(digits, name, **settings)
    else:
        rows = [
            stacked_row(digits, "mlp", 20, width=64, depth=3),
            stacked_row(digits, "mlp", 8, width=256, depth=3),
            stacked_row(digits, "mlp", 8, width=512, depth=3),
            stacked_row(digits, "mlp", 8, width=64, depth=3, batchnorm=True),
            stacked_row(digits, "resnet", 4, width=4),
            stacked_row(digits, "resnet", 4, width=16),
            population_row(digits, "mlp", 20, runs=5, width=64, depth=3),
            population_row(digits, "resnet", 4, width=16),
            workers_row(digits, "resnet", 4, width=16),
            *step_rows(digits, "mlp", 300, width=64, depth=3),
            *step_rows(digits, "resnet", 20, width=16),
            *step_rows(digits.subset(64), "resnet18", 2, runs=7, width=64),
        ]
        save("training", rows, note="ratio is theirs / ours: above 1, ours is faster; cost: Starlight over SGD; floor: SGD and nothing but the interpolation, over SGD")
