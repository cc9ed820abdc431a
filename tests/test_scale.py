"Workers, ranks and streams: many of them give what one process with everything in memory gives, and one that dies costs its own task."
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import joblib
import pytest
import torch

from starscape import star_training
from starscape.barriers import sweep
from starscape.data import SettingsError, TrainingError, load_task
from starscape.distributed import fan_out, worker_device
from starscape.interpolation import symmetry_for
from starscape.matching import match_many
from starscape.networks import Network
from starscape.star_training import _Starlight, train_star
from starscape.training import Recipe, train_population
from starscape.zoo import Zoo

NETWORK, RECIPE = Network("mlp", width=8, depth=2), Recipe(epochs=4, batch_size=32)
POPULATION = dict(n_sources=5, n_heldout=1, stacked=2)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    "Here as in the workers: bits depend on the number of threads."
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def task():
    return load_task("digits").subset(320, 80)


@pytest.fixture(scope="module")
def serial(task, tmp_path_factory):
    return train_population(task, NETWORK, RECIPE, tmp_path_factory.mktemp("serial"), **POPULATION)


@pytest.fixture(scope="module")
def dask_client():
    distributed = pytest.importorskip("dask.distributed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        yield client


def digests(zoo):
    return {n: zoo.digest(n) for n in zoo.names}


class Own(torch.nn.Sequential):
    "A network that no worker knows of."

    def __init__(self):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.Tanh(), torch.nn.Linear(8, 10))


@pytest.mark.parametrize("backend", ["loky", "threading", "dask"])
def test_a_population_from_workers_has_the_same_bits(task, serial, tmp_path, backend, request):
    if backend == "dask":
        request.getfixturevalue("dask_client")
    with joblib.parallel_config(backend=backend, n_jobs=2):
        zoo = train_population(task, NETWORK, RECIPE, tmp_path, **POPULATION)
    assert digests(zoo) == digests(serial) and zoo.metadata("source-003")["metrics"] == serial.metadata("source-003")["metrics"]


@pytest.mark.parametrize("backend", ["loky", "threading", "dask"])
def test_a_sweep_from_workers_has_the_same_bits(task, tmp_path, backend, request):
    "Of a network that no worker knows; what is in the cache already is not measured again."
    if backend == "dask":
        request.getfixturevalue("dask_client")
    zoo = train_population(task, Own, Recipe(epochs=1), tmp_path / "zoo", n_sources=3, n_heldout=1)
    alone = sweep(zoo, "regular-regular", task, points=5, cached=False)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        together = sweep(zoo, "regular-regular", task, points=5)
        assert together.equals(alone)
        assert len(zoo.cache.items("sweep")) == 3
        assert sweep(zoo, "regular-regular", task, points=5).equals(alone)
    assert len(zoo.cache.items("sweep")) == 3


RAY = """
import pickle, sys, joblib, ray
from ray.util.joblib import register_ray
import torch; torch.set_num_threads(1)
from starscape.barriers import sweep
from starscape.data import load_task
from starscape.interpolation import symmetry_for
from starscape.matching import match_many
from starscape.networks import Network
from starscape.training import Recipe, train_population
register_ray()
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
task, network = load_task("digits").subset(320, 80), Network("mlp", width=8, depth=2)
with joblib.parallel_config(backend="ray", n_jobs=2):
    zoo = train_population(task, network, Recipe(epochs=4, batch_size=32), sys.argv[1], n_sources=5, n_heldout=1, stacked=2)
    states = [zoo.state(n) for n in zoo.names]
    found = match_many(symmetry_for(network.of(network, task), task), states[0], states[1:])
    rows = sweep(zoo, "regular-regular", task, points=3)
ray.shutdown()
pickle.dump((found, rows), open(sys.argv[2], "wb"))
"""


@pytest.mark.soak
def test_ray_trains_matches_and_sweeps_with_the_same_bits(task, serial, tmp_path):
    pytest.importorskip("ray")
    command = [sys.executable, "-c", RAY, str(tmp_path / "zoo"), str(tmp_path / "found")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ | {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0"})
    assert done.returncode == 0, done.stderr[-3000:]
    found, rows = pickle.loads((tmp_path / "found").read_bytes())
    states = [serial.state(n) for n in serial.names]
    here = match_many(symmetry_for(NETWORK.of(NETWORK, task), task), states[0], states[1:])
    assert digests(Zoo(tmp_path / "zoo")) == digests(serial)
    assert all(p[g].equal(q[g]) for p, q in zip(here, found) for g in p) and len(here) == len(found) == 5
    assert rows.equals(sweep(serial, "regular-regular", task, points=3, cached=False))


def test_a_network_of_ones_own_goes_to_the_workers(task, tmp_path):
    own = lambda: Own()
    own.__qualname__ = "own"
    zoo = train_population(task, own, RECIPE, tmp_path / "serial", n_sources=2, n_heldout=0, stacked=1)
    with joblib.parallel_config(backend="loky", n_jobs=2):
        spread = train_population(task, own, RECIPE, tmp_path / "spread", n_sources=2, n_heldout=0, stacked=1)
    assert digests(spread) == digests(zoo)


def test_a_rerun_trains_only_what_is_missing(task, serial, tmp_path):
    zoo = train_population(task, NETWORK, RECIPE, tmp_path, **POPULATION)
    before = {n: (tmp_path / f"{n}.safetensors").stat().st_mtime_ns for n in zoo.names}
    zoo.remove("source-003")
    with joblib.parallel_config(backend="loky", n_jobs=2):
        train_population(task, NETWORK, RECIPE, tmp_path, **POPULATION)
    assert [n for n in zoo.names if (tmp_path / f"{n}.safetensors").stat().st_mtime_ns != before[n]] == ["source-003"]
    assert digests(zoo) == digests(serial)


def test_divergence_in_a_worker_says_what_it_says_here(task, tmp_path):
    with joblib.parallel_config(backend="loky", n_jobs=2), pytest.raises(TrainingError, match="the loss is"):
        train_population(task, NETWORK, Recipe(epochs=2, lr=1e20), tmp_path, n_sources=2, n_heldout=0, stacked=1)


def append(path, task):
    with open(path, "a") as f:
        f.write(f"{task}\n")
    if task == "bad":
        raise ValueError("this one cannot be done")


def test_the_other_tasks_are_done_before_one_is_reported(tmp_path):
    path, tasks = tmp_path / "done", ["bad", "a", "b", "c"]
    with joblib.parallel_config(backend="loky", n_jobs=2), pytest.raises(ValueError, match="cannot be done"):
        fan_out(partial(append, path), lambda: tasks)
    assert sorted(path.read_text().split()) == sorted(tasks)


def held(folder, i):
    "A GPU, kept until the other worker has one as well."
    with worker_device(gpus=["test-a", "test-b"]) as device:
        (folder / str(i)).touch()
        while len(list(folder.iterdir())) < 2:
            time.sleep(0.01)
        return device.index


def test_each_worker_has_a_gpu_of_its_own(tmp_path):
    with joblib.parallel_config(backend="loky", n_jobs=2):
        assert sorted(joblib.Parallel(batch_size=1, pre_dispatch=2)(joblib.delayed(held)(tmp_path, i) for i in range(2))) == [0, 1]


def test_the_gpus_of_a_machine_are_those_that_cuda_shows(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "test-6,test-7")
    with worker_device() as first, worker_device("cuda") as second, worker_device() as third:
        assert (first, second, third) == (torch.device("cuda:0"), torch.device("cuda:1"), torch.device("cuda:0"))  # the third shares
    with worker_device("cpu") as device:
        assert device == torch.device("cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "test-7,test-6")  # another job's view of the same two
    with worker_device() as first, worker_device() as second:
        assert (first.index, second.index) == (0, 1)


def dies(trap, parent):
    "Kills the first worker that comes by."
    if os.getpid() != parent:
        with contextlib.suppress(FileNotFoundError):
            trap.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


class Deadly(Recipe):
    "The first worker that gets to step 15 is killed."

    trap, parent = Path(), 0

    def lr_at(self, step, steps_per_epoch):
        if step == 15:
            dies(self.trap, self.parent)
        return super().lr_at(step, steps_per_epoch)


@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_a_killed_worker_costs_its_own_task(task, serial, tmp_path, backend, request):
    if backend == "dask":
        request.getfixturevalue("dask_client")
    recipe, trap = Deadly(**RECIPE.to_json()), tmp_path / "trap"
    object.__setattr__(recipe, "trap", trap)
    object.__setattr__(recipe, "parent", os.getpid())
    trap.touch()
    with joblib.parallel_config(backend=backend, n_jobs=2), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        zoo = train_population(task, NETWORK, recipe, tmp_path / "zoo", **POPULATION)
    assert not trap.exists()  # somebody died
    assert backend == "dask" or any("A worker was lost" in str(w.message) for w in caught)
    assert digests(zoo) == digests(serial)


class DeadlyNetwork(Own):
    "The first worker that evaluates it is killed."

    def __init__(self, trap, parent):
        super().__init__()
        self.trap, self.parent = trap, parent

    def forward(self, x):
        dies(self.trap, self.parent)
        return super().forward(x)


def test_a_killed_worker_costs_its_own_pairs(task, tmp_path):
    trap, parent = tmp_path / "trap", os.getpid()
    network = lambda: DeadlyNetwork(trap, parent)
    network.__qualname__ = "deadly"
    zoo = train_population(task, network, Recipe(epochs=1), tmp_path / "zoo", n_sources=3, n_heldout=1)
    alone = sweep(zoo, "regular-regular", task, points=3, cached=False)
    trap.touch()
    with joblib.parallel_config(backend="loky", n_jobs=2), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        together = sweep(zoo, "regular-regular", task, points=3)
    assert not trap.exists() and any("A worker was lost" in str(w.message) for w in caught)
    assert together.equals(alone) and len(zoo.cache.items("sweep")) == 3


class Interrupting(Recipe):
    def lr_at(self, step, steps_per_epoch):
        if step == 2 * steps_per_epoch + 1:
            raise KeyboardInterrupt
        return super().lr_at(step, steps_per_epoch)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_convolutional_networks_resume_to_the_same_bits(task, tmp_path, optimizer):
    "Their weights, and so the optimiser's moments, lie in memory with the channels last; in a file they do not."
    settings, network = dict(epochs=3, batch_size=80, lr=0.01, optimizer=optimizer), Network("resnet", width=4)
    zoos = [tmp_path / name for name in ("whole", "cut")]
    with pytest.raises(KeyboardInterrupt):
        train_population(task, network, Interrupting(**settings), zoos[1], n_sources=2, n_heldout=0, stacked=1)
    whole, cut = [train_population(task, network, Recipe(**settings), zoo, n_sources=2, n_heldout=0, stacked=1) for zoo in zoos]
    with pytest.raises(KeyboardInterrupt):
        train_star(task, cut, Interrupting(**settings))
    for zoo in (whole, cut):
        train_star(task, zoo, Recipe(**settings))
    assert digests(cut) == digests(whole)


# ---- one star in several processes

RANKS = """
import os, sys
import torch; torch.set_num_threads(1)
from starscape.data import load_task
from starscape.distributed import process_group, rank
from starscape.interpolation import symmetry_for
from starscape.matching import match_many
from starscape.networks import Network
from starscape.star_training import train_star
from starscape.training import Recipe

class Dying(Recipe):
    def lr_at(self, step, steps_per_epoch):
        if step == int(os.environ.get("DIE_AT", -1)): os._exit(1)
        return super().lr_at(step, steps_per_epoch)

with process_group() as r:
    written = []
    import starscape.zoo, starscape.training
    for module in (starscape.zoo, starscape.training):
        write = module.write_atomically
        module.write_atomically = lambda path, data, write=write: (written.append(str(path)), write(path, data))
    name = train_star(load_task("digits").subset(320, 80), sys.argv[1], Dying(epochs=4, batch_size=32), checkpoint_every=0, **eval(sys.argv[2]))
    assert bool(written) == (r == 0), (r, written)
    print(f"rank {r} has {name}")
"""


def torchrun(zoo, options, ranks=2, **environment):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "--max-restarts=0", str(zoo.path / "ranks.py"), str(zoo.path), repr(options)]
    (zoo.path / "ranks.py").write_text(RANKS)
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"} | environment)


def copy_of(serial, path):
    zoo = Zoo(path)
    for name in serial.names:
        (zoo.path / f"{name}.safetensors").write_bytes((serial.path / f"{name}.safetensors").read_bytes())
    return zoo


@pytest.fixture(scope="module")
def with_batchnorm(task, tmp_path_factory):
    network = Network("mlp", width=8, depth=2, batchnorm=True)
    return train_population(task, network, RECIPE, tmp_path_factory.mktemp("batchnorm"), n_sources=3, n_heldout=0)


@pytest.mark.parametrize(("population", "options"), [pytest.param("serial", dict(pairs=4, mu=0.5), marks=pytest.mark.soak), ("with_batchnorm", dict(pairs=4, realign_every=2))], ids=str)
def test_two_ranks_train_what_one_process_trains(task, tmp_path, request, population, options):
    population = request.getfixturevalue(population)
    alone, shared = copy_of(population, tmp_path / "alone"), copy_of(population, tmp_path / "shared")
    train_star(task, alone, RECIPE, **options)
    done = torchrun(shared, options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rank 0 has star-000" in done.stdout and "rank 1 has star-000" in done.stdout
    for key, value in alone.state("star-000").items():
        torch.testing.assert_close(shared.state("star-000")[key], value, rtol=1e-3, atol=1e-4)
    train_star(task, alone, RECIPE, **options, seed=1)
    another = alone.state("star-001")
    assert not all(torch.allclose(another[k], v, rtol=1e-3, atol=1e-4) for k, v in alone.state("star-000").items())  # the comparison can fail
    assert train_star(task, shared, RECIPE, **options) == "star-000"  # the same star, to whoever asks


@pytest.mark.soak
def test_ranks_resume_to_the_same_bits(serial, tmp_path):
    options = dict(pairs=2)
    whole, cut = copy_of(serial, tmp_path / "whole"), copy_of(serial, tmp_path / "cut")
    assert torchrun(whole, options).returncode == 0
    assert torchrun(cut, options, DIE_AT="25").returncode != 0
    assert "star-000" not in cut and (cut.path / ".unfinished" / "star-000.safetensors").exists()
    done = torchrun(cut, options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert cut.digest("star-000") == whole.digest("star-000")
    assert not (cut.path / ".unfinished" / "star-000.safetensors").exists()


def test_pairs_that_ranks_cannot_share_are_refused(task, serial, tmp_path, monkeypatch):
    monkeypatch.setattr(star_training, "world_size", lambda: 2)
    with pytest.raises(SettingsError, match="2 processes cannot share 3"):
        train_star(task, copy_of(serial, tmp_path), RECIPE, pairs=3)


# ---- more sources than memory holds


@pytest.mark.parametrize("options", [{}, dict(pairs=4), dict(realign_every=3), dict(align_ahead=3, pairs=2)], ids=str)
def test_a_star_is_the_same_whatever_memory_there_is(task, serial, tmp_path, options):
    stars = []
    for memory in (0, 20_000, 2**30):
        zoo = copy_of(serial, tmp_path / str(memory))
        train_star(task, zoo, RECIPE, memory=memory, **options)
        stars.append(zoo.digest("star-000"))
    assert len(set(stars)) == 1


def starlight(task, zoo, recipe, **options):
    defaults = dict(t="uniform", mu=0.0, realign_every=1, init=None, pairs=1, ema=0.0, align_ahead=0)
    return _Starlight(task, zoo, recipe, NETWORK.of(NETWORK, task), zoo.sources, 0, **(defaults | options))


@pytest.mark.parametrize(("pairs", "same"), [(5, True), (1, False)])
def test_only_drawn_sources_are_aligned(task, serial, monkeypatch, pairs, same):
    "Where every source is drawn in every epoch, nothing differs from aligning all; otherwise fewer are, and the first epoch agrees."
    from starscape.training import Checkpoint

    recipe = Recipe(epochs=3, batch_size=160)  # two steps an epoch, five sources
    runs, counts = [], []
    for everything in (False, True):
        run, aligned, stars = starlight(task, serial, recipe, pairs=pairs), [], []
        match, missing, step = run.match, run.missing, run.step
        if everything:
            run.missing = lambda window, rows, missing=missing: missing(window, torch.arange(5))
        run.match = lambda *a, numbers, match=match, aligned=aligned, **k: aligned.append(numbers) or match(*a, numbers=numbers, **k)
        run.step = lambda epoch, i, run=run, step=step, stars=stars: stars.append(run.star.clone()) or step(epoch, i)
        run.run(Checkpoint(None, {}), "")
        runs.append(stars)
        counts.append(sum(map(len, aligned)))
    agree = [a.equal(b) for a, b in zip(*runs)]
    assert counts[1] == 15 and (counts[0] == 15) == same
    assert all(agree) if same else all(agree[:3])  # the star that begins the second epoch included


def test_a_mapped_source_that_is_damaged_says_so(task, serial, tmp_path):
    zoo = copy_of(serial, tmp_path)
    path = zoo.path / "source-002.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Exception, match="source-002") as caught:
        train_star(task, zoo, RECIPE, memory=0)
    assert type(caught.value).__module__ == "starscape.data"


# ---- matching on workers


@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_many_matchings_on_workers_are_those_found_here(task, serial, backend, request):
    if backend == "dask":
        request.getfixturevalue("dask_client")
    symmetry, states = symmetry_for(NETWORK.of(NETWORK, task), task), [serial.state(n) for n in serial.names]
    here = match_many(symmetry, states[0], states[1:])
    with joblib.parallel_config(backend=backend, n_jobs=2):
        there = match_many(symmetry, states[0], states[1:])
    assert all(p[g].equal(q[g]) for p, q in zip(here, there) for g in p) and len(here) == len(there) == 5
