"Random bytes and random settings: what reads files and settings ends in a result or in one of the package's own errors."
import argparse
import io
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_bytes

from starscape.cli import _settings
from starscape.data import StarscapeError
from starscape.networks import Network
from starscape.training import Recipe
from starscape.zoo import Cache, Zoo, read_checkpoint, read_header
import contextlib

NETWORK = Network("mlp", width=3, depth=1, input_shape=[1, 2, 2], num_classes=2)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
mutations = st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(["flip", "insert", "cut", "set"]), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4)
pytestmark = pytest.mark.filterwarnings("ignore")
fuzz = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def mutated(data, changes):
    for place, how, more in changes:
        i = place % max(1, len(data))
        if how == "flip":
            data = data[:i] + bytes([data[i] ^ (1 << more[0] % 8)]) + data[i + 1 :] if data else data
        elif how == "insert":
            data = data[:i] + more + data[i:]
        elif how == "cut":
            data = data[:i] + data[i + len(more) :]
        else:
            data = data[:i] + more + data[i + len(more) :]
    return data


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    zoo = Zoo(tmp_path_factory.mktemp("zoo"))
    zoo.add("good", NETWORK.build(0), role="source", network=NETWORK, task="points", seed=0)
    return zoo


@fuzz
@given(changes=mutations)
def test_a_changed_file_is_noticed_or_the_same(zoo, tally, changes):
    path, whole = zoo.path / "bad.safetensors", (zoo.path / "good.safetensors").read_bytes()
    path.write_bytes(mutated(whole, changes))
    with tally("fuzz: changed files"):
        try:
            metadata, digest = zoo.metadata("bad"), Zoo(zoo.path).digest("bad")
        except StarscapeError:
            return
        # one whose seal was cut off is a file from elsewhere; any other is bit for bit what was written
        assert b"starscape-seal" not in path.read_bytes() or (metadata, digest) == (zoo.metadata("good"), zoo.digest("good"))


@fuzz
@given(value=plain, text=st.text(max_size=40), body=st.binary(max_size=60))
def test_any_header(zoo, tally, value, text, body):
    path = zoo.path / "bad.safetensors"
    for data in (
        save_bytes({"w": torch.ones(2)}, {"starscape": json.dumps(value)}),
        save_bytes({"w": torch.ones(2)}, {"starscape": json.dumps({"role": "source", "network": value, "metrics": value, "task": text})}),
        save_bytes({"w": torch.ones(2)}, {"starscape": json.dumps({"role": "star", "network": {"name": "mlp", "settings": value}})}),
        len(text.encode()).to_bytes(8, "little") + text.encode() + body,
    ):
        path.write_bytes(data)
        with tally("fuzz: headers"):
            try:
                assert read_header(path)["role"] in ("source", "star")
                zoo.frame()
            except StarscapeError:
                pass


@fuzz
@given(changes=mutations, old=st.booleans())
def test_a_changed_checkpoint(zoo, tally, changes, old):
    buffer = io.BytesIO()
    torch.save(NETWORK.build(0).state_dict(), buffer, _use_new_zipfile_serialization=not old)
    path = zoo.path / "theirs.pt"
    path.write_bytes(mutated(buffer.getvalue(), changes))
    with tally("fuzz: checkpoints"), contextlib.suppress(StarscapeError):
        assert all(isinstance(v, torch.Tensor) for v in read_checkpoint(path).values())


@fuzz
@given(changes=mutations)
def test_a_changed_cache(tmp_path_factory, tally, changes):
    path = tmp_path_factory.mktemp("cache") / "cache.sqlite"
    value = {"loss": np.arange(4.0), "note": "a"}
    Cache(path).put("sweep", [1], value)
    path.write_bytes(mutated(path.read_bytes(), changes))
    with tally("fuzz: caches"):
        found = Cache(path).get("sweep", [1])
        assert found is None or (found["note"] == "a" and np.array_equal(found["loss"], value["loss"]))
        assert isinstance(Cache(path).items("sweep"), list)


@fuzz
@given(value=plain | st.dictionaries(st.sampled_from([*Recipe().to_json()]), plain, max_size=4))
def test_any_recipe(tally, value):
    with tally("fuzz: recipes"):
        try:
            recipe = Recipe.from_json(value)
        except StarscapeError:
            return
        assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@fuzz
@given(value=plain, name=st.sampled_from(["mlp", "resnet"]) | st.text(max_size=8))
def test_any_network(tally, value, name):
    with tally("fuzz: networks"):
        for described in (value, {"name": name, "settings": value}):
            try:
                network = Network.from_json(described)
            except StarscapeError:
                continue
            assert Network.from_json(network.to_json()) == network


@fuzz
@given(text=st.text(max_size=60) | st.lists(st.sampled_from(["width", "depth", "name", "self", "=", ",", "[", "]", "1", "true", "NaN", '"a"', "{", "}", " "]), max_size=14).map("".join))
def test_any_settings_on_the_command_line(tally, text):
    with tally("fuzz: settings"):
        try:
            found = _settings(text)
            Network.from_json({"name": "mlp", "settings": found})
        except (argparse.ArgumentTypeError, StarscapeError):
            return
        assert isinstance(found, dict)
