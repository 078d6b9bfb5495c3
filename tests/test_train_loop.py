"""`run` and its hooks: what they see and when, that nobody waits for the device, that no end loses the variables."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from counting import compilations

import jaxvars as jv
from jaxvars.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    InvalidTypeError,
    NotFoundError,
    UnavailableError,
)
from jaxvars.train import cadence, hooks, progress


def _loss(variables: jv.Variables, x: Any) -> Any:
    return jnp.square(variables["w"] - x)


def _step(**options: Any) -> jv.train.Step:
    return jv.train.make_step(_loss, jv.train.GradientDescentOptimizer(0.25), **options)


def _start(step: jv.train.Step) -> jv.Variables:
    return step.init(jv.Variables({"w": jnp.array(0.0)}))


class Recorder(jv.train.Hook):
    """Notes what a hook is told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def begin(self, run: jv.train.RunContext) -> None:
        self.seen.append(("begin", run.step, run.loss))

    def after_step(self, run: jv.train.RunContext) -> None:
        self.seen.append((run.step, float(run.loss), float(run.variables["w"])))

    def end(self, run: jv.train.RunContext) -> None:
        self.seen.append(("end", run.step, run.error))


# The loop


def test_the_same_bits_as_the_loop_by_hand() -> None:
    step = _step(clip=3.0)
    batches = [8.0, 4.0, -2.0]
    expected = _start(step)
    for x in batches:
        _, expected = step(expected, x)
    variables = jv.train.run(step, _start(step), batches)
    assert variables["w"] == expected["w"] and variables["global_step"] == 3


def test_hooks_see_each_step() -> None:
    step, hook = _step(), Recorder()
    jv.train.run(step, _start(step), [8.0, 8.0], hooks=[hook])
    assert hook.seen == [("begin", 0, None), (1, 64.0, 4.0), (2, 16.0, 6.0), ("end", 2, None)]


def test_steps_counts_from_the_first_run() -> None:
    step, hook = _step(), Recorder()
    variables = jv.train.run(step, _start(step), [1.0] * 9, steps=3)
    assert variables["global_step"] == 3
    batches = iter([1.0] * 9)
    variables = jv.train.run(step, variables, batches, steps=5, hooks=[hook])
    assert variables["global_step"] == 5
    assert [row[0] for row in hook.seen] == ["begin", 4, 5, "end"]
    assert len(list(batches)) == 7  # no batch was taken in vain
    same = jv.train.run(step, variables, batches, steps=5)
    assert same is variables


class Pair(NamedTuple):
    first: float
    second: float


@pytest.mark.parametrize(
    ("batch", "arguments"),
    [
        ((1.0, 2.0), (1.0, 2.0)),
        ([1.0, 2.0], (1.0, 2.0)),
        (3.0, (3.0,)),
        (Pair(1, 2), (Pair(1, 2),)),
        ({"x": 1}, ({"x": 1},)),
    ],
)
def test_a_batch_is_spread_over_the_arguments(batch: Any, arguments: tuple[Any, ...]) -> None:
    given: list[Any] = []

    def step(variables: jv.Variables, *args: Any) -> Any:
        given.append(args)
        return 0.0, variables

    jv.train.run(step, jv.Variables({"w": 1.0}), [batch])
    assert given == [arguments]


class Loss:
    """A loss that counts who reads it, and is never ready by itself."""

    def __init__(self, reads: list[str]) -> None:
        self.reads = reads

    def is_ready(self) -> bool:
        return False

    def block_until_ready(self) -> Loss:
        self.reads.append("block")
        return self

    def __float__(self) -> float:
        self.reads.append("float")
        return 1.0

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        self.reads.append("array")
        return np.array(1.0)


def _reads(hooks: list[Any], steps: int, **options: Any) -> int:
    """How often the losses of some steps are read, before the run is over."""
    reads: list[str] = []
    jv.train.run(lambda v: (Loss(reads), v), jv.Variables({"w": 1.0}), [()] * steps, hooks=hooks, **options)
    return len(reads)


def test_the_device_is_waited_for_only_where_a_hook_asks(tmp_path: Path) -> None:
    saver = jv.train.CheckpointSaverHook(tmp_path, save_steps=1000)
    stop = jv.train.StopAtStepHook(last_step=100)
    assert _reads([jv.train.Hook(), jv.train.HistoryHook(), saver, stop], 200) == 0
    assert _reads([jv.train.LoggingHook(every_n_iter=50, formatter=str)], 100) == 3
    assert _reads([jv.train.StepCounterHook(every_n_steps=50)], 100) == 3
    assert _reads([jv.train.NanTensorHook(every_n_iter=10)], 100) == 10
    assert _reads([], 100, progress=True) == 1  # the last, for the finished bar


def test_nothing_but_the_step_is_compiled(tmp_path: Path) -> None:
    step = _step(ema=jv.train.ExponentialMovingAverage(0.9))
    variables = jv.train.run(step, _start(step), [jnp.float32(1.0)])
    hooks = [jv.train.HistoryHook(), jv.train.LoggingHook(every_n_iter=2), jv.train.NanTensorHook()]
    with compilations() as compiled:
        jv.train.run(step, variables, [jnp.float32(2.0)] * 4, hooks=hooks)
    assert not compiled


def test_a_hook_may_change_the_variables() -> None:
    def restart(run: jv.train.RunContext) -> None:
        run.variables = jv.assign(run.variables, "w", 0.0)

    step = _step()
    hooks = [jv.train.FunctionHook(restart, every_n_steps=2)]
    assert jv.train.run(step, _start(step), [8.0] * 3, hooks=hooks)["w"] == 4


def test_packed_variables() -> None:
    step = _step(ema=jv.train.ExponentialMovingAverage(0.5))
    variables = jv.train.run(step, _start(step).packed(), [8.0] * 3)
    assert variables._is_packed and variables["w"] == 7


# How a run ends


class Broken(Exception):
    pass


def _failing(after: int) -> Iterator[float]:
    yield from [8.0] * after
    raise Broken("no more data")


def test_an_error_keeps_the_variables_and_ends_the_hooks() -> None:
    step, hook = _step(), Recorder()
    start = _start(step)
    with pytest.raises(Broken) as caught:
        jv.train.run(step, start, _failing(2), hooks=[hook])
    assert caught.value.variables["w"] == 6  # pyright: ignore[reportAttributeAccessIssue]
    assert "stopped after step 2" in caught.value.__notes__[0] and "error.variables" in caught.value.__notes__[0]
    assert hook.seen[-1] == ("end", 2, caught.value)
    with pytest.raises(FailedPreconditionError, match=r"stopped has left it in its exception, error\.variables"):
        start["w"]


def test_an_error_says_where_the_variables_were_saved(tmp_path: Path) -> None:
    step, hook = _step(), jv.train.CheckpointSaverHook(tmp_path, save_steps=100)
    with pytest.raises(Broken) as caught:
        jv.train.run(step, _start(step), _failing(2), hooks=[hook])
    assert caught.value.__notes__[0] == f"saved as {tmp_path / 'model.ckpt-2'}"
    assert "stopped after step 2" in caught.value.__notes__[1]
    variables: Any = caught.value.variables  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(Broken) as caught:  # nothing new to save
        jv.train.run(step, variables, _failing(0), hooks=[hook])
    assert caught.value.__notes__[0] == f"saved as {tmp_path / 'model.ckpt-2'}"
    with pytest.raises(jv.train.NanLossDuringTrainingError) as nan:
        jv.train.run(step, _start(step), [np.nan], hooks=[jv.train.NanTensorHook(), hook])
    assert len(nan.value.__notes__) == 1 and "stopped after" in nan.value.__notes__[0]


def test_an_error_holds_the_variables_no_longer_than_it_lives() -> None:
    step = _step()
    gc.disable()
    try:
        try:
            jv.train.run(step, _start(step), _failing(2))
        except Broken as error:
            array = weakref.ref(error.variables["w"])  # pyright: ignore[reportAttributeAccessIssue]
        assert array() is None
    finally:
        gc.enable()


def test_a_step_that_fails_with_what_it_was_given() -> None:
    def step(variables: jv.Variables, x: Any) -> Any:
        for leaf in jax.tree.leaves(variables):
            leaf.delete()
        raise Broken

    with pytest.raises(Broken) as caught:
        jv.train.run(step, jv.Variables({"w": jnp.array(1.0)}), [1.0])
    assert not hasattr(caught.value, "variables") and "took its variables along" in caught.value.__notes__[0]


def test_an_interrupt_waits_for_the_step(tmp_path: Path) -> None:
    plain = _step()

    def step(variables: jv.Variables, x: Any) -> Any:
        result = plain(variables, x)
        if x == 1:
            os.kill(os.getpid(), signal.SIGINT)
            [None for _ in range(100)]  # Python looks at signals between its instructions
        return result

    hooks = [Recorder(), jv.train.CheckpointSaverHook(tmp_path, save_steps=100)]
    with pytest.raises(KeyboardInterrupt) as caught:
        jv.train.run(step, _start(plain), [0.0, 1.0, 2.0], hooks=hooks)
    assert caught.value.variables["global_step"] == 2  # pyright: ignore[reportAttributeAccessIssue]
    assert jv.train.latest_checkpoint(tmp_path) == str(tmp_path / "model.ckpt-2")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_between_steps_and_a_second_one_come_at_once() -> None:
    def batches() -> Iterator[float]:
        yield 1.0
        os.kill(os.getpid(), signal.SIGINT)
        yield 2.0
        raise AssertionError("not interrupted")

    step = _step()
    with pytest.raises(KeyboardInterrupt) as caught:
        jv.train.run(step, _start(step), batches())
    assert caught.value.variables["global_step"] == 1  # pyright: ignore[reportAttributeAccessIssue]

    def stuck(variables: jv.Variables, x: Any) -> Any:
        while True:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        jv.train.run(stuck, jv.Variables({"w": 1.0}), [1.0])


def test_in_another_thread() -> None:
    step, results = _step(), []
    thread = threading.Thread(target=lambda: results.append(jv.train.run(step, _start(step), [8.0])))
    thread.start()
    thread.join()
    assert results[0]["w"] == 4


def test_hooks_that_fail() -> None:
    class Fails(jv.train.Hook):
        def __init__(self, where: str) -> None:
            self.where = where

        def begin(self, run: jv.train.RunContext) -> None:
            if self.where == "begin":
                raise Broken("begin")

        def end(self, run: jv.train.RunContext) -> None:
            if self.where == "end":
                raise Broken("end")

    step = _step()
    before, after = Recorder(), Recorder()
    with pytest.raises(Broken, match="begin"):
        jv.train.run(step, _start(step), [1.0], hooks=[before, Fails("begin"), after])
    assert before.seen[-1][0] == "end" and not after.seen

    before, after = Recorder(), Recorder()
    with pytest.raises(Broken, match="end") as caught:
        jv.train.run(step, _start(step), [1.0], hooks=[before, Fails("end"), after])
    assert before.seen[-1] == ("end", 1, None) and after.seen[-1] == ("end", 1, caught.value)

    with pytest.raises(Broken, match="no more data") as caught:
        jv.train.run(step, _start(step), _failing(1), hooks=[Fails("end")])
    assert "Fails.end failed too: end" in caught.value.__notes__


# Hooks


def _steps_saved(folder: Path) -> list[int]:
    state = jv.train.get_checkpoint_state(folder)
    return [] if state is None else [int(path.rsplit("-", 1)[1]) for path in state.all_model_checkpoint_paths]


def test_checkpoints_at_the_beginning_regularly_and_at_the_end(tmp_path: Path) -> None:
    step = _step()
    variables = jv.train.run(
        step, _start(step), [8.0] * 5, hooks=[jv.train.CheckpointSaverHook(tmp_path, save_steps=2)]
    )
    assert _steps_saved(tmp_path) == [0, 2, 4, 5]
    saver = jv.train.Saver(max_to_keep=3)
    saver.recover_last_checkpoints(map(str, [tmp_path / f"model.ckpt-{n}" for n in (2, 4, 5)]))
    restored = saver.restore(_start(step), tmp_path)
    assert restored["w"] == variables["w"]
    hook = jv.train.CheckpointSaverHook(tmp_path, save_steps=3, saver=saver)
    jv.train.run(step, restored, [8.0] * 2, hooks=[hook])
    assert _steps_saved(tmp_path) == [5, 6, 7]  # 5 was there: not saved again


def test_a_new_process_deletes_old_checkpoints(tmp_path: Path) -> None:
    step = _step()
    variables = _start(step)
    for stop in (3, 6):  # each time a hook of its own, with the saver that it makes
        hook = jv.train.CheckpointSaverHook(tmp_path, save_steps=1)
        variables = jv.train.run(step, variables, [8.0] * 3, hooks=[hook], steps=stop)
    assert _steps_saved(tmp_path) == [2, 3, 4, 5, 6]
    assert sorted(path.name for path in tmp_path.glob("model.ckpt-*")) == [f"model.ckpt-{n}" for n in (2, 3, 4, 5, 6)]


def test_a_new_process_deletes_old_checkpoints_with_a_saver_of_its_own(tmp_path: Path) -> None:
    step = _step()
    variables = _start(step)
    for _ in range(3):  # three programs, each of two steps
        hook = jv.train.CheckpointSaverHook(tmp_path, save_steps=1, saver=jv.train.Saver(max_to_keep=2))
        variables = jv.train.run(step, variables, [8.0] * 2, hooks=[hook])
    kept = sorted(path.name for path in tmp_path.glob("model.ckpt-*"))
    assert kept == ["model.ckpt-5", "model.ckpt-6"]


def test_no_checkpoint_is_an_error_with_a_public_name(tmp_path: Path) -> None:
    with pytest.raises(jv.train.NoCheckpointError, match="not a valid checkpoint") as caught:
        jv.train.Saver().restore(_start(_step()), tmp_path / "model.ckpt-7")
    assert isinstance(caught.value, NotFoundError) and isinstance(caught.value, InvalidArgumentError)


def test_the_checkpoints_a_saver_has_are_its_own(tmp_path: Path) -> None:
    step, saver = _step(), jv.train.Saver()
    variables = _start(step)
    path = saver.save(variables, tmp_path / "other" / "model.ckpt")
    jv.train.Saver().save(variables, tmp_path / "run" / "model.ckpt", global_step=0)
    jv.train.run(
        step, variables, [8.0], hooks=[jv.train.CheckpointSaverHook(tmp_path / "run", save_steps=9, saver=saver)]
    )
    assert saver.last_checkpoints == [path, str(tmp_path / "run" / "model.ckpt-1")]


def test_a_run_that_forgot_to_resume_deletes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = _step()
    jv.train.run(step, _start(step), [8.0] * 3, hooks=[jv.train.CheckpointSaverHook(tmp_path, save_steps=1)])
    assert capsys.readouterr().out == ""
    jv.train.run(step, _start(step), [8.0] * 2, hooks=[jv.train.CheckpointSaverHook(tmp_path, save_steps=1)])
    assert "has checkpoints up to step 3, and this run begins at step 0" in capsys.readouterr().out
    saver = jv.train.Saver(max_to_keep=1)
    hook = jv.train.CheckpointSaverHook(tmp_path, save_steps=1, saver=saver)
    jv.train.run(step, _start(step), [8.0] * 2, hooks=[hook])
    assert (tmp_path / "model.ckpt-3").exists()


def test_a_folder_of_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saves: list[str] = []

    class Counting(jv.train.Saver):
        def save(self, *args: Any, **options: Any) -> Any:
            saves.append(super().save(*args, **options) or "")

    step = _step()
    hook = jv.train.CheckpointSaverHook("run", save_steps=5, saver=Counting())
    variables = jv.train.run(step, _start(step), [8.0] * 2, hooks=[hook])
    jv.train.run(step, variables, [8.0] * 2, hooks=[hook])
    assert saves == [os.path.join("run", f"model.ckpt-{n}") for n in (0, 2, 4)]


def test_checkpoints_in_the_background_are_complete_at_the_end(tmp_path: Path) -> None:
    step = _step()
    hook = jv.train.CheckpointSaverHook(tmp_path, save_steps=1, saver=jv.train.Saver(background=True))
    variables = jv.train.run(step, _start(step), [8.0] * 3, hooks=[hook])
    assert jv.train.Saver().restore(_start(step), tmp_path)["w"] == variables["w"]


def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path: Path) -> None:
    def step_and_start() -> Any:
        step = jv.train.make_step(
            lambda v, x, rng: jnp.square(v["w"] - x + jax.random.normal(rng)), jv.train.AdamOptimizer(0.1), rng=3
        )
        return step, _start(step)

    step, variables = step_and_start()
    whole = jv.train.run(step, variables, [1.0, 2.0, 3.0, 4.0])
    step, variables = step_and_start()
    jv.train.run(step, variables, [1.0, 2.0], hooks=[jv.train.CheckpointSaverHook(tmp_path, save_steps=100)])
    step, variables = step_and_start()
    resumed = jv.train.run(step, jv.train.Saver().restore(variables, tmp_path), [3.0, 4.0])
    assert list(resumed) == list(whole)
    for name in whole:
        np.testing.assert_array_equal(resumed[name], whole[name])


def _nan_at(number: int) -> list[float]:
    return [float("nan") if n == number else 1.0 for n in range(1, 6)]


def test_a_nan_stops_the_run_and_is_not_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = _step()
    hooks = [jv.train.NanTensorHook(), jv.train.CheckpointSaverHook(tmp_path, save_steps=1)]
    with pytest.raises(jv.train.NanLossDuringTrainingError, match=r"the loss is NaN at step 3.*debug_nans") as caught:
        jv.train.run(step, _start(step), _nan_at(3), hooks=hooks)
    assert isinstance(caught.value, RuntimeError) and _steps_saved(tmp_path) == [0, 1, 2]
    variables = jv.train.run(step, _start(step), _nan_at(3), hooks=[jv.train.NanTensorHook(fail_on_nan_loss=False)])
    assert variables["global_step"] == 3
    assert capsys.readouterr().out == "the loss is NaN at step 3: the run ends here\n"


def test_stop_at_step() -> None:
    step = _step()
    variables = jv.train.run(step, _start(step), [1.0] * 9, hooks=[jv.train.StopAtStepHook(num_steps=2)])
    variables = jv.train.run(step, variables, [1.0] * 9, hooks=[jv.train.StopAtStepHook(num_steps=2)])
    assert variables["global_step"] == 4
    variables = jv.train.run(step, variables, [1.0] * 9, hooks=[jv.train.StopAtStepHook(last_step=5)], steps=7)
    assert variables["global_step"] == 5
    variables = jv.train.run(step, variables, [1.0] * 9, hooks=[jv.train.StopAtStepHook(last_step=9)], steps=7)
    assert variables["global_step"] == 7


def _with_metrics() -> jv.train.Step:
    def loss_fn(variables: jv.Variables, x: Any) -> Any:
        return _loss(variables, x), variables, {"distance": x - variables["w"]}

    return jv.train.make_step(loss_fn, jv.train.GradientDescentOptimizer(0.25))


def test_logging(capsys: pytest.CaptureFixture[str]) -> None:
    step = _with_metrics()
    jv.train.run(step, _start(step), [8.0] * 5, hooks=[jv.train.LoggingHook(every_n_iter=2, at_end=True)])
    assert capsys.readouterr().out == (
        "step 1: loss = 64, distance = 8\n"
        "step 2: loss = 16, distance = 4\n"
        "step 4: loss = 1, distance = 1\n"
        "step 5: loss = 0.25, distance = 0.5\n"
    )
    short = jv.train.LoggingHook(every_n_iter=9, formatter=lambda values: f"{values['step']} {values['distance']}")
    jv.train.run(step, _start(step), [8.0] * 2, hooks=[short])
    assert capsys.readouterr().out == "1 8.0\n"


def test_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 100, 4))  # each look at the clock is four seconds later
    monkeypatch.setattr(cadence, "monotonic", lambda: float(next(now)))
    calls: list[int] = []
    hook = jv.train.FunctionHook(lambda run: calls.append(run.step), every_n_secs=10, at_end=True)
    step = _step()
    jv.train.run(step, _start(step), [1.0] * 8, hooks=[hook])
    assert calls == [3, 6, 8]


def test_steps_per_second(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([10.0, 12.0])  # after steps 1 and 5
    monkeypatch.setattr(hooks, "monotonic", lambda: next(now))
    hook, step = jv.train.StepCounterHook(every_n_steps=5), _step()
    jv.train.run(step, _start(step), [1.0] * 6, hooks=[hook])
    assert hook.steps_per_sec == 2 and capsys.readouterr().out == "step 5: 2 steps per second\n"


def test_history() -> None:
    step, history = _with_metrics(), jv.train.HistoryHook(every_n_steps=2)
    variables = jv.train.run(step, _start(step), [8.0] * 4, hooks=[history])
    jv.train.run(step, variables, [8.0] * 3, hooks=[history])
    assert list(history) == ["step", "loss", "distance"] and len(history) == 3
    np.testing.assert_array_equal(history["step"], [2, 4, 6])
    np.testing.assert_array_equal(history["distance"], [4, 1, 0.25])
    with pytest.raises(NotFoundError, match=r'no "los". Nearest: loss'):
        history["los"]


def test_a_long_history_does_not_stay_on_the_device() -> None:
    history = jv.train.HistoryHook()
    loss = jnp.array(1.0)
    jv.train.run(lambda v: (loss, v), jv.Variables({"w": 1.0}), [()] * 300, hooks=[history])
    assert sum(isinstance(row["loss"], jax.Array) for row in history._rows) < 256
    np.testing.assert_array_equal(history["loss"], np.ones(300))
    np.testing.assert_array_equal(history["step"], np.arange(1, 301))


def test_averages_for_evaluation() -> None:
    ema = jv.train.ExponentialMovingAverage(0.5)
    step, seen = _step(ema=ema), []
    hook = jv.train.FunctionHook(lambda run: seen.append(float(ema.averaged(run.variables)["w"])), every_n_steps=1)
    jv.train.run(step, _start(step), [8.0] * 2, hooks=[hook])
    assert seen == [2.0, 4.0]


# The progress bar


def test_the_bar_shows_steps_and_leaves_lines_whole(capsys: pytest.CaptureFixture[str]) -> None:
    step = _step()
    variables = jv.train.run(step, _start(step), [8.0] * 2)
    hooks = [jv.train.LoggingHook(every_n_iter=3)]
    jv.train.run(step, variables, iter([8.0] * 9), steps=6, hooks=hooks, progress=True)
    captured = capsys.readouterr()
    assert "6/6" in captured.err and "loss=0.0625" in captured.err
    assert captured.out == "step 3: loss = 4\nstep 6: loss = 0.0625\n"


def test_the_bar_ends_where_the_batches_do(capsys: pytest.CaptureFixture[str]) -> None:
    step = _step()
    jv.train.run(step, _start(step), [8.0] * 4, steps=100, progress=True)
    assert "4/4" in capsys.readouterr().err


def test_a_bar_only_where_a_person_watches(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    step = _step()
    jv.train.run(step, _start(step), [8.0])
    assert capsys.readouterr().err == ""
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    jv.train.run(step, _start(step), [8.0])
    captured = capsys.readouterr()
    assert "1/1" in captured.out and captured.err == ""  # a notebook shows stderr in red
    jv.train.run(step, _start(step), [8.0], progress=False)
    assert capsys.readouterr().out == ""


def test_of_several_processes_one_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    step = _step()
    jv.train.run(step, _start(step), [8.0], hooks=[jv.train.LoggingHook(every_n_iter=1)])
    assert capsys.readouterr().out == ""


def test_a_bar_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: None)
    step = _step()
    with pytest.raises(UnavailableError, match="pip install tqdm"):
        jv.train.run(step, _start(step), [8.0], progress=True)
    assert jv.train.run(step, _start(step), [8.0])["w"] == 4


# Errors


def test_what_is_refused(tmp_path: Path) -> None:
    step = _step()
    variables = _start(step)
    with pytest.raises(InvalidTypeError, match="takes a Variables first, not dict"):
        jv.train.run(step, {}, [1.0])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidArgumentError, match="counted from 0; got -1"):
        jv.train.run(step, variables, [1.0], steps=-1)
    with pytest.raises(InvalidTypeError, match=r"not function\. For a function write: hooks=\[jv\.train\.FunctionHook"):
        jv.train.run(step, variables, [1.0], hooks=[lambda run: None])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidTypeError, match="the class NanTensorHook"):
        jv.train.run(step, variables, [1.0], hooks=[jv.train.NanTensorHook])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidTypeError, match=r"Write: hooks=\[HistoryHook\(\.\.\.\)\]"):
        jv.train.run(step, variables, [1.0], hooks=jv.train.HistoryHook())  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidTypeError, match=r"returned one float\. It returns \(loss, variables\)"):
        jv.train.run(lambda v, x: 1.0, variables, [1.0])
    with pytest.raises(InvalidTypeError, match=r"returned \(Variables, float\)"):
        jv.train.run(lambda v, x: (v, 1.0), variables, [1.0])
    for make in (
        lambda: jv.train.CheckpointSaverHook(tmp_path),
        lambda: jv.train.CheckpointSaverHook(tmp_path, save_secs=1, save_steps=1),
        lambda: jv.train.LoggingHook(),
        lambda: jv.train.StepCounterHook(every_n_steps=1, every_n_secs=1),
        lambda: jv.train.StopAtStepHook(),
        lambda: jv.train.FunctionHook(print),
    ):
        with pytest.raises(InvalidArgumentError, match="exactly one of"):
            make()
    for make in (lambda: jv.train.LoggingHook(every_n_iter=0), lambda: jv.train.HistoryHook(0)):
        with pytest.raises(InvalidArgumentError, match="positive number, got 0"):
            make()
    tensors: Any = {"loss": 1}
    for take in (
        lambda: jv.train.LoggingHook(tensors, every_n_iter=10),  # pyright: ignore[reportCallIssue]
        lambda: jv.train.LoggingHook(tensors),
        lambda: jv.train.LoggingHook(["loss"], every_n_secs=1.0),  # pyright: ignore[reportArgumentType]
    ):
        with pytest.raises(InvalidTypeError, match=r"LoggingHook takes no tensors.*LoggingHook\(every_n_iter=100\)"):
            take()
    with pytest.raises(InvalidTypeError, match=r"NanTensorHook takes no tensors, got ArrayImpl.*NanTensorHook\(\)"):
        jv.train.NanTensorHook(jnp.zeros(()), fail_on_nan_loss=False)  # pyright: ignore
    assert jv.train.LoggingHook(np.int64(5)) and jv.train.LoggingHook(None, 2.5)
    with pytest.raises(InvalidTypeError, match="not int"):
        jv.train.FunctionHook(1, every_n_steps=1)  # pyright: ignore[reportArgumentType]


def test_clocks_of_several_processes_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InvalidArgumentError, match="Give save_steps"):
        jv.train.CheckpointSaverHook(tmp_path, save_secs=60)


def test_any_optax_optimizer() -> None:
    step = jv.train.make_step(_loss, optax.sgd(0.25))
    assert jv.train.run(step, _start(step), [8.0])["w"] == 4
