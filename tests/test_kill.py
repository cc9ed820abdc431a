"Processes that are killed, and processes that share a zoo: nothing is lost, nothing is done twice, the bits are the same."
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from starscape.zoo import Zoo

JOB = """
import sys
import torch; torch.set_num_threads(1)
from starscape.barriers import sweep
from starscape.data import load_task
from starscape.networks import Network
from starscape.star_training import train_star
from starscape.training import Recipe, train_population
task, path, stacked = load_task("digits").subset(320, 80), sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
zoo = train_population(task, Network("mlp", width=8, depth=2), Recipe(epochs=25), path, n_sources=3, n_heldout=1, stacked=stacked, checkpoint_every=0)
train_star(task, zoo, Recipe(epochs=40), checkpoint_every=0)
sweep(zoo, ["star-source", "regular-regular"], task, points=5)
print("done", flush=True)
"""


def start(path, stacked):
    environment = os.environ | {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", JOB, str(path), str(stacked)], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process):
    assert process.communicate(timeout=120)[0] == "done\n" and process.returncode == 0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    "Digests of all models, and the seconds it took."
    digests, began = {}, 0.0
    for stacked in (1, 4):
        path = tmp_path_factory.mktemp("undisturbed")
        process = start(path, stacked)
        began = time.perf_counter()
        finish(process)
        zoo = Zoo(path)
        digests[stacked] = {n: zoo.digest(n) for n in zoo.names}
    return digests, time.perf_counter() - began


@pytest.mark.parametrize(("stacked", "most"), [(4, 3), pytest.param(1, 25, marks=pytest.mark.soak), pytest.param(4, 25, marks=pytest.mark.soak)])
def test_killed_at_random_moments(tmp_path, undisturbed, stacked, most):
    digests, seconds = undisturbed
    draw, kills = random.Random(stacked), 0
    while True:
        process = start(tmp_path, stacked)
        try:
            process.wait(timeout=draw.uniform(0.05, 0.6) * seconds if kills < most else 120)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            zoo = Zoo(tmp_path)
            for name in zoo.names:  # whatever is there is whole, and the right one
                assert zoo.digest(name) == digests[stacked][name]
                assert zoo.metadata(name)["metrics"]["test_accuracy"] > 0
            continue
        assert process.returncode == 0
        break
    zoo = Zoo(tmp_path)
    assert {n: zoo.digest(n) for n in zoo.names} == digests[stacked]
    assert not list((tmp_path / ".unfinished").glob("*.safetensors"))
    print(f"{kills} kills, nothing lost")
    assert kills >= 1


def test_two_processes_on_one_zoo(tmp_path, undisturbed):
    processes = [start(tmp_path, 1) for _ in range(2)]
    for process in processes:
        finish(process)
    zoo = Zoo(tmp_path)
    assert {n: zoo.digest(n) for n in zoo.names} == undisturbed[0][1]
