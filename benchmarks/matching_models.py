"""Trained networks for the matching benchmarks: made once, kept in a folder, the same for every peer.

`python benchmarks/matching_models.py FOLDER [COUNT]` trains ResNet-18s of width 64 on the digits resized to 16×16
(so that every tap of the last stage's kernels sees data), one seed each: 6 epochs of SGD with Nesterov momentum 0.9,
batch 64, cosine from 0.05, weight decay 5e-4.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from starscape.data import load_task
from starscape.networks import build_network

EPOCHS, BATCH, RATE, SIDE = 6, 64, 0.05, 16


def resnet18():
    return build_network("resnet18", width=64, input_shape=(1, SIDE, SIDE), num_classes=10)


def trained(folder, seed: int) -> dict[str, torch.Tensor]:
    "The state of the ResNet-18 trained with `seed`, from the folder or made now."
    path = Path(folder) / f"resnet18-digits{SIDE}-{seed}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(_train(seed), path)
    return load_file(path)


def _resized(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, size=(SIDE, SIDE), mode="bilinear")


def _train(seed: int) -> dict[str, torch.Tensor]:
    task, generator = load_task("digits"), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = resnet18().train().to(memory_format=torch.channels_last)
    steps = EPOCHS * -(-len(task.train_x) // BATCH)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(task.train_x), generator=generator).split(BATCH):
            loss = F.cross_entropy(model(_resized(task.train_x[index])), task.train_y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(_resized(task.test_x)).argmax(1) == task.test_y).float().mean().item()
    print(f"seed {seed}: train loss {loss.item():.4f}, test accuracy {accuracy:.4f}", flush=True)
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


if __name__ == "__main__":
    for seed in range(int(sys.argv[2]) if len(sys.argv) > 2 else 2):
        trained(sys.argv[1], seed)
