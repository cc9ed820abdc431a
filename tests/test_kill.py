"Processes that are killed or interrupted, and processes that share a zoo: nothing is lost, nothing is done twice, the bits are the same."
import json
import os
import random
import signal
import time

import pytest
from stages import STAGES, contents

FULL = pytest.mark.soak


def promised(folder):
    "What processes said was kept, the moment before they died."
    text = (folder / "log").read_text() if (folder / "log").exists() else ""
    return [tuple(json.loads(line)) for line in text.splitlines() if line.startswith("[")]


def disturb(analysis, tmp_path, tally, stage, sent, many, seed=0):
    "Signals at random moments of a stage, each followed by a look at what is there; then the stage runs to its end."
    draw, folder, children, times = random.Random(f"{stage} {sent} {seed}"), tmp_path / "work", analysis.children, 0
    analysis.fresh(stage, folder)
    whole, seconds = True, analysis.seconds[stage]
    for _ in range(20 * many):
        pid, moment = children.fork(stage, folder, log=True), draw.uniform(0, 1.1) * seconds
        time.sleep(moment)
        os.kill(pid, sent)  # its parent has not asked for its status yet, so the id is still its own
        status = children.wait(pid)
        if status == 0:  # it was through before: from the beginning
            assert analysis.lost(stage, folder, promised(folder)) == []
            analysis.fresh(stage, folder)
            if whole:
                seconds = moment  # the machine is less busy than it was
            whole = True
            continue
        times, whole = times + 1, False
        with tally(f"{'kills' if sent == signal.SIGKILL else 'Ctrl-C'}: {stage}"):
            assert status == (-sent if sent == signal.SIGKILL else 130), (folder / "log").read_text()
            assert analysis.lost(stage, folder, promised(folder)) == []
        if times == many:
            break
    assert times >= many // 2
    with tally("runs taken up again: same bits"):
        assert children.run(stage, folder) == 0, (folder / "log").read_text()
        assert contents(folder) == analysis.after[stage]
        assert not list((folder / "zoo" / ".unfinished").glob("*.safetensors"))


@pytest.mark.parametrize("many", [10, pytest.param(60, marks=FULL)])
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_random_moments(analysis, tmp_path, tally, stage, many):
    disturb(analysis, tmp_path, tally, stage, signal.SIGKILL, many)


@pytest.mark.parametrize("many", [3, pytest.param(30, marks=FULL)])
@pytest.mark.parametrize("stage", STAGES)
def test_interrupted_at_random_moments(analysis, tmp_path, tally, stage, many):
    disturb(analysis, tmp_path, tally, stage, signal.SIGINT, many)


@pytest.mark.parametrize("times", [1, pytest.param(15, marks=FULL)])
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_on_one_zoo(analysis, tmp_path, tally, stage, times):
    "Neither corrupts the other's work; no model is trained twice; the lock of one that is killed is taken over."
    children, folder, draw = analysis.children, tmp_path / "work", random.Random(stage)
    for killed in (False, True):
        for _ in range(times):
            analysis.fresh(stage, folder)
            pids = [children.fork(stage, folder, log=True) for _ in range(2)]
            with tally("two processes on one zoo" + (", one killed" if killed else "")):
                if killed:
                    time.sleep(draw.uniform(0, 1) * analysis.seconds[stage])
                    os.kill(pids[0], signal.SIGKILL)
                status = [children.wait(pid) for pid in pids]
                assert status[1] == 0 and (killed or status[0] == 0), (folder / "log").read_text()
                assert contents(folder) == analysis.after[stage]
                models = [key for key in promised(folder) if key[0] == "model"]
                assert killed or len(models) == len(set(models)), "a model was trained twice"
