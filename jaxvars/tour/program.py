"""The tour from its first step to its last, and its second process."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path

import jax
import numpy as np

import jaxvars as jv
from jaxvars.errors import InvalidArgumentError, NotFoundError
from jaxvars.tour import steps as show
from jaxvars.tour.data import few_labelled, read_digits
from jaxvars.tour.finetune import Course, Examples, accuracy, digest, is_odd, make_step, run_steps
from jaxvars.tour.picture import draw
from jaxvars.tour.report import heading, line
from jaxvars.tour.workspace import CHECKPOINTS, PICTURE, Notes, Workspace, read_notes, write_notes

__all__ = ["resume_tour", "run_tour"]

PER_DIGIT = 2


def run_tour(output: Path, steps: int, seed: int) -> None:
    """Take the old checkpoint over, teach it a new task, stop and resume it; write all into `output`.

    Args:
      output: the folder for checkpoints and picture; it appears complete at the end, or not at all.
      steps: of fine-tuning, at least 2; the second process resumes after two thirds of them.
      seed: of the new head, of the choice of labelled images and of their order.

    Raises:
      TourFailure: something shown did not hold, such as answers that differ from TensorFlow's.
      JaxvarsError: `output` cannot be written.
    """
    began = time.perf_counter()
    stop = steps * 2 // 3
    restored_course, scratch_course = Course(), Course()
    with Workspace(output) as folder:
        print(f"jaxvars {jv.__version__} on real handwritten digits (JAX {jax.__version__}, {jax.default_backend()})")
        show.old_checkpoint()
        show.same_answers(show.restored_by_rules(), read_digits()[1])
        train, test = _new_task(seed)

        heading(f"4. A new head, fine-tuned on {len(train)} labelled images: is the digit odd?")
        variables = show.new_head(seed)
        step = make_step(seed)
        variables = run_steps(step, variables, train, test, stop, restored_course)
        line(f"after {stop} steps: {accuracy(variables, test):.1%} of the test digits right")

        heading("5. Saved, resumed in a second process, bit for bit")
        write_notes(folder, Notes(seed=seed, steps=steps))
        show.saved(variables, folder, stop)
        elsewhere = show.second_process(folder)
        variables = run_steps(step, variables, train, test, steps, restored_course)
        show.same_digest(digest(variables), elsewhere, steps)

        heading("6. Was the old checkpoint worth having?")
        scratch = show.from_scratch(seed)
        scratch = run_steps(make_step(seed, training=True), scratch, train, test, steps, scratch_course)
        line(f"{accuracy(variables, test):.1%} right with what TensorFlow had learned;")
        line(f"{accuracy(scratch, test):.1%} from scratch, with the same images and as many steps")
        courses = {"restored": restored_course, "scratch": scratch_course}
        draw(folder / PICTURE, courses, stop, np.asarray(variables["reader/stem/kernel"]))
    heading(f"Done in {time.perf_counter() - began:.0f} seconds")
    line(f"picture      {output / PICTURE}")
    line(f"checkpoints  {output / CHECKPOINTS}")
    line(f"to go on     python -m jaxvars tour --resume {shlex.quote(str(output))} --steps {2 * steps}")


def resume_tour(folder: Path, steps: int | None = None) -> None:
    """Go on with the fine-tuning in `folder` from its latest checkpoint, and save where it ends.

    Args:
      folder: the `output` of an earlier tour.
      steps: where to stop, counted from the start of the tour; by default where that tour meant to stop.

    Raises:
      JaxvarsError: `folder` holds no tour, or its latest checkpoint is already at `steps`.
    """
    notes = read_notes(folder)
    latest = jv.train.latest_checkpoint(str(folder / CHECKPOINTS))
    if latest is None:
        raise NotFoundError(f"no checkpoint in {folder / CHECKPOINTS}: run the tour again")
    saver = show.saver()
    variables = saver.restore(show.odd_reader_specs(), latest)
    start, until = int(variables["global_step"]), steps or notes.steps
    if until <= start:
        raise InvalidArgumentError(f"{latest} is already at step {start}: give more --steps")
    me = f"process {os.getpid()}"
    line(f"{me}: resumed {Path(latest).name} at step {start}")
    train, test = _new_task(notes.seed)
    variables = run_steps(make_step(notes.seed), variables, train, test, until, Course())
    saver.save(variables, str(folder / CHECKPOINTS / "model.ckpt"), global_step=until)
    line(f"{me}: {accuracy(variables, test):.1%} right at step {until}, saved model.ckpt-{until}")
    line(f"{me}: digest of all {len(variables)} variables: {digest(variables)}")


def _new_task(seed: int) -> tuple[Examples, Examples]:
    """Return the few images labelled odd or even to learn from, and those to test with."""
    train, test = read_digits()
    return is_odd(few_labelled(train, PER_DIGIT, seed)), is_odd(test)
