"""Saves that are killed, that fail, and that meet other saves: the previous checkpoint is whole, whatever happens.

The processes that are killed are forks of one that has imported everything and touched no device yet.
"""

import contextlib
import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import threading

import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars import checkpoint
from jaxvars.checkpoint.formats import orbax_layout
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, JaxvarsError

# One variable that Orbax writes, and some that are packed. All are full of one number.
SHAPES = {"large": (20_000,), "step": (), "small/a": (3, 5), "small/b": (7,), "empty": (0, 2)}


def numbered(number):
    return jv.Variables({name: jnp.full(shape, float(number)) for name, shape in SHAPES.items()})


def restored_number(path):
    """The number that a checkpoint is full of; each value is compared."""
    found = checkpoint.restore(path, numbered(0))
    number = float(found["step"])
    for name, shape in SHAPES.items():
        np.testing.assert_array_equal(found[name], np.full(shape, number, np.float32))
    return int(number)


# Killed at a certain point


class Killed(BaseException):
    """Stands for the process being killed at this point."""


@pytest.mark.parametrize("number", range(1, 5))
def test_a_save_killed_while_moving_leaves_a_whole_checkpoint(tmp_path, monkeypatch, number):
    path = checkpoint.save(numbered(1), tmp_path / "m")
    moves = []

    def rename(source, target, real=os.rename):
        if "jaxvars" in source + target and "orbax-checkpoint-tmp" not in source:
            moves.append(target)
            if len(moves) >= number:
                raise Killed
        real(source, target)

    monkeypatch.setattr(orbax_layout.os, "rename", rename)
    with pytest.raises(Killed) if number < 4 else contextlib.nullcontext():
        checkpoint.save(numbered(2), path)
    monkeypatch.undo()
    assert restored_number(path) == (1 if number < 3 else 2)
    checkpoint.save(numbered(3), path)
    assert os.listdir(tmp_path) == ["m"]
    assert restored_number(path) == 3


def test_leftovers_of_dead_processes_are_cleaned_and_others_kept(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead = orbax_layout.new_path(str(tmp_path / "m")).replace(str(os.getpid()), str(child.pid))
    alive = orbax_layout.new_path(str(tmp_path / "m")).replace(str(os.getpid()), str(os.getppid()))
    for folder in (dead, f"{dead}.orbax-checkpoint-tmp", alive):
        os.makedirs(folder)
    checkpoint.save(numbered(1), tmp_path / "m")
    assert sorted(os.listdir(tmp_path)) == ["m", os.path.basename(alive)]


# Killed anywhere

FORKING = """
import os, signal, sys
import jaxvars as jv
from orbax.checkpoint import v1 as orbax
sys.path.insert(0, sys.argv[1])
import test_checkpoint_crash as tests

WRITING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}

def count(folder, point):
    # Die at the `point`th change of the folder.
    seen = [0]
    def hook(event, arguments):
        if event not in WRITING and not (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if isinstance(arguments[0], (str, os.PathLike)) and folder in os.fspath(arguments[0]):
            seen[0] += 1
            if seen[0] == point:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

for line in sys.stdin:
    folder, mode, start, point = line.split()
    pid = os.fork()
    if not pid:
        with open(folder + ".log", "ab", buffering=0) as log:
            tests.save_on(folder, mode, int(start), int(point), count, log)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


def save_on(folder, mode, start, point, count, log):
    """What a process does until it is killed: save the numbers from `start` on, and log those that are done."""
    saver = jv.train.Saver(max_to_keep=2)
    state = jv.train.get_checkpoint_state(folder)
    if state is not None:
        saver.recover_last_checkpoints(state.all_model_checkpoint_paths)
    numbers = itertools.count(start) if not point else range(start, start + 2)
    for number in numbers:
        if point and number > start:
            count(folder, point)
        if mode == "saver":
            saver.save(numbered(number), f"{folder}/model.ckpt", global_step=number)
        else:
            with contextlib.suppress(FailedPreconditionError if mode == "contest" else ()):
                checkpoint.save(numbered(number), f"{folder}/model.ckpt")
        log.write(f"{number}\n".encode())


class Forks:
    """The process that forks."""

    def __init__(self):
        command = [sys.executable, "-W", "ignore", "-c", FORKING, os.path.dirname(__file__)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, folder, mode, start, point=0):
        self._process.stdin.write(f"{folder} {mode} {start} {point}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def status(self):
        """Wait for the end of the fork: 0, or the number of the signal."""
        return int(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def forks():
    process = Forks()
    yield process
    process.close()


def logged(folder):
    try:
        with open(f"{folder}.log") as file:
            return [int(line) for line in file]
    except FileNotFoundError:
        return []


def wait_for_a_save(folder, after):
    for _ in range(6000):
        numbers = logged(folder)
        if numbers and numbers[-1] >= after:
            return
        threading.Event().wait(0.01)
    raise AssertionError("the process does not save")


def check_after_kill(folder, mode):
    """The last number that was saved, or the one that was on its way, is there, whole."""
    path = f"{folder}/model.ckpt"
    if mode == "saver":
        path = jv.train.latest_checkpoint(folder)
    found = restored_number(path)
    assert logged(folder)[-1] <= found <= logged(folder)[-1] + 1
    if mode == "saver":
        state = jv.train.get_checkpoint_state(folder)
        for kept in state.all_model_checkpoint_paths:
            assert restored_number(kept) == int(kept.rsplit("-", 1)[1])
    return found


def check_leftovers(folder, mode, number):
    """One more save, here: it leaves whole checkpoints, and no other folder."""
    with open(f"{folder}.log", "ab", buffering=0) as log:
        save_on(folder, mode, number, -1, lambda *_: None, log)
    found = {entry.name for entry in os.scandir(folder) if entry.is_dir()}
    kept = {f"model.ckpt-{number}", f"model.ckpt-{number + 1}"} if mode == "saver" else {"model.ckpt"}
    assert kept <= found
    for name in found - kept:  # a process was killed when its state file no longer named it, before it was deleted
        assert restored_number(f"{folder}/{name}") == int(name.removeprefix("model.ckpt-"))
    assert check_after_kill(folder, mode) == number + 1


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["saver", "overwrite"])
def test_processes_killed_at_random_leave_the_previous_checkpoint(tmp_path, forks, mode):
    folder = tmp_path / "run"
    folder.mkdir()
    chance = random.Random(mode)
    number = 1
    for _ in range(100):  # in each of two modes
        pid = forks.start(folder, mode, number)
        wait_for_a_save(folder, number)
        threading.Event().wait(chance.uniform(0, 0.2))
        os.kill(pid, signal.SIGKILL)
        assert forks.status() == signal.SIGKILL
        number = check_after_kill(folder, mode) + 1
    check_leftovers(folder, mode, number)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["saver", "overwrite"])
def test_processes_killed_at_each_change_of_the_disk_leave_the_previous_checkpoint(tmp_path, forks, mode):
    folder = tmp_path / "run"
    folder.mkdir()
    number = kills = 1
    for point in itertools.count(1):
        forks.start(folder, mode, number, point)
        status = forks.status()
        number = check_after_kill(folder, mode) + 1
        if not status:
            break
        assert status == signal.SIGKILL
        kills += 1
    assert kills > 20
    check_leftovers(folder, mode, number)


# Several at once


@pytest.mark.slow
def test_two_processes_that_save_to_one_path_leave_one_of_both_whole(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    path = checkpoint.save(numbered(0), folder / "model.ckpt")
    contestants = [Forks(), Forks()]
    pids = [process.start(folder, "contest", 1000 * (place + 1)) for place, process in enumerate(contestants)]
    seen = set()
    for _ in range(100):
        with contextlib.suppress(JaxvarsError):  # replaced while it was being read
            seen.add(restored_number(path) // 1000)
    for pid, process in zip(pids, contestants, strict=True):
        os.kill(pid, signal.SIGKILL)
        assert process.status() == signal.SIGKILL
        process.close()
    assert restored_number(path) >= 1000 and seen >= {1, 2}
    checkpoint.save(numbered(5), path)
    assert os.listdir(folder) == ["model.ckpt"] and restored_number(path) == 5


def test_folders_are_replaced_in_turns(tmp_path):
    path = checkpoint.save(numbered(1), tmp_path / "m")
    contents = {}
    for number in range(8):
        new = checkpoint.save(numbered(number), tmp_path / "new" / str(number))
        contents[new] = number
    threads = [threading.Thread(target=orbax_layout.replace_folder, args=(new, path)) for new in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert restored_number(path) in contents.values()
    assert sorted(os.listdir(tmp_path)) == ["m", "new"] and not os.listdir(tmp_path / "new")


def test_saves_in_the_background_wait_for_each_other(tmp_path):
    pending = [checkpoint.save_async(numbered(number), tmp_path / "m") for number in range(5)]
    checkpoint.save(numbered(7), tmp_path / "n")
    assert [restored_number(save.result()) for save in pending[-1:]] == [4]
    assert restored_number(tmp_path / "n") == 7 and sorted(os.listdir(tmp_path)) == ["m", "n"]


# Disks that refuse


@pytest.mark.parametrize("room", [0, 1 << 10, 60 << 10])
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, caplog, capfd, room):
    path = checkpoint.save(numbered(1), tmp_path / "m")
    variables = numbered(2) | jv.Variables({f"many/{number}": jnp.ones(4000) for number in range(10)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(FailedPreconditionError, match=r"Cannot save to .*m: .* What was there before is unchanged"):
            checkpoint.save(variables, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert restored_number(path) == 1 and os.listdir(tmp_path) == ["m"]
    assert not caplog.records and "Traceback" not in capfd.readouterr().err


def test_a_save_that_orbax_refuses_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    from orbax.checkpoint import v1 as ocp

    path = checkpoint.save(numbered(1), tmp_path / "m")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ocp, "save", full)
    with pytest.raises(FailedPreconditionError, match=r"No space left.*unchanged"):
        checkpoint.save(numbered(2), path)
    assert restored_number(path) == 1 and os.listdir(tmp_path) == ["m"]


@pytest.mark.parametrize("call", ["makedirs", "rename", "fsync"])
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, call):
    path = checkpoint.save(numbered(1), tmp_path / "m")
    real = getattr(os, call)

    def refused(*arguments, **named):
        if threading.current_thread() is threading.main_thread():
            raise PermissionError(13, "Permission denied")
        return real(*arguments, **named)

    monkeypatch.setattr(os, call, refused)
    with pytest.raises(FailedPreconditionError, match=r"Permission denied\. What was there before is unchanged"):
        checkpoint.save(numbered(2), path)
    monkeypatch.undo()
    assert restored_number(path) == 1 and os.listdir(tmp_path) == ["m"]


def test_links_are_replaced_and_what_they_point_to_stays(tmp_path):
    real = checkpoint.save(numbered(1), tmp_path / "elsewhere" / "m")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "m").symlink_to(real)
    assert restored_number(tmp_path / "run" / "m") == 1
    checkpoint.save(numbered(2), tmp_path / "run" / "m")
    assert restored_number(tmp_path / "run" / "m") == 2 and restored_number(real) == 1
    assert os.listdir(tmp_path / "run") == ["m"] and not (tmp_path / "run" / "m").is_symlink()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / "run" / "n").symlink_to(tmp_path / "precious")
    (tmp_path / "run" / "o").symlink_to(tmp_path / "nothing")
    for name in ("n", "o"):
        with pytest.raises(InvalidArgumentError, match="not a checkpoint that jaxvars wrote"):
            checkpoint.save(numbered(3), tmp_path / "run" / name)
    assert (tmp_path / "precious" / "file").exists()
