"""The stages of an analysis, each run in a process of its own that somebody may disturb.

`python stages.py` imports everything once and then forks a child for every line it reads, so that a test can start and
kill hundreds of processes. A line is a JSON list: `["fork", stage, folder, disturbance]` answers with the child's id
the moment that the stage begins, `["wait", id]` with its exit status. A child exits with 0 when its stage is finished, 3 after one of the package's own
errors, 4 after any other (with the traceback in FOLDER/log), 9 where it was told to die, 77 where the system forbids
what the test wants, 130 after Ctrl-C."""
import builtins
import ctypes
import errno
import gc
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

STAGES = ("population", "stacked population", "star", "matching", "sweep", "export")
EXPORTS = ("report.html", "rows.csv")


def run(stage, folder):
    "One stage of a small analysis; `folder` has what the stages before it left."
    from starscape.barriers import alignment, sweep
    from starscape.star_training import train_star
    from starscape.training import Recipe, train_population
    from starscape.zoo import Zoo, write_atomically

    zoo = folder / "zoo"
    if stage.endswith("population"):
        stacked = 4 if stage.startswith("stacked") else 1
        train_population(TASK, NETWORK, Recipe(epochs=4), zoo, n_sources=3, n_heldout=1, stacked=stacked, checkpoint_every=0)
    elif stage == "star":
        train_star(TASK, zoo, Recipe(epochs=6), checkpoint_every=0)
    elif stage == "matching":
        zoo = Zoo(zoo)
        for first, second in itertools.combinations(zoo.names, 2):
            alignment(zoo, first, second, TASK)
    elif stage == "sweep":
        sweep(zoo, ["star-source", "star-heldout", "regular-regular"], TASK, points=5)
    elif stage == "export":
        from starscape.viz import BarrierExplorer

        panel = BarrierExplorer(zoo, TASK, points=5)
        write_atomically(folder / "rows.csv", panel.to_dataframe().to_csv(index=False).encode())
        panel.to_html(folder / "report.html")


def contents(folder):
    "All that must not be lost: digests of the models, cached results, exports."
    from starscape.zoo import Zoo

    zoo = Zoo(folder / "zoo")
    found = {("model", name): zoo.digest(name) for name in zoo.names if zoo.metadata(name)}
    for name in EXPORTS:
        if (folder / name).exists():
            found["export", name] = (folder / name).read_bytes()
    if (zoo.path / "cache.sqlite").exists():
        db = sqlite3.connect(zoo.path / "cache.sqlite")
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            found |= {("cached", kind, key): value for kind, key, value in db.execute("SELECT kind, key, value FROM result")}
        db.close()
    return found


# ---------------------------------------------------------------- faults
ERRORS = {"ENOSPC": errno.ENOSPC, "EACCES": errno.EACCES, "EROFS": errno.EROFS, "EIO": errno.EIO}
WORDS = {"ENOSPC": "database or disk is full", "EACCES": "unable to open database file", "EROFS": "attempt to write a readonly database", "EIO": "disk I/O error"}


class Faults:
    "A layer over the calls that change files: counts them, and makes one (or all from one on) fail, or the process die there."

    def __init__(self, folder, kind=None, at=0, lasting=False):
        self.folder, self.kind, self.at, self.lasting, self.calls, self.unsynced = f"{folder}{os.sep}", kind, at, lasting, [], {}

    def tick(self, call, half=None):
        self.calls.append(call)
        n = len(self.calls)
        if self.kind is None or not (n == self.at or (self.lasting and n > self.at)):
            return
        if half:
            half()  # a write that fails has written something
        if self.kind == "power":  # what was not forced to the disk is half there
            for path in self.unsynced.values():
                if os.path.exists(path):
                    os.truncate(path, os.path.getsize(path) // 2)
        if self.kind in ("die", "power"):
            os._exit(9)
        if call.startswith("sqlite"):
            raise sqlite3.OperationalError(WORDS[self.kind])
        raise OSError(ERRORS[self.kind], os.strerror(ERRORS[self.kind]))

    def install(self):
        faults, here = self, lambda path: isinstance(path, (str, Path)) and str(path).startswith(self.folder)
        real = {name: getattr(os, name) for name in ("fsync", "replace", "rename", "unlink", "remove", "mkdir", "open")}
        real_open, real_connect = builtins.open, sqlite3.connect

        class File:
            def __init__(self, file):
                self.file = file

            def write(self, data):
                faults.tick("write", lambda: self.file.write(data[: len(data) // 2]))
                return self.file.write(data)

            def __enter__(self):
                return self

            def __exit__(self, *error):
                return self.file.__exit__(*error)

            def __getattr__(self, name):
                return getattr(self.file, name)

        def fake_open(file, mode="r", *args, **kwargs):
            if not here(file) or not set(mode) & set("wax+"):
                return real_open(file, mode, *args, **kwargs)
            faults.tick("open")
            opened = real_open(file, mode, *args, **kwargs)
            faults.unsynced[opened.fileno()] = str(file)
            return File(opened)

        def on_path(name):
            def call(path, *args, **kwargs):
                if here(path):
                    faults.tick(name)
                return real[name](path, *args, **kwargs)

            return call

        def fsync(descriptor):
            faults.tick("fsync")
            real["fsync"](descriptor)
            faults.unsynced.pop(descriptor, None)

        def replace(a, b):
            if here(a):
                faults.tick("rename")
                for descriptor, path in faults.unsynced.items():
                    if path == str(a):
                        faults.unsynced[descriptor] = str(b)
            return real["replace"](a, b)

        class Connection(sqlite3.Connection):
            def execute(self, *args):
                faults.tick("sqlite execute")
                return super().execute(*args)

            def __exit__(self, *error):
                faults.tick("sqlite commit")
                return super().__exit__(*error)

        def connect(*args, **kwargs):
            faults.tick("sqlite open")
            return real_connect(*args, factory=Connection, **kwargs)

        builtins.open, os.fsync, os.replace, os.rename, sqlite3.connect = fake_open, fsync, replace, replace, connect
        for name in ("unlink", "remove", "mkdir", "open"):
            setattr(os, name, on_path(name))


def mounted(folder, size, readonly):
    "Put the folder's content on a small disk of its own that only this process sees; gives back what copies it out again, or `None` where the system forbids it."
    libc = ctypes.CDLL(None, use_errno=True)
    new_user, new_namespace, private, remount_readonly = 0x10000000, 0x00020000, 0x44000, 0x21
    if libc.unshare(new_namespace | (new_user if os.getuid() else 0)) or libc.mount(b"none", b"/", None, private, None):
        return None
    copy = folder.with_name(folder.name + " aside")
    shutil.copytree(folder, copy)
    room = sum(-(-p.stat().st_size // 4096) * 4096 for p in copy.rglob("*") if p.is_file()) + size
    if libc.mount(b"none", str(folder).encode(), b"tmpfs", 0, f"size={room}".encode()):
        return None
    shutil.copytree(copy, folder, dirs_exist_ok=True)
    if readonly and libc.mount(b"none", str(folder).encode(), b"tmpfs", remount_readonly, None):
        return None

    def out():
        shutil.rmtree(copy)
        shutil.copytree(folder, copy)

    return out


def child(stage, folder, how):
    "Say that the stage begins, run it, disturbed, and exit. Ctrl-C comes after the former, and is not heard any more after the stage."
    from starscape.data import StarscapeError
    from starscape.zoo import Cache, Zoo

    os.environ["TQDM_DISABLE"] = "1"
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if how.get("log"):  # what was promised to be kept, the moment it was

        def kept(function, key):
            def call(self, *args, **kwargs):
                value = function(self, *args, **kwargs)
                os.write(log, (json.dumps(key(self, args)) + "\n").encode())
                return value

            return call

        Zoo.add = kept(Zoo.add, lambda zoo, args: ["model", args[0]])
        Cache.put = kept(Cache.put, lambda cache, args: ["cached", args[0], cache.hash(args[1])])
    disk = "room" in how or "readonly" in how
    out = mounted(folder, how.get("room", 1 << 26), how.get("readonly", False)) if disk else None
    faults = Faults(folder, how.get("kind"), how.get("at", 0), how.get("lasting", False))
    if "kind" in how:
        faults.install()
    status = 77 if disk and not out else 0
    try:
        warnings.simplefilter("ignore")
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts without it
        print(os.getpid(), flush=True)
        if not status:
            run(stage, folder)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except StarscapeError:
        status = 3
        os.write(log, traceback.format_exc().encode())
    except KeyboardInterrupt:
        status = 130
    except BaseException:
        status = 4
        os.write(log, traceback.format_exc().encode())
    if "count" in how:
        with open(how["count"], "w") as f:
            json.dump(faults.calls, f)
    if out:
        out()
    os._exit(status)


def serve():
    "Fork a child for every line."
    global TASK, NETWORK
    import torch

    torch.set_num_threads(1)
    import starscape.viz  # noqa: F401 - what a stage would import while it is disturbed
    from starscape.barriers import symmetry_for
    from starscape.data import load_task
    from starscape.networks import Network

    TASK = load_task("digits").subset(128, 32)
    NETWORK = Network("mlp", width=6, depth=1)
    symmetry_for(Network.of(NETWORK, TASK), TASK)
    TASK.fingerprint  # noqa: B018 - computed once, before the children
    gc.collect()
    gc.freeze()  # a child's collector would copy all of it, and Ctrl-C is not heard while it does
    print("ready", flush=True)
    for line in sys.stdin:
        order, *rest = json.loads(line)
        if order == "fork":
            if os.fork() == 0:
                child(rest[0], Path(rest[1]), rest[2])
        else:
            status = os.waitstatus_to_exitcode(os.waitpid(rest[0], 0)[1])
            print(status, flush=True)


class Children:
    "The other end of `serve`, for tests."

    def __init__(self):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
        self.server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.server.stdout.readline() == "ready\n"

    def ask(self, *order):
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def fork(self, stage, folder, **how):
        return self.ask("fork", stage, str(folder), how)

    def wait(self, pid):
        return self.ask("wait", pid)

    def run(self, stage, folder, **how):
        return self.wait(self.fork(stage, folder, **how))

    def close(self):
        self.server.stdin.close()
        self.server.wait(timeout=60)


class Analysis:
    "An undisturbed analysis: the folder before each stage, what is in it afterwards, and the seconds it took."

    def __init__(self, children, folder):
        self.children, self.folder, self.before, self.after, self.seconds, now = children, folder, {}, {}, {}, None
        for stage in STAGES:
            self.before[stage] = folder / f"before {stage}"
            if stage.endswith("population"):
                self.before[stage].mkdir()
            else:
                shutil.copytree(now, self.before[stage])
            now = folder / f"after {stage}"
            shutil.copytree(self.before[stage], now)
            pid, began = children.fork(stage, now), time.perf_counter()
            assert children.wait(pid) == 0, (now / "log").read_text()
            self.seconds[stage], self.after[stage] = time.perf_counter() - began, contents(now)

    def fresh(self, stage, folder):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.before[stage], folder)
        return folder

    def lost(self, stage, folder, promised=()):
        "What is missing or wrong, in words."
        try:
            found = contents(folder)
        except Exception as e:
            return [f"{stage}: the zoo does not open: {type(e).__name__}: {e}"]
        wanted, had = self.after[stage], contents(self.before[stage])
        wrong = [f"{stage}: {key[:2]} is not what it should be" for key, value in found.items() if value != wanted.get(key)]
        return wrong + [f"{stage}: {key[:2]} is gone" for key in [*had, *promised] if key not in found]


if __name__ == "__main__":
    serve()
