"""A fault at every call that changes a file, a disk that is full, a folder that can only be read: the zoo opens, holds what
was finished, and the same work done again gives the same bits."""
import json

import pytest
from stages import STAGES, contents

KINDS = [("ENOSPC", False), ("die", False), ("power", False), ("ENOSPC", True), ("EACCES", False), ("EROFS", True), ("EIO", False)]  # True: all calls from that one on


def calls_of(analysis, stage, tmp_path):
    "The calls of an undisturbed run that change a file, in their order."
    folder, count = analysis.fresh(stage, tmp_path / "work"), tmp_path / "count"
    assert analysis.children.run(stage, folder, kind=None, count=str(count)) == 0
    return json.loads(count.read_text())


def recovers(analysis, stage, folder, tally, finished):
    assert analysis.lost(stage, folder) == []
    with tally("runs taken up again: same bits"):
        assert analysis.children.run(stage, folder) == 0, (folder / "log").read_text()
        found, wanted = contents(folder), analysis.after[stage]
        if finished and stage != "matching":  # a permutation that could not be kept is not looked for again where what it was for is there
            wanted = {key: value for key, value in wanted.items() if key[1] != "permutation" or key in found}
        assert found == wanted


@pytest.mark.parametrize("most", [14, pytest.param(10**6, marks=pytest.mark.soak)])
@pytest.mark.parametrize("stage", STAGES)
def test_a_fault_at_every_call(analysis, tmp_path, tally, stage, most):
    calls = calls_of(analysis, stage, tmp_path)
    assert len(calls) >= 6
    if most < len(calls):  # a few, of every sort of call
        first = {call: i for i, call in reversed(list(enumerate(calls)))}
        chosen = sorted({*first.values(), *range(0, len(calls), -(-len(calls) // most))})
        cases = [(i, *KINDS[n % len(KINDS)]) for n, i in enumerate(chosen)]
    else:
        kinds = lambda i: KINDS if len(calls) < 120 else [KINDS[(3 * i + k) % len(KINDS)] for k in range(3)]  # in turn, where the same calls come again and again
        cases = [(i, *kind) for i in range(len(calls)) for kind in kinds(i)]
    for i, kind, lasting in cases:
        folder = analysis.fresh(stage, tmp_path / "work")
        status = analysis.children.run(stage, folder, kind=kind, at=i + 1, lasting=lasting)
        with tally(f"faults: {stage}"):
            log = (folder / "log").read_text() if (folder / "log").exists() else ""
            assert status in ((9,) if kind in ("die", "power") else (0, 3)), f"{kind} at call {i + 1}, {calls[i]}: exit {status}\n{log}"
            recovers(analysis, stage, folder, tally, finished=status == 0)


@pytest.mark.parametrize("rooms", [(0, 12_288, 40_960), pytest.param(range(0, 200_000, 4096), marks=pytest.mark.soak)], ids=["short", "full"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_that_is_full(analysis, tmp_path, tally, stage, rooms):
    "A small file system of its own, not a simulation: SQLite meets it too."
    for room in rooms:
        folder = analysis.fresh(stage, tmp_path / "work")
        status = analysis.children.run(stage, folder, room=room)
        if status == 77:
            pytest.skip("this system lets no test mount a disk")
        with tally("full disks"):
            aside = tmp_path / "work aside"
            assert status in (0, 3), f"{room} bytes: exit {status}\n{(folder / 'log').read_text()}"
            recovers(analysis, stage, aside, tally, finished=status == 0)
        aside.rename(tmp_path / f"done {room}")


@pytest.mark.parametrize("stage", STAGES)
def test_a_folder_that_can_only_be_read(analysis, tmp_path, tally, stage):
    "Work that needs to write says so; what is there is found; work that is done is done again without a word."
    for done in (False, True):
        folder = tmp_path / f"work {done}"
        analysis.fresh(stage, folder)
        if done:
            assert analysis.children.run(stage, folder) == 0
        status = analysis.children.run(stage, folder, readonly=True)
        if status == 77:
            pytest.skip("this system lets no test mount a disk")
        with tally("folders that can only be read"):
            writes = stage in ("export",) or (not done and stage in ("population", "stacked population", "star"))
            assert status == (3 if writes else 0), (folder / "log").read_text()
            aside = tmp_path / f"work {done} aside"
            assert analysis.lost(stage, aside) == []
            assert done is False or contents(aside) == analysis.after[stage]


def test_the_shim_finds_what_it_is_for(analysis, tmp_path):
    "A write without fsync and rename is lost in a power cut: the layer that simulates one shows it."
    from stages import Faults

    import os

    for safe in (False, True):
        path, pid = tmp_path / f"file-{safe}", os.fork()
        if pid == 0:
            faults = Faults(tmp_path, "power", at=4 if safe else 3)
            faults.install()
            f = open(path, "wb")  # noqa: SIM115
            f.write(b"x" * 1000)
            f.flush()
            if safe:
                os.fsync(f.fileno())
            faults.tick("power cut")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        assert path.stat().st_size == (1000 if safe else 500)
