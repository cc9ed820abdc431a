"Datasets in the formats their publishers use: tiny files, written here, read by the code that reads the real ones."
import gzip
import hashlib
import pickle
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from starscape.data import Augment, DataError, Task, UnknownName, batch_order, batches, load_task, require_torchvision

require_torchvision()


def write_idx(path, values):
    "The IDX format of MNIST: a magic number that holds type and rank, the sizes, the bytes."
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    with gzip.open(path, "wb") as f:
        f.write(header + values.tobytes())


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_files(tmp_path, name, folder):
    random = np.random.default_rng(0)
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    images = {}
    for split, n in (("train", 12), ("t10k", 6)):
        images[split] = random.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        for kind, values in ((f"{split}-images-idx3-ubyte", images[split]), (f"{split}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10)):
            write_idx(raw / f"{kind}.gz", values)
            (raw / kind).write_bytes(gzip.decompress((raw / f"{kind}.gz").read_bytes()))
    task = load_task(name, root=tmp_path)
    assert (len(task.train_y), len(task.test_y), task.num_classes, task.input_shape) == (12, 6, 10, (1, 28, 28))
    back = task.train_x * task.std[0] + task.mean[0]
    torch.testing.assert_close(back[:, 0], torch.tensor(images["train"]) / 255, rtol=1e-5, atol=1e-6)
    assert task.augment is None


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_files(tmp_path, monkeypatch, name, classes):
    from torchvision import datasets

    reader = datasets.CIFAR10 if classes == 10 else datasets.CIFAR100
    random = np.random.default_rng(0)
    folder = tmp_path / reader.base_folder
    folder.mkdir()
    label = "labels" if classes == 10 else "fine_labels"
    pixels, sums = {}, {}
    for file, _ in reader.train_list + reader.test_list:
        pixels[file] = random.integers(0, 256, (4, 3072), dtype=np.uint8)
        content = pickle.dumps({"data": pixels[file], label: list(range(4))})
        (folder / file).write_bytes(content)
        sums[file] = hashlib.md5(content).hexdigest()
    key = "label_names" if classes == 10 else "fine_label_names"
    content = pickle.dumps({key: [f"class {i}" for i in range(classes)]})
    (folder / reader.meta["filename"]).write_bytes(content)
    # torchvision unpickles only files whose checksum it knows; here the files are ours
    with pytest.raises(DataError, match="download=True"):
        load_task(name, root=tmp_path)
    for kind in ("train_list", "test_list"):
        monkeypatch.setattr(reader, kind, [[file, sums[file]] for file, _ in getattr(reader, kind)])
    monkeypatch.setattr(reader, "meta", reader.meta | {"md5": hashlib.md5(content).hexdigest()})
    task = load_task(name, root=tmp_path)
    assert (len(task.train_y), len(task.test_y), task.num_classes, task.input_shape) == (4 * len(reader.train_list), 4, classes, (3, 32, 32))
    assert task.augment == Augment(pad=4, flip=True, fill=tuple(-m / s for m, s in zip(task.mean, task.std)))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (task.mean, task.std))
    first = torch.tensor(pixels[reader.train_list[0][0]][0]).view(3, 32, 32) / 255
    torch.testing.assert_close(task.train_x[0] * std + mean, first, rtol=1e-5, atol=1e-6)


def test_mnist5k_is_split_in_the_same_way_every_time():
    task = load_task("mnist5k")
    assert (len(task.train_y), len(task.test_y), task.input_shape) == (4000, 1000, (1, 28, 28))
    assert (task.test_y.bincount() == 100).all()
    assert task.test_y[:12].tolist() == [6, 3, 0, 8, 8, 3, 0, 0, 7, 8, 5, 8]


def test_nothing_is_fetched_without_being_told(monkeypatch, tmp_path):
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket, "socket", refuse)
    for name in ("mnist", "fashion_mnist", "cifar10", "cifar100"):
        with pytest.raises(DataError, match="download=True"):
            load_task(name, root=tmp_path)


def test_unknown_names_list_what_there_is():
    with pytest.raises(UnknownName, match=r"digits.*mnist5k.*cifar10"):
        load_task("svhn")


@given(n=st.integers(1, 200), size=st.integers(1, 250), seed=st.integers(0, 2**31))
def test_an_epoch_draws_each_example_at_most_once(n, size, seed):
    order = batch_order(n, size, torch.Generator().manual_seed(seed))
    assert order.shape == (n // min(n, size), min(n, size))
    assert len(order.unique()) == order.numel() and order.max() < n


@given(pad=st.integers(0, 3), flip=st.booleans(), side=st.integers(2, 6), channels=st.integers(1, 3), seed=st.integers(0, 2**31))
def test_every_augmented_image_is_a_crop_of_its_padded_original(pad, flip, side, channels, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(4, channels, side, side, generator=g)
    fill = tuple(range(10, 10 + channels))
    out = Augment(pad=pad, flip=flip, fill=fill)(x, g)
    black = torch.tensor(fill, dtype=x.dtype).view(-1, 1, 1)
    for image, result in zip(x, out):
        padded = black.expand(channels, side + 2 * pad, side + 2 * pad).clone()
        padded[:, pad : pad + side, pad : pad + side] = image
        crops = [padded[:, i : i + side, j : j + side] for i in range(2 * pad + 1) for j in range(2 * pad + 1)]
        crops += [c.flip(-1) for c in crops] if flip else []
        assert any(torch.allclose(result, c, atol=1e-5) for c in crops)


def test_batches_give_inputs_with_their_own_labels():
    x = torch.arange(50.0).view(50, 1)
    task = Task("count", x, torch.arange(50) % 5, x, torch.arange(50) % 5)
    for xs, ys in batches(task, batch_size=8, generator=torch.Generator().manual_seed(0)):
        assert (xs[:, 0].long() % 5 == ys).all()
