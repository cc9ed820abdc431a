"Datasets in the formats their publishers use: tiny files, written here, read by the code that reads the real ones."
import csv
import dataclasses
import gzip
import hashlib
import io
import json
import pickle
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from starscape.data import Augment, DataError, Images, SettingsError, Task, UnknownName, batch_order, batches, load_task, require_torchvision, tokenise
from starscape.networks import Network

require_torchvision()


def write_idx(path, values):
    "The IDX format of MNIST: a magic number that holds type and rank, the sizes, the bytes."
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    with gzip.open(path, "wb") as f:
        f.write(header + values.tobytes())


def write_mnist(raw, n_train=12, n_test=6):
    "The four files of MNIST, packed and not; returns the images by split."
    random = np.random.default_rng(0)
    raw.mkdir(parents=True)
    images = {}
    for split, n in (("train", n_train), ("t10k", n_test)):
        images[split] = random.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        for kind, values in ((f"{split}-images-idx3-ubyte", images[split]), (f"{split}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10)):
            write_idx(raw / f"{kind}.gz", values)
            (raw / kind).write_bytes(gzip.decompress((raw / f"{kind}.gz").read_bytes()))
    return images


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_files(tmp_path, name, folder):
    images = write_mnist(tmp_path / folder / "raw")
    task = load_task(name, root=tmp_path)
    assert (len(task.train_y), len(task.test_y), task.num_classes, task.input_shape) == (12, 6, 10, (1, 28, 28))
    back = task.train_x * task.std[0] + task.mean[0]
    torch.testing.assert_close(back[:, 0], torch.tensor(images["train"]) / 255, rtol=1e-5, atol=1e-6)
    assert task.augment is None


def write_cifar(folder, name, n, monkeypatch=None):
    "The pickles of CIFAR, n images a file; returns their pixels by file. torchvision unpickles only files whose checksum it knows."
    from torchvision import datasets

    classes = {"cifar10": 10, "cifar100": 100}[name]
    reader = datasets.CIFAR10 if classes == 10 else datasets.CIFAR100
    random = np.random.default_rng(0)
    (folder / reader.base_folder).mkdir(parents=True)
    label = "labels" if classes == 10 else "fine_labels"
    pixels, sums = {}, {}

    def write(file, content):
        (folder / reader.base_folder / file).write_bytes(content)
        sums[file] = hashlib.md5(content).hexdigest()

    for k, (file, _) in enumerate(reader.train_list + reader.test_list):
        pixels[file] = random.integers(0, 256, (n, 3072), dtype=np.uint8)
        write(file, pickle.dumps({"data": pixels[file], label: [(k + i) % classes for i in range(n)]}))
    key = "label_names" if classes == 10 else "fine_label_names"
    write(reader.meta["filename"], pickle.dumps({key: [f"class {i}" for i in range(classes)]}))
    if monkeypatch:
        for kind in ("train_list", "test_list"):
            monkeypatch.setattr(reader, kind, [[file, sums[file]] for file, _ in getattr(reader, kind)])
        monkeypatch.setattr(reader, "meta", reader.meta | {"md5": sums[reader.meta["filename"]]})
    return pixels


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_files(tmp_path, monkeypatch, name, classes):
    write_cifar(tmp_path / "others", name, 4)
    with pytest.raises(DataError, match="download=True"):
        load_task(name, root=tmp_path / "others")
    pixels = write_cifar(tmp_path, name, 4, monkeypatch)
    task = load_task(name, root=tmp_path)
    train = [file for file in pixels if file.startswith(("data", "train"))]
    assert (len(task.train_y), len(task.test_y), task.num_classes, task.input_shape) == (4 * len(train), 4, classes, (3, 32, 32))
    assert task.augment == Augment(pad=4, flip=True, fill=tuple(-m / s for m, s in zip(task.mean, task.std)))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (task.mean, task.std))
    first = torch.tensor(pixels[train[0]][0]).view(3, 32, 32) / 255
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


AG_NEWS = {
    "train.csv": '"3","Wall St. Bears Claw Back (Reuters)","Reuters - Short-sellers, Wall Street\'s band of\\\\ultra-cynics, are seeing green."\n'
    '"4","Chips, again","He said: ""chips"" &lt;b&gt;are up; again"\n"1","Talks","Talks go on."\n"2","A win","They win 3-1!"\n',
    "test.csv": '"4","Unseen Zebra","chips talks"\n"1","Win","a"\n',
}


def write_ag_news(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in AG_NEWS.items():
        (folder / name).write_text(text, encoding="utf-8")


def test_ag_news_files(tmp_path):
    with pytest.raises(DataError, match="download=True"):
        load_task("ag_news", root=tmp_path)
    write_ag_news(tmp_path / "ag_news_csv")
    task = load_task("ag_news", root=tmp_path)
    assert (len(task.train_y), len(task.test_y), task.num_classes) == (4, 2, 4)
    assert task.train_y.tolist() == [2, 3, 0, 1] and task.test_y.tolist() == [3, 0]
    # the token numbers of a text are those of torchtext: by frequency, then alphabet, unknown ones 0
    tokens = [tokenise(" ".join(row[1:])) for row in csv.reader(io.StringIO(AG_NEWS["train.csv"]))]
    counts = Counter(t for text in tokens for t in text)
    words = [None, *sorted(counts, key=lambda t: (-counts[t], t))]
    for text, ids in zip(tokens, task.train_x.tolist()):
        assert [words[i] for i in ids if i >= 0] == text and ids[len(text) :] == [-1] * (len(ids) - len(text))
    assert "".join(tokens[0]).count('"') == 0 and "said" in tokens[1] and "st" in tokens[0]
    assert [words[i] for i in task.test_x[0].tolist() if i >= 0] == [None, None, "chips", "talks"]


@pytest.mark.parametrize("row", ['"World","t","d"\n', '"0","t","d"\n', "\n", '"3"\n'])
def test_ag_news_with_a_malformed_row(tmp_path, row):
    write_ag_news(tmp_path)
    (tmp_path / "test.csv").write_text(AG_NEWS["test.csv"] + row)
    with pytest.raises(DataError, match=r"test\.csv, row 3"):
        load_task("ag_news", root=tmp_path)


def write_pictures(root, n=3, classes=("n01440764", "n01443537"), seed=0):
    "JPEG files of different sizes, in ImageNet's folders."
    from PIL import Image

    random = np.random.default_rng(seed)
    for split in ("train", "val"):
        for c, name in enumerate(classes):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(n):
                pixels = np.full((280 + 20 * i, 300, 3), 60 * c + 10, dtype=np.uint8) + random.integers(0, 9, (1, 1, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{name}_{i}.JPEG", quality=95)


def test_imagenet_folders(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="fetched by hand"):
        load_task("imagenet", root=tmp_path, download=True)
    write_pictures(tmp_path)
    task = load_task("imagenet", root=tmp_path)
    assert (len(task.train_y), len(task.test_y), task.num_classes, task.input_shape) == (6, 6, 2, (3, 224, 224))
    assert task.train_y.tolist() == [0, 0, 0, 1, 1, 1] and isinstance(task.train_x, Images)
    # what the usual transforms of evaluation give for a file
    from torchvision import transforms
    from torchvision.datasets.folder import default_loader

    usual = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(task.mean, task.std)])
    picture = usual(default_loader(sorted(tmp_path.glob("train/*/*.JPEG"))[4]))
    torch.testing.assert_close(task.train_x[4], picture, rtol=0, atol=1e-5)
    # a second load decodes nothing, and holds the same
    from starscape import data

    monkeypatch.setattr(data.ThreadPoolExecutor, "map", lambda *a: pytest.fail("decoded again"))
    again = load_task("imagenet", root=tmp_path)
    assert again.fingerprint == task.fingerprint and torch.equal(again.train_x[:], task.train_x[:])
    held = task.hold_back(0.5)[0]
    assert len(held.train_y) == 3 and held.fingerprint != task.fingerprint
    assert len(task.subset(4, 2).train_x) == 4


def test_decoding_resumes(tmp_path, monkeypatch):
    from starscape import data

    monkeypatch.setattr(data, "_BLOCK", 2)
    write_pictures(tmp_path / "a")
    write_pictures(tmp_path / "b")
    whole = load_task("imagenet", root=tmp_path / "a")
    opened, real = [], data.require_torchvision().datasets.ImageFolder

    def breaks_at(limit):
        class Breaking(real):
            def __init__(self, folder):
                super().__init__(folder)
                plain = self.loader

                def loader(path):
                    opened.append(path)
                    if len(opened) > limit:
                        raise KeyboardInterrupt
                    return plain(path)

                self.loader = loader

        monkeypatch.setattr(data.require_torchvision().datasets, "ImageFolder", Breaking)

    breaks_at(3)
    with pytest.raises(KeyboardInterrupt):
        load_task("imagenet", root=tmp_path / "b")
    opened.clear()
    breaks_at(99)
    task = load_task("imagenet", root=tmp_path / "b")
    assert task.fingerprint == whole.fingerprint and torch.equal(task.train_x[:], whole.train_x[:])
    assert len(opened) == 4 + 6  # the first block of two was there


def test_a_broken_picture_is_named(tmp_path):
    write_pictures(tmp_path, n=1)
    (tmp_path / "val" / "n01443537" / "n01443537_0.JPEG").write_bytes(b"no picture")
    with pytest.raises(DataError, match="n01443537_0.JPEG is no readable picture"):
        load_task("imagenet", root=tmp_path)


def test_classes_of_both_splits_must_agree(tmp_path):
    write_pictures(tmp_path, n=1)
    (tmp_path / "val" / "n01443537").rename(tmp_path / "val" / "other")
    with pytest.raises(DataError, match="same folders"):
        load_task("imagenet", root=tmp_path)


def test_the_branch_of_the_cifar_tutorial_that_needs_a_gpu(monkeypatch, tmp_path):
    "Its cells in order, with a GPU that is said to be there, and the digits in place of CIFAR-10 and the settings' sizes."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")  # the page sets it
    cells = ["".join(cell["source"]) for cell in json.loads((Path(__file__).parent.parent / "nbs" / "tutorials" / "cifar10.ipynb").read_text())["cells"] if cell["cell_type"] == "code"]
    names, asked = {}, []

    def tiny(name, root=None, download=False, validation=0.0):
        asked.append((name, download))
        return load_task("digits", validation=validation).subset(640, 64)

    for cell in cells:
        exec(cell, names)
        if cell.startswith("import dataclasses"):
            names["load_task"] = tiny
        if cell.startswith("real = "):
            names["real"] = True
        if cell.startswith("if real:"):
            assert isinstance(names["task"], Task) and names["task"].fingerprint == load_task("digits").hold_back(0.1)[0].subset(640, 64).fingerprint
            assert (names["network"], names["n_sources"], names["n_heldout"], names["recipe"].precision) == (Network("resnet18"), 50, 5, "bfloat16")
            names |= dict(network=Network("resnet18", width=4), n_sources=2, n_heldout=1, points=3, recipe=dataclasses.replace(names["recipe"], epochs=1))
    assert asked == [("cifar10", True)]


def test_a_share_that_is_a_number_of_examples():
    with pytest.raises(SettingsError, match="found 144; 144 of these 1437 examples are 0.1002"):
        load_task("digits").hold_back(144)
    for share in (0, 1, 1.5, "half", None):
        with pytest.raises(SettingsError, match="between 0 and 1"):
            load_task("digits").hold_back(share)


def test_an_augmentation_that_does_not_suit_the_task():
    digits = load_task("digits")
    with pytest.raises(DataError, match="augment changes a batch of images.*found 'flip'"):
        dataclasses.replace(digits, augment="flip")
    with pytest.raises(DataError, match=r"Augment is for images.*found inputs of shape \(64,\)"):
        Task("flat", digits.train_x.flatten(1), digits.train_y, digits.test_x.flatten(1), digits.test_y, augment=Augment())
