"""Bad input: every case ends in one of the package's own errors, says what to do, executes nothing, and changes nothing on disk.

A case is a function of a `Site` (a small zoo, a task, a place for files) that prepares what is bad and gives back the
call to make, with the error it has to end in and words that have to stand in the message."""
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save as save_bytes

from starscape.barriers import adaptive_barriers, barriers, sweep
from starscape.data import DataError, SettingsError, StarscapeError, StateError, Task, UnknownName, ZooError, batches, load_task
from starscape.networks import Network
from starscape.star_training import train_star
from starscape.training import Recipe, train, train_population
from starscape.uncertainty import bma
from starscape.viz import BarrierExplorer, StarDashboard
from starscape.zoo import Zoo

NETWORK = Network("mlp", width=6, depth=2, input_shape=[1, 4, 4], num_classes=3)


@dataclass
class Site:
    "Where a case happens."

    zoo: Zoo
    task: Task
    folder: Path

    @property
    def file(self):
        return self.zoo.path / "bad.safetensors"

    def state(self, **changed):
        return self.zoo.state("source-000") | changed

    def bytes(self):
        return (self.zoo.path / "source-000.safetensors").read_bytes()

    def put(self, name, data):
        "A file beside the zoo."
        path = self.folder / name
        path.write_bytes(data)
        return path


def tree(folder):
    "Every file below a folder, by content. Locks are left out: empty files that say nothing, in a folder of their own."
    found = [p for p in sorted(folder.rglob("*")) if p.name != ".unfinished" and p.suffix != ".lock"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "" for p in found}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 1, 4, 4, generator=g), torch.arange(60) % 3
    zoo = Zoo(folder / "zoo")
    roles = [("source-000", "source"), ("source-001", "source"), ("heldout-000", "heldout"), ("star-000", "star")]
    for seed, (name, role) in enumerate(roles):
        zoo.add(name, NETWORK.build(seed), role=role, network=NETWORK, task="points", seed=seed)
    return folder, Task("points", x[:40], y[:40], x[40:], y[40:])


@pytest.fixture
def site(original, tmp_path):
    shutil.copytree(original[0], tmp_path / "site")
    return Site(Zoo(tmp_path / "site" / "zoo"), original[1], tmp_path / "site")


CASES = {}


def case(name, error, words, prepare):
    assert name not in CASES, name
    CASES[name] = error, words, prepare


# ---------------------------------------------------------------- files in the zoo
def in_zoo(name, change, words, error=ZooError, call=None):
    "A file in the zoo, made from the bytes of a good one; whoever opens it is told its name."

    def prepare(site):
        site.file.write_bytes(change(site.bytes()))
        return lambda: (call or (lambda s: (s.zoo.metadata("bad"), s.zoo.network("bad"))))(site)

    case(f"zoo file, {name}", error, words, prepare)


def header_of(data):
    n = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + n]), data[8 + n :]


def with_header(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


for n in (0, 1, 7, 8, 9, 200, 1000, -200, -1):
    in_zoo(f"cut at {n}", lambda data, n=n: data[:n], r"bad\.safetensors is (not a readable|damaged).*copy it again")
for place in (0, 3, 7, 8, 40, 120, 300, 500, -1, -2, -77, -301):

    def flip(data, place=place):
        data = bytearray(data)
        data[place] ^= 0x10
        return bytes(data)

    in_zoo(f"bit flipped at {place}", flip, r"bad\.safetensors")
for n in (2**63, 2**64 - 1, 2**40, 100_000_001):
    in_zoo(f"header of {n} bytes", lambda data, n=n: struct.pack("<Q", n) + data[8:], "not a readable safetensors file")
in_zoo("header of 200 MB of blanks", lambda data: struct.pack("<Q", 200 << 20) + b" " * (200 << 20), "not a readable safetensors file")
in_zoo("trailing bytes", lambda data: data + b"more", r"bad\.safetensors")
in_zoo("header that is no JSON", lambda data: with_header(b"<html>"), "not a readable")
in_zoo("header that is a list", lambda data: with_header([1, 2]), "not a readable")
in_zoo("header in Latin-1", lambda data: with_header(b'{"caf\xe9": {}}'), "not a readable")
in_zoo("header nested deeply", lambda data: with_header(b"[" * 100_000 + b"]" * 100_000), "not a readable")
in_zoo("an empty header", lambda data: with_header({}), "without starscape's metadata.*import_checkpoints")
in_zoo("a pickle", lambda data: pickle.dumps({"w": 1}), "not a readable")
in_zoo("an archive", lambda data: b"PK\x03\x04" + data, "not a readable")
in_zoo("a page", lambda data: b"<!doctype html><title>404</title>", "not a readable")


def tensor_entry(**changed):
    "The first tensor of the header, described otherwise."

    def change(data):
        header, body = header_of(data)
        key = next(k for k in header if k != "__metadata__")
        header[key] = header[key] | changed
        return with_header(header, body)

    return change


for name, changed in {
    "offsets that overlap": {"data_offsets": [0, 8]},
    "offsets beyond the end": {"data_offsets": [0, 10**12]},
    "offsets reversed": {"data_offsets": [24, 0]},
    "a negative offset": {"data_offsets": [-8, 16]},
    "a shape that overflows": {"shape": [2**62, 2**62]},
    "a shape of 10^18": {"shape": [10**18]},
    "a negative shape": {"shape": [-3]},
    "a shape that is text": {"shape": "all of it"},
    "a type that does not exist": {"dtype": "F1000"},
    "a type that takes half the room": {"dtype": "F16"},
    "a type of the same size": {"dtype": "I32"},
}.items():
    in_zoo(name, tensor_entry(**changed), r"bad\.safetensors", error=StarscapeError)


def metadata(value):
    "A file with other metadata and without a hash, as another program would write it."

    def change(data):
        header, body = header_of(data)
        own = json.loads(header["__metadata__"]["starscape"])
        text = value if isinstance(value, str) else json.dumps(value(own) if callable(value) else own | value)
        header["__metadata__"] = {"starscape": text}
        return with_header(header, body)

    return change


mlp = lambda **settings: {"network": {"name": "mlp", "settings": {"width": 6, "depth": 2, "input_shape": [1, 4, 4], "num_classes": 3} | settings}}
for name, value in {
    "empty": "",
    "no JSON": "{role: source}",
    "a list": "[]",
    "a number": "5",
    "null": "null",
    "nested deeply": "[" * 50_000,
    "an integer of 10,000 digits": '{"role": ' + "1" * 10_000 + "}",
    "no role": lambda own: {k: v for k, v in own.items() if k != "role"},
    "an unknown role": {"role": "villain"},
    "a role that is a list": {"role": ["source"]},
    "a role that is an object": {"role": {"source": 1}},
    "no network": lambda own: {k: v for k, v in own.items() if k != "network"},
    "a network that is text": {"network": "mlp"},
    "settings that are a list": {"network": {"name": "mlp", "settings": [64]}},
    "a setting called name": mlp(name="vgg19"),
    "a setting called self": mlp(self=1),
    "a setting that does not exist": mlp(colour="red"),
    "a width of 10^9": mlp(width=10**9),
    "a width of 10^30": mlp(width=10**30),
    "a width of 1e999": '{"role": "source", "network": {"name": "mlp", "settings": {"width": 1e999}}}',
    "a width that is just too large": mlp(width=1500),
    "a width below zero": mlp(width=-6),
    "a width that is text": mlp(width="6"),
    "a depth of 10^9": mlp(depth=10**9),
    "a depth of 10^4": mlp(depth=10**4),
    "an input of 10^12 values": mlp(input_shape=[10**6, 10**6]),
    "an input shape that is a number": mlp(input_shape=16),
    "metrics that are a list": {"metrics": [0.9]},
    "metrics that are text": {"metrics": "0.9"},
    "metrics that are not finite": '{"role": "source", "network": {"name": "mlp", "settings": {}}, "metrics": {"loss": NaN}}',
    "a metric called role": {"metrics": {"role": 0.9}},
    "a metric that is an object": {"metrics": {"test_accuracy": {"value": 0.9}}},
    "a task that is a number": {"task": 5},
}.items():
    in_zoo(f"metadata: {name}", metadata(value), r"metadata of .*bad\.safetensors is damaged.*left as it is; delete it")
in_zoo("metadata: an unknown network", metadata({"network": {"name": "resnet81", "settings": {}}}), "no network 'resnet81'.*There are", error=UnknownName)
in_zoo("metadata: a network of the owner's", metadata({"network": {"name": "custom:Mine", "settings": {}}}), "register_network", error=SettingsError)
in_zoo("metadata: read while listing", metadata({"role": "villain"}), "villain", call=lambda s: s.zoo.frame())
in_zoo("metadata: read by a sweep", metadata({"role": "villain"}), "villain", call=lambda s: sweep(s.zoo, "star-source", s.task))
in_zoo("metadata: read by training", metadata({"role": "villain"}), "villain", call=lambda s: train_star(s.task, s.zoo, Recipe(epochs=1)))


def foreign_state(**changed):
    "A file with other tensors, which another program wrote under our metadata."

    def change(data):
        state = dict(NETWORK.build(0).state_dict().items()) | changed
        text = json.dumps({"role": "source", "network": NETWORK.to_json()})
        return save_bytes({k: v for k, v in state.items() if v is not None}, {"starscape": text})

    return change


WEIGHT = NETWORK.build(0).state_dict()["linear2.weight"]
BAD_STATES = {
    "NaN": ({"linear2.weight": WEIGHT.clone().fill_(torch.nan)}, r"'linear2\.weight' .*(NaN|not finite)"),
    "one infinite value": ({"linear2.weight": torch.cat([WEIGHT[:5], torch.full((1, 6), torch.inf)])}, r"'linear2\.weight' .*(infinite|not finite)"),
    "half precision": ({"linear2.weight": WEIGHT.half()}, r"type torch\.float16, wanted torch\.float32"),
    "double precision": ({"linear2.weight": WEIGHT.double()}, r"type torch\.float64, wanted torch\.float32"),
    "whole numbers": ({"linear2.weight": WEIGHT.long()}, r"type torch\.int64, wanted torch\.float32"),
    "truth values": ({"linear2.weight": WEIGHT > 0}, r"type torch\.bool, wanted torch\.float32"),
    "complex numbers": ({"linear2.weight": WEIGHT.to(torch.complex64)}, r"type torch\.complex64, wanted torch\.float32"),
    "another shape": ({"linear2.weight": WEIGHT[:5]}, r"shape \(5, 6\), (wanted|the symmetry expects) \(6, 6\)"),
    "one dimension more": ({"linear2.weight": WEIGHT[None]}, r"shape \(1, 6, 6\)"),
    "no values": ({"linear2.weight": WEIGHT[:0]}, r"shape \(0, 6\)"),
    "a missing key": ({"linear2.weight": None}, r"missing keys: 'linear2\.weight'|no 'linear2\.weight'"),
    "an extra key": ({"linear9.weight": WEIGHT}, r"unexpected keys: 'linear9\.weight'"),
}
for name, (changed, words) in BAD_STATES.items():
    in_zoo(f"state with {name}", foreign_state(**changed), words, error=StateError, call=lambda s: s.zoo.network("bad"))
    in_zoo(f"state with {name}, in a sweep", foreign_state(**changed), words, error=StateError, call=lambda s: sweep(s.zoo, [("star-000", "bad")], s.task, cached=False))
    if name != "an extra key":  # what a star does not read cannot hurt it
        in_zoo(f"state with {name}, as a source", foreign_state(**changed), words, error=StateError, call=lambda s: train_star(s.task, s.zoo, Recipe(epochs=1), name="new"))


# ---------------------------------------------------------------- checkpoints from elsewhere
TOUCHED = Path(os.environ.get("TMPDIR", "/tmp")) / f"starscape-executed-{os.getpid()}"


class Evil:
    "Executes code when it is unpickled."

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def import_of(name, make, words, error=ZooError, suffix=".pt", **how):
    def prepare(site):
        path = make(site, site.folder / f"theirs{suffix}") or site.folder / f"theirs{suffix}"
        good = site.folder / "good.pt"
        torch.save(site.state(), good)  # a good one given in the same call must not come in either
        settings = {"network": NETWORK, "role": "source"} | how
        return lambda: site.zoo.import_checkpoints([good, path], **settings)

    case(f"import, {name}", error, words, prepare)


def saved(make):
    return lambda site, path: torch.save(make(site), path)


touch = f"open({str(TOUCHED)!r}, 'w').close()"
for name, evil in {
    "exec": Evil(exec, touch),
    "eval": Evil(eval, f"open({str(TOUCHED)!r}, 'w')"),
    "os.system": Evil(os.system, f"touch {TOUCHED}"),
    "an import": Evil(__import__, "this"),
    "a file": Evil(open, str(TOUCHED), "w"),
    "getattr": Evil(getattr, '', 'join'),
}.items():
    import_of(f"code: {name}", saved(lambda s, e=evil: e), "Nothing in it was executed; save model.state_dict")
    import_of(f"code under state_dict: {name}", saved(lambda s, e=evil: {"state_dict": {"w": e}}), "Nothing in it was executed")
    import_of(f"code in a plain pickle: {name}", lambda s, p, e=evil: p.write_bytes(pickle.dumps(e)) and None, "Nothing in it was executed", suffix=".pkl")
import_of("code in PyTorch's old format", lambda s, p: torch.save(Evil(exec, touch), p, _use_new_zipfile_serialization=False), "Nothing in it was executed")
import_of("a whole model", saved(lambda s: NETWORK.build(0)), "save model.state_dict")


def repacked(compress):
    "A PyTorch archive whose weights are a gigabyte of zeros, packed small."

    def make(site, path):
        buffer = io.BytesIO()
        torch.save(site.state(), buffer)
        with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w", compress, compresslevel=9) as new:
            for item in old.infolist():
                if not item.filename.endswith("data/0"):
                    new.writestr(item.filename, old.read(item))
                    continue
                with new.open(item.filename, "w") as f:
                    for _ in range(64 if compress else 1):
                        f.write(bytes(1 << 24 if compress else 10))

    return make


def lying(site, path):
    "An archive whose directory says that a small member is large."
    torch.save(site.state(), path)
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    struct.pack_into("<II", data, at + 20, 1 << 31, 1 << 31)
    path.write_bytes(data)


import_of("a compressed archive of a gigabyte", repacked(zipfile.ZIP_DEFLATED), "compressed archive, which torch.save never writes")
import_of("an archive that lies about its sizes", lying, "Cannot read .* as a checkpoint|compressed archive")
import_of("an archive with a short member", repacked(zipfile.ZIP_STORED), "Cannot read|does not fit", error=StarscapeError)
import_of("nothing in the file", lambda s, p: p.write_bytes(b"") and None, "Cannot read")
import_of("text", lambda s, p: p.write_bytes(b"epoch,loss\n1,2.3\n") and None, "Cannot read")
import_of("random bytes", lambda s, p: p.write_bytes(np.random.default_rng(0).bytes(5000)) and None, "Cannot read")
import_of("half of an archive", lambda s, p: torch.save(s.state(), p) or (p.write_bytes(p.read_bytes()[:-300]) and None), "Cannot read")
import_of("a folder", lambda s, p: p.mkdir(), "Cannot read")
import_of("no such file", lambda s, p: None, "There is no checkpoint")
import_of("no such safetensors file", lambda s, p: None, "There is no checkpoint", suffix=".safetensors")
import_of("half a safetensors file", lambda s, p: p.write_bytes(s.bytes()[:-9]) and None, "Cannot read", suffix=".safetensors")
for name, make in {
    "a list": lambda s: [1, 2],
    "nothing": lambda s: None,
    "a tensor": lambda s: torch.ones(3),
    "an empty dict": lambda s: {},
    "numbers": lambda s: {"lr": 0.1},
    "an optimizer": lambda s: {"state": {}, "param_groups": []},
    "a list under state_dict": lambda s: {"state_dict": [torch.ones(2)]},
}.items():
    import_of(f"no state: {name}", saved(make), "holds no state dict.*Save model.state_dict")
for name, make in {
    "sparse": lambda s: s.state(**{"linear2.weight": WEIGHT.to_sparse()}),
    "of no memory": lambda s: s.state(**{"linear2.weight": WEIGHT.to("meta")}),
}.items():
    import_of(f"a tensor that is {name}", saved(make), "wanted a plain tensor with values|Cannot read", error=StarscapeError)
import_of("a tensor of 10^12 repeated values", saved(lambda s: s.state(**{"linear2.weight": torch.zeros(1).expand(10**6, 10**6)})), r"shape \(1000000, 1000000\), wanted \(6, 6\)", error=StateError)
for name, (changed, words) in BAD_STATES.items():
    if name != "half precision":  # which is widened, and loses nothing
        import_of(f"state with {name}", saved(lambda s, c=changed: {k: v for k, v in s.state(**c).items() if v is not None}), words, error=StateError)
import_of("an unknown network", saved(lambda s: s.state()), "no network 'resnet81'", error=UnknownName, network="resnet81")
import_of("a network of other settings", saved(lambda s: s.state()), "cannot be built", error=SettingsError, network=Network("mlp", colour="red"))
import_of("an unknown role", saved(lambda s: s.state()), "no role 'villain'", error=UnknownName, role="villain")
import_of("metadata that does not go to JSON", saved(lambda s: s.state()), "does not go to JSON", error=SettingsError, when=object())
import_of("metrics that are a list", saved(lambda s: s.state()), "metrics must be", error=SettingsError, metrics=[1])
case("import, nothing given", ZooError, "No checkpoints were given", lambda s: lambda: s.zoo.import_checkpoints([], network=NETWORK, role="source"))
case("import, no such list", ZooError, "Cannot read the list", lambda s: lambda: s.zoo.import_checkpoints(s.folder / "list.txt", network=NETWORK, role="source"))
case("import, a list of bytes", ZooError, "one path a line", lambda s: (lambda p: lambda: s.zoo.import_checkpoints(p, network=NETWORK, role="source"))(s.put("list.txt", b"\xff\xfe\x00")))
case("import, a list of what is not there", ZooError, "There is no checkpoint", lambda s: (lambda p: lambda: s.zoo.import_checkpoints(p, network=NETWORK, role="source"))(s.put("list.txt", b"../../etc/passwd.pt\n")))


# ---------------------------------------------------------------- names
for name in ("../evil", "/tmp/evil", "a/b", "a\\b", "..\\evil", "", ".", "..", ".hidden", "nul\0byte", "two\nlines", "C:evil", "\x1b[31mred", "\u202eevil", "\udcff", "x" * 201, "é" * 101, None, 5, b"bytes"):
    shown = repr(name)[:24]
    case(f"add under {shown}", ZooError, "A model name is the name of a file in the zoo", lambda s, n=name: lambda: s.zoo.add(n, s.state(), role="source", network=NETWORK))
    case(f"read {shown}", ZooError, "A model name is the name of a file in the zoo", lambda s, n=name: lambda: s.zoo.state(n))
for name in ("../evil", "/tmp/evil", "a/../../b", ".hidden", "nul\0byte", ""):
    case(f"remove {name!r}", ZooError, "A model name", lambda s, n=name: lambda: s.zoo.remove(n))
for name in ("../evil", "/tmp/evil", "a/../../b", ".hidden", "nul\0byte", 5):
    case(f"train a star {name!r}", ZooError, "A model name", lambda s, n=name: lambda: train_star(s.task, s.zoo, Recipe(epochs=1), name=n))
case("read what is not there", UnknownName, "Did you mean 'source-000'", lambda s: lambda: s.zoo.state("sauce-000"))
case("a zoo below a file", ZooError, "Give a folder that you may write to", lambda s: (lambda p: lambda: Zoo(p / "zoo"))(s.put("file", b"")))
case("a zoo of a path with a null byte", ZooError, "Give a folder", lambda s: lambda: Zoo(str(s.folder) + "/a\0b"))


# ---------------------------------------------------------------- settings
for changed in (
    {"epochs": -1}, {"epochs": "ten"}, {"epochs": 2.5}, {"epochs": None}, {"epochs": float("nan")}, {"batch_size": 0}, {"batch_size": "64"}, {"batch_size": 6.4},
    {"lr": 0}, {"lr": -0.1}, {"lr": float("nan")}, {"lr": float("inf")}, {"lr": "0.1"}, {"lr": None}, {"lr": [0.1]}, {"momentum": 1.0}, {"momentum": -0.1}, {"momentum": "0.9"},
    {"weight_decay": -1}, {"weight_decay": float("nan")}, {"label_smoothing": 1}, {"label_smoothing": "0"}, {"warmup_epochs": 61}, {"warmup_epochs": -1}, {"clip_norm": 0}, {"clip_norm": float("nan")},
    {"clip_norm": "1"}, {"milestones": 5}, {"milestones": ("a",)}, {"milestones": (float("nan"),)}, {"gamma": float("nan")}, {"gamma": "0.2"}, {"nesterov": "yes"}, {"augment": "no"}, {"compile": 2},
):  # fmt: skip
    case(f"Recipe({changed})", SettingsError, f"Recipe: {next(iter(changed))}", lambda s, c=changed: lambda: Recipe(**c))
for changed in ({"optimizer": "sdg"}, {"optimizer": None}, {"optimizer": ["sgd"]}, {"schedule": "cosinus"}, {"precision": "int8"}):
    case(f"Recipe({changed})", UnknownName, "There are: ", lambda s, c=changed: lambda: Recipe(**c))
for value in (5, None, "sgd", ["sgd"], [["lr", 0.1]], {"lr": {}}, {"lr": "x"}):
    case(f"Recipe.from_json({value!r})", (SettingsError, UnknownName), "[Rr]ecipe", lambda s, v=value: lambda: Recipe.from_json(v))
for value in ({"learning_rate": 0.1}, {"__class__": 1}, {1: 2}):
    case(f"Recipe.from_json({value!r})", UnknownName, "no recipe setting", lambda s, v=value: lambda: Recipe.from_json(v))
for settings in ({"width": "64"}, {"width": -1}, {"width": 0}, {"width": 2.5}, {"width": None}, {"depth": "3"}, {"input_shape": 5}, {"input_shape": [1, "a"]}, {"num_classes": -1}, {"colour": 1}, {"width": 10**18}):
    case(f"mlp({settings})", SettingsError, "cannot be built", lambda s, c=settings: lambda: Network("mlp", **c).build())
for settings in ({"width": {1, 2}}, {"width": object()}, {"width": torch.ones(1)}):
    case(f"mlp of {type(settings['width']).__name__}", SettingsError, "plain numbers, strings and lists", lambda s, c=settings: lambda: Network("mlp", **c))
case("a wide ResNet of another depth", SettingsError, "6n \\+ 4", lambda s: lambda: Network("wide_resnet", depth=11).build())
for value in (None, 5, "mlp", [], {}, {"name": "mlp"}, {"name": "mlp", "settings": None}, {"name": "mlp", "settings": {"name": 1}}):
    case(f"Network.from_json({value!r})", SettingsError, "described by name and settings", lambda s, v=value: lambda: Network.from_json(v))
for changed, error, words in (
    ({"n_sources": -1}, SettingsError, "Cannot train"), ({"n_sources": 1.5}, SettingsError, "Cannot train"), ({"n_sources": "3"}, SettingsError, "Cannot train"),
    ({"stacked": 0}, SettingsError, "stacked"), ({"stacked": -2}, SettingsError, "stacked"), ({"seed": -1}, SettingsError, "seed"), ({"seed": "x"}, SettingsError, "seed"), ({"seed": 1.5}, SettingsError, "seed"),
    ({"device": "banana"}, SettingsError, "Cannot use device 'banana'"), ({"device": "meta"}, SettingsError, "Cannot use device 'meta'"), ({"device": "cuda:99"}, SettingsError, "Cannot use device 'cuda:99'"),
    ({"device": object()}, SettingsError, "Cannot use device"),
):  # fmt: skip
    case(f"train_population, {str(changed)[:40]}", error, words, lambda s, c=changed: lambda: train_population(s.task, NETWORK, Recipe(epochs=1), s.zoo, **c))
for changed, error, words in (
    ({"mu": -1}, SettingsError, "mu must be"), ({"mu": float("nan")}, SettingsError, "mu must be"), ({"realign_every": 0}, SettingsError, "realign_every"), ({"t": "gauss"}, UnknownName, "uniform"),
    ({"sources": ["source-009"]}, UnknownName, "source-000"), ({"sources": []}, SettingsError, "empty list"), ({"init": "nobody"}, UnknownName, "no model"), ({"seed": -1}, SettingsError, "seed"),
    ({"device": "cuda:99"}, SettingsError, "Cannot use device"),
):  # fmt: skip
    case(f"train_star, {changed}", error, words, lambda s, c=changed: lambda: train_star(s.task, s.zoo, Recipe(epochs=1), **({"name": "new"} | c)))
for changed, error, words in (
    ({"splits": ("train", "dev")}, UnknownName, "no split 'dev'"), ({"batchnorm": "fresh"}, UnknownName, "cumulative"), ({"n_restarts": 0}, SettingsError, "n_restarts"), ({"select": "best"}, UnknownName, "midpoint"),
    ({"align": "wieghts"}, UnknownName, "weights"), ({"align_to": "nobody"}, UnknownName, "no model"), ({"memory_fraction": 0}, SettingsError, "memory_fraction"), ({"memory_fraction": 2}, SettingsError, "memory_fraction"),
    ({"device": "banana"}, SettingsError, "Cannot use device"), ({"device": "meta"}, SettingsError, "Cannot use device"), ({"seed": -1}, SettingsError, "seed"),
):  # fmt: skip
    case(f"sweep, {changed}", error, words, lambda s, c=changed: lambda: sweep(s.zoo, [("star-000", "source-000")], s.task, **({"points": 3} | c)))
for pairs, error, words in (("star-star-star", UnknownName, "star-source"), ([("star-000",)], SettingsError, "two model names"), ([("star-000", "nobody")], UnknownName, "no model"), ([("../evil", "star-000")], UnknownName, "no model"),
                            (5, SettingsError, "pair"), ([5], SettingsError, "pair"), ([("a", "b", "c")], SettingsError, "two model names")):  # fmt: skip
    case(f"sweep of pairs {pairs}", error, words, lambda s, p=pairs: lambda: sweep(s.zoo, p, s.task))


# ---------------------------------------------------------------- positions on a line
for points in (0, 1, -3, [0], [], [0, 0.5], [0.1, 1], [1, 0], [0, 0, 1], [0, float("nan"), 1], [0, 2], [-1, 0, 1], [[0, 1]], 2.5, "abc", "01", ["a", "b"], None, {"t": 0}, 10**12):
    case(f"positions {points!r}", SettingsError, "line", lambda s, p=points: lambda: sweep(s.zoo, [("star-000", "source-000")], s.task, points=p))
LINE = pd.DataFrame({"first": "a", "second": "b", "split": "train", "t": [0.0, 0.5, 1.0], "loss": [1.0, 2.0, 1.0], "accuracy": 0.5})
for name, frame, words in (("without its start", LINE[1:], "lacks an end"), ("without its end", LINE[:2], "lacks an end"), ("of one point", LINE[:1], "lacks an end"), ("without losses", LINE.drop(columns="loss"), "lacks loss")):
    case(f"a line {name}", DataError, words, lambda s, f=frame: lambda: barriers(f))
case("barriers of a zoo on nothing", SettingsError, "barriers\\(zoo, pairs, task\\)", lambda s: lambda: barriers(s.zoo))
for name, call in (("a panel", BarrierExplorer), ("all panels", StarDashboard), ("a star", lambda zoo: train_star(load_task("digits"), zoo)), ("model averaging", lambda zoo: bma(zoo, load_task("digits")))):
    case(f"{name} of a folder that is not there", ZooError, "no such folder", lambda s, call=call: lambda: call("nowhere/at-all"))
case("adaptive barriers of unknown models", UnknownName, "no model", lambda s: lambda: adaptive_barriers(s.zoo, [("star-000", "nobody")], s.task))


# ---------------------------------------------------------------- data
X, Y = torch.randn(12, 1, 4, 4), torch.arange(12) % 3
for name, args, words in (
    ("empty", (X[:0], Y[:0], X, Y), "train split is empty"),
    ("an empty test split", (X, Y, X[:0], Y[:0]), "test split is empty"),
    ("one class", (X, Y * 0, X, Y * 0), "class"),
    ("one class, the second", (X, Y * 0 + 1, X, Y * 0 + 1), "class"),
    ("one class in training", (X, Y * 0 + 2, X, Y), "class"),
    ("labels of another number", (X, Y[:7], X, Y), "12 inputs want 12 labels"),
    ("labels in two dimensions", (X, Y[:, None], X, Y), "one dimension"),
    ("one-hot labels", (X, torch.eye(3)[Y], X, Y), "one dimension"),
    ("labels that are fractions", (X, Y.float(), X, Y), "whole numbers from 0"),
    ("labels below zero", (X, Y - 1, X, Y), "whole numbers from 0"),
    ("inputs that are NaN", (X.clone().fill_(torch.nan), Y, X, Y), "NaN or infinite"),
    ("one infinite test input", (X, Y, torch.cat([X[:11], X[:1] / 0]), Y), "NaN or infinite"),
    ("complex inputs", (X.to(torch.complex64), Y, X, Y), "complex"),
    ("a list of inputs", ([[1.0]], Y, X, Y), "must be a tensor"),
    ("an array of labels", (X, Y.numpy(), X, Y), "must be a tensor"),
    ("no inputs", (None, Y, X, Y), "must be a tensor"),
    ("inputs that are one number", (torch.tensor(1.0), Y, X, Y), "one row"),
    ("test inputs of another shape", (X, Y, X[..., :2], Y), "must be the same"),
    ("test inputs of another type", (X, Y, X.double(), Y), "type"),
    ("sparse inputs", (X.flatten(1).to_sparse(), Y, X.flatten(1), Y), "plain tensor"),
    ("inputs of no memory", (X.to("meta"), Y, X, Y), "meta"),
    ("labels on another device", (X, Y.to("meta"), X, Y), "meta"),
):
    case(f"task: {name}", DataError, words, lambda s, a=args: lambda: Task("bad", *a))
for n in (1, 0, -1, 2, "ten", 3.5):
    case(f"task of {n!r} classes", DataError, "num_classes|class", lambda s, n=n: lambda: Task("bad", X, Y, X, Y, num_classes=n))
for n in (0, -5, 2.5, "all"):
    case(f"a subset of {n!r}", (DataError, SettingsError), "n_train is a whole number", lambda s, n=n: lambda: s.task.subset(n))
for size in (0, -1, 1.5):
    case(f"batches of {size}", SettingsError, "batch_size", lambda s, n=size: lambda: list(batches(s.task, batch_size=n)))
case("a task moved nowhere", SettingsError, "Cannot use device", lambda s: lambda: s.task.to("banana"))
case("a split that does not exist", UnknownName, "no split", lambda s: lambda: s.task.split("dev"))
case("an unknown dataset", UnknownName, "digits", lambda s: lambda: load_task("digit"))
for name in ("mnist", "fashion_mnist", "cifar10", "cifar100"):
    case(f"{name} in an empty folder", DataError, "download=True|Pass root", lambda s, n=name: lambda: load_task(n, root=s.folder / "nothing"))
case("a folder of data that is a file", DataError, "root", lambda s: (lambda p: lambda: load_task("mnist", root=p))(s.put("file", b"")))


def damaged_mnist(site):
    raw = site.folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for kind in ("train", "t10k"):
        for part in ("images-idx3", "labels-idx1"):
            (raw / f"{kind}-{part}-ubyte").write_bytes(b"\0\0\x08\x03\0\0\0\x05 short")
    return lambda: load_task("mnist", root=site.folder)


case("MNIST files that are damaged", DataError, "No usable MNIST files", damaged_mnist)


def cifar_pickle(site):
    folder = site.folder / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Evil(exec, touch)))
    return lambda: load_task("cifar10", root=site.folder)


case("CIFAR-10 files that hold code", DataError, "No usable CIFAR10 files", cifar_pickle)
other = lambda shape, classes=3: Task("other", torch.randn(12, *shape), torch.arange(12) % classes, torch.randn(12, *shape), torch.arange(12) % classes)
for name, call in {
    "a sweep": lambda s, t: sweep(s.zoo, "star-source", t, points=3),
    "training a star": lambda s, t: train_star(t, s.zoo, Recipe(epochs=1), name="new"),
}.items():
    case(f"{name} on images of another size", DataError, "Use the task it was trained on", lambda s, c=call: lambda: c(s, other((3, 9, 9))))
    case(f"{name} on more classes", DataError, "logits; the task has 5 classes", lambda s, c=call: lambda: c(s, other((1, 4, 4), 5)))
    case(f"{name} on token ids", DataError, "does not take inputs", lambda s, c=call: lambda: c(s, Task("tokens", *[torch.arange(96).view(6, 16), torch.arange(6) % 3] * 2)))
case("training on images of another size", (DataError, StarscapeError), "does not take inputs", lambda s: lambda: train(other((3, 9, 9)), NETWORK, Recipe(epochs=1)))
case("training on more classes", DataError, "logits; the task has 5 classes", lambda s: lambda: train(other((1, 4, 4), 5), NETWORK, Recipe(epochs=1)))


# ---------------------------------------------------------------- what is added
for name, model in {"a list": [1], "nothing": None, "a path": "model.pt", "numbers": {"w": 1.0}, "arrays": {"linear1.weight": np.ones(3)}, "an empty state": {}}.items():
    case(f"add {name}", (StateError, SettingsError), "Model 'new'|Say which network|state of 'new'", lambda s, m=model: lambda: s.zoo.add("new", m, role="source", network=NETWORK))
for name, (changed, words) in BAD_STATES.items():
    case(f"add a state with {name}", StateError, words, lambda s, c=changed: lambda: s.zoo.add("new", {k: v for k, v in s.state(**c).items() if v is not None}, role="source", network=NETWORK))
for name, more in {"a set": {"tags": {1, 2}}, "NaN": {"metrics": {"loss": float("nan")}}, "a metric called name": {"metrics": {"name": 1}}, "a task that is a Task": {"task": 5}, "a circle": {"tags": (lambda x: x.append(x) or x)([])}}.items():
    case(f"add with {name}", SettingsError, "metadata of 'new'", lambda s, m=more: lambda: s.zoo.add("new", s.state(), role="source", network=NETWORK, **m))
case("add under a taken name", ZooError, "overwrite=True", lambda s: lambda: s.zoo.add("star-000", s.state(), role="star", network=NETWORK))
case("add under a taken name, of another network", StateError, "does not fit", lambda s: lambda: s.zoo.add("star-000", s.state(), role="star", network=Network("mlp", width=7, depth=2, input_shape=[1, 4, 4], num_classes=3), overwrite=True))
case("add with an unknown role", UnknownName, "no role", lambda s: lambda: s.zoo.add("new", s.state(), role="sauce", network=NETWORK))
case("add without saying of which network", SettingsError, "Say which network", lambda s: lambda: s.zoo.add("new", {"w": torch.ones(2)}))


# a fault of the tests themselves would be an error of Python's, and no StarscapeError
@pytest.mark.parametrize("name", CASES)
def test_bad_input(site, tally, name):
    error, words, prepare = CASES[name]
    call = prepare(site)
    before = tree(site.folder)
    with tally("bad inputs"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(error, match=words) as raised:
            call()
        assert isinstance(raised.value, StarscapeError) and len(str(raised.value)) < 1000
        assert tree(site.folder) == before, "something changed on disk"
        assert not TOUCHED.exists(), "something in the file was executed"


def test_there_are_enough():
    assert len(CASES) >= 120


def test_a_good_file_passes_where_the_bad_ones_fail(site):
    "Without this, the cases above could fail for another reason than their fault."
    site.file.write_bytes(foreign_state()(b""))
    site.zoo.network("bad")
    site.file.write_bytes(metadata({})(site.bytes()))
    assert site.zoo.metadata("bad")["role"] == "source"
    torch.save(site.state(), site.folder / "theirs.pt")
    assert site.zoo.import_checkpoints(site.folder / "theirs.pt", network=NETWORK, role="source") == ["theirs"]
    torch.save({k: v.half() for k, v in site.state().items()}, site.folder / "half.pt")
    assert site.zoo.state(site.zoo.import_checkpoints(site.folder / "half.pt", network=NETWORK, role="source")[0])["linear1.weight"].dtype == torch.float32
    assert train_star(site.task, site.zoo, Recipe(epochs=1), name="new") in site.zoo.stars
    assert len(sweep(site.zoo, "star-source", site.task, points=3)) > 0
    assert TOUCHED.parent.exists() and not TOUCHED.exists()


def test_the_evil_would_act():
    "A plain unpickler executes what the cases hold."
    try:
        pickle.loads(pickle.dumps(Evil(exec, touch)))
        assert TOUCHED.exists()
    finally:
        TOUCHED.unlink(missing_ok=True)
