"""Training a population as one stack against one by one, and a Starlight step against an SGD step.

`python benchmarks/training.py` writes training.json. CPU seconds, one thread, the two sides in turn in one run."""
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TQDM_DISABLE"] = "1"

import torch
from _common import paired, save
from torch import nn
from torch.nn import functional as F

from starscape.data import batch_order, load_task
from starscape.networks import Network
from starscape.star_training import interpolated_gradient
from starscape.training import Recipe, _train_one, _train_stack, generator_for

torch.set_num_threads(1)


def population_row(task, name, n, steps, **settings):
    "Seconds to train n models for some steps: one stack, and one after another with the same loop."
    network = Network.of(Network(name, **settings), task)
    epochs = max(1, steps // (len(task.train_y) // 64))
    recipe = Recipe(epochs=epochs, batch_size=64)
    modules = lambda: [network.build(seed=i) for i in range(n)]
    generators = lambda: [generator_for(i, "order") for i in range(n)]
    one_by_one = lambda: [_train_one(m, task, recipe, g) for m, g in zip(modules(), generators())]
    timing = paired(lambda: _train_stack(modules(), task, recipe, generators()), one_by_one, runs=3)
    parameters = sum(p.numel() for p in modules()[0].parameters())
    return dict(what="stack against one by one", network=repr(network), parameters=parameters, models=n, **timing)


def plain_row(task, name, n, **settings):
    "Seconds for a population with our engine, and with a plain loop on tensors as one would write it."
    network = Network.of(Network(name, **settings), task)
    recipe = Recipe(epochs=3, batch_size=64)
    x, y = task.split("train")

    def plain():
        for i in range(n):
            model, g = network.build(seed=i).train(), torch.Generator().manual_seed(i)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
            for _ in range(recipe.epochs):
                for index in batch_order(len(y), 64, g):
                    optimizer.zero_grad()
                    F.cross_entropy(model(x[index]), y[index]).backward()
                    optimizer.step()

    def ours():
        from starscape.training import stack_size

        size = stack_size(network, torch.device("cpu"))
        modules, generators = [network.build(seed=i) for i in range(n)], [generator_for(i, "order") for i in range(n)]
        if size > 1:
            _train_stack(modules, task, recipe, generators)
        else:
            for m, g in zip(modules, generators):
                _train_one(m, task, recipe, g)

    return dict(what="population against a plain loop", network=repr(network), models=n, **paired(ours, plain, runs=3))


def step_row(task, name, steps=60, **settings):
    "Seconds of Starlight steps and of plain SGD steps of the same loop, optimiser included."
    network = Network.of(Network(name, **settings), task)
    fmt = lambda m: m.to(memory_format=torch.channels_last) if any(isinstance(x, nn.Conv2d) for x in m.modules()) else m
    module, source = fmt(network.build(seed=0)).train(), fmt(network.build(seed=1))
    params = list(module.parameters())
    star = [p.detach().clone().requires_grad_() for p in params]
    others = [p.detach() for p in source.parameters()]
    x, y = (z[:64] for z in task.split("train"))
    make = lambda ps: torch.optim.SGD(ps, lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)
    optimizer, star_optimizer = make(params), make(star)

    def starlight():
        for _ in range(steps):
            interpolated_gradient(lambda: F.cross_entropy(module(x), y), params, star, others, 0.3)
            star_optimizer.step()

    def sgd():
        for _ in range(steps):
            module.zero_grad(set_to_none=True)
            F.cross_entropy(module(x), y).backward()
            optimizer.step()

    return dict(what="SGD step over Starlight step", network=repr(network), models=1, **paired(starlight, sgd, runs=7))


if __name__ == "__main__":
    digits = load_task("digits")
    rows = [
        population_row(digits, "mlp", 20, 44, width=64, depth=3),
        population_row(digits, "mlp", 8, 44, width=256, depth=3),
        population_row(digits, "mlp", 8, 22, width=512, depth=3),
        population_row(digits, "mlp", 8, 22, width=1024, depth=2),
        population_row(digits, "mlp", 8, 44, width=64, depth=3, batchnorm=True),
        population_row(digits, "resnet", 4, 22, width=4),
        population_row(digits, "resnet", 4, 22, width=16),
        plain_row(digits, "mlp", 20, width=64, depth=3),
        plain_row(digits, "resnet", 4, width=16),
        step_row(digits, "mlp", width=64, depth=3, steps=300),
        step_row(digits, "resnet", width=16, steps=20),
        step_row(digits.subset(64), "resnet18", width=64, steps=2),
    ]
    save("training", rows, note="ratio is theirs / ours: above 1, ours is faster")
