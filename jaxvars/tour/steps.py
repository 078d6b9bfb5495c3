"""What each step of the tour does and shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np

import jaxvars as jv
from jaxvars.tour.data import CHECKPOINT, Examples, tensorflow_answers
from jaxvars.tour.finetune import optimizer
from jaxvars.tour.model import FROZEN, HEAD, OLD_NAMES, model
from jaxvars.tour.report import heading, line, table
from jaxvars.tour.workspace import CHECKPOINTS

__all__ = [
    "TourFailure",
    "from_scratch",
    "new_head",
    "odd_reader_specs",
    "old_checkpoint",
    "restored_by_rules",
    "same_answers",
    "same_digest",
    "saved",
    "saver",
    "second_process",
]

TOLERANCE = 1e-4
IMAGE = jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)


class TourFailure(Exception):
    """A thing that the tour promises to show did not hold on this machine."""


def old_checkpoint() -> None:
    """List the tensors of the packaged checkpoint."""
    heading("1. An old checkpoint, opened without TensorFlow")
    with jv.checkpoint.open(CHECKPOINT) as reader:
        rows = [[name, list(array.shape), array.dtype.name] for name, array in reader.items()]
    line(table(["name", "shape", "dtype"], rows))
    line(f"\n{len(rows)} tensors in {CHECKPOINT}")


def restored_by_rules() -> jv.Variables:
    """Show the restore plan, then restore the ten-digit reader from the old checkpoint."""
    heading("2. Restored by name rules into a model with other names")
    specs = model.specs(IMAGE, classes=10)
    line(str(jv.checkpoint.plan(CHECKPOINT, specs, rules=OLD_NAMES)))
    return jv.checkpoint.restore(CHECKPOINT, specs, rules=OLD_NAMES)


def same_answers(variables: jv.Variables, test: Examples) -> None:
    """Compare logits and accuracy on the test digits with what TensorFlow recorded."""
    heading("3. The same answers as TensorFlow's")
    recorded = tensorflow_answers()
    logits = np.asarray(jax.jit(model, static_argnames="classes")(variables, test.images, classes=10))
    ours = float(np.mean(logits.argmax(axis=1) == test.labels))
    difference = float(np.abs(logits - recorded.logits).max())
    line(f"test accuracy on {len(test)} digits: TensorFlow {recorded.accuracy:.4f}, jaxvars {ours:.4f}")
    line(f"largest difference between {logits.size} logits: {difference:.1e}")
    if difference > TOLERANCE or abs(ours - recorded.accuracy) > 1e-9:
        raise TourFailure(f"the logits differ from TensorFlow's by {difference:.1e}, more than {TOLERANCE:.0e}")


def new_head(seed: int) -> jv.Variables:
    """Return the reader for two classes: restored except for its head, convolutions frozen, slots added."""
    specs = model.specs(IMAGE, classes=2)
    variables = jv.checkpoint.restore(CHECKPOINT, specs, rules=[(HEAD, None), *OLD_NAMES])
    line(f"not in the checkpoint, so initialized: {', '.join(variables.uninitialized)}")
    variables = model.init(seed, IMAGE, classes=2, variables=variables)
    variables = variables.freeze(FROZEN)
    line(f"trained: {', '.join(variables.trainable)}")
    return _with_slots(variables)


def odd_reader_specs() -> jv.Variables:
    """Return the state that fine-tuning keeps, all holes: what a checkpoint of it is restored into."""
    return _with_slots(model.specs(IMAGE, classes=2).freeze(FROZEN))


def from_scratch(seed: int) -> jv.Variables:
    """Return the same reader with nothing restored and nothing frozen."""
    return _with_slots(model.init(seed, IMAGE, classes=2))


def _with_slots(variables: jv.Variables) -> jv.Variables:
    """Add the optimizer's slots and the global step: then the variables are all that a run needs to go on."""
    return optimizer.init(jv.train.get_or_create_global_step(variables))


def saver() -> jv.train.Saver:
    """Return a saver of everything that a run needs to go on, in a folder that may be moved."""
    return jv.train.Saver(save_relative_paths=True)


def saved(variables: jv.Variables, folder: Path, step: int) -> None:
    """Save the run as it stands after `step` steps."""
    saver().save(variables, str(folder / CHECKPOINTS / "model.ckpt"), global_step=step)
    line(f"saved {CHECKPOINTS}/model.ckpt-{step}: {len(variables)} variables, Adam's slots and global_step too")


def second_process(folder: Path) -> str:
    """Let another process resume from the latest checkpoint; return its digest of the variables."""
    command = [sys.executable, "-m", "jaxvars", "tour", "--resume", str(folder)]
    # The same jaxvars, wherever the first process was started.
    package = str(Path(jv.__file__).parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})
    found = re.search(r"digest .*: ([0-9a-f]{16})$", done.stdout, flags=re.MULTILINE)
    if done.returncode != 0 or found is None:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TourFailure(f"the second process failed (exit code {done.returncode}): {last}")
    line(textwrap.dedent(done.stdout).strip())
    return found.group(1)


def same_digest(here: str, elsewhere: str, step: int) -> None:
    """Compare the digest of this process, which never stopped, with that of the second one."""
    line(f"process {os.getpid()}, which never stopped, at step {step}: {here}")
    if here != elsewhere:
        raise TourFailure(f"the second process went another way: {elsewhere} where this one has {here}")
    line("equal, bit for bit")
