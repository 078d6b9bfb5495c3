"""Several processes: the recipe of `examples.multihost`, killed and resumed by others, and diverging model code."""

import contextlib
import hashlib
import io
import os
import re
import runpy
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils
from processes import ProcessesFailed, run_processes

import jaxvars as jv
from examples import multihost
from jaxvars import _compat
from jaxvars.placement.processes import _difference_text, _Kind

# Sums over a batch are taken in another order where it lies on other devices. Seen: 1.9e-7, two units of float32.
CLOSE = {"rtol": 1e-6, "atol": 0}
STEPS, SAVE_EVERY = 12, 4
# A few steps are sooner done slowly than their program is optimized.
FAST = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills processes as POSIX does")


# -- the same variables in all processes ---------------------------------------------------------------------------


def net(x, case=""):
    width = 4 if case == "shape" else 3
    with jv.variable_scope("net"):
        if case == "name":
            jv.get_variable("extra", [2])
        if case != "missing":
            jv.get_variable("bias", [3], trainable=case != "trainable")
        if case == "collections":
            jv.add_to_collection("mine", jv.get_variable("moments", [2]))
        else:
            jv.get_variable("moments", [2])
        return x @ jv.get_variable("kernel", [2, width], "bfloat16" if case == "dtype" else "float32")


def diverge(folder):
    """What each of three processes is told, of which the last has other variables; None where there is no error."""
    odd = jax.process_index() == 2
    model, x = jv.transform(net), np.ones([1, 2], np.float32)
    mesh = jv.placement.mesh(data=-1)
    found = {}

    def tell(name, call):
        try:
            call()
        except jv.errors.InvalidArgumentError as error:
            found[name] = str(error)
        else:
            found[name] = None

    for case in ("name", "missing", "shape", "dtype", "trainable", "collections"):
        tell(case, lambda case=case: model.init(0, x, case if odd else ""))
    variables = model.init(0, x)
    other = variables.copy_scope("net", "copy") if odd else variables
    tell("save", lambda: jv.checkpoint.save(other, f"{folder}/other"))
    # Under jit, where a difference would be two programs that wait for each other.
    tell("jit", lambda: jax.jit(lambda: model.init(0, x, "name" if odd else ""))())
    strategy = jv.placement.replicated() if odd else jv.placement.fsdp(min_size=0)
    spread = jv.placement.apply(variables, mesh, strategy)
    tell("sharding", lambda: jv.placement.check_processes(spread))
    path = jv.checkpoint.save(variables, f"{folder}/m")
    tell("restore", lambda: jv.checkpoint.restore(path, other))
    tell("nothing", lambda: [jv.checkpoint.restore(path, model.init(1, x)) for _ in range(3)])
    if jax.process_index() == 0:
        found["kept"] = len(_compat.distributed_client().key_value_dir_get_bytes("jaxvars/fingerprints/"))
    return found


@pytest.mark.slow
def test_diverging_model_code_is_an_error_in_all_processes(tmp_path):
    told = run_processes(diverge, 3, str(tmp_path), devices=1)
    assert told[0].pop("kept") == 3  # what was told before is forgotten
    for name in told[0]:
        texts = [process[name] for process in told]
        if isinstance(texts[0], str):
            texts = [text.replace(f"this is process {i}", "this is process N") for i, text in enumerate(texts)]
        assert texts[0] == texts[1] == texts[2], name
    found = told[0]
    assert found["nothing"] is None
    site = r"\(defined at .*test_multihost.py:\d+\)"
    header = (
        "The processes do not have the same variables: 1 differs, processes 0-1 from process 2 (this is process 0)."
    )
    lines = {
        "name": rf"net/extra: only in process 2 {site}",
        "jit": rf"net/extra: only in process 2 {site}",
        "missing": rf"net/bias: only in processes 0-1 {site}",
        "shape": rf"net/kernel: shape \(2, 3\) in processes 0-1, \(2, 4\) in process 2 {site}",
        "dtype": rf"net/kernel: dtype float32 in processes 0-1, bfloat16 in process 2 {site}",
    }
    for name, line in lines.items():
        first, second, *rest = found[name].splitlines()
        assert first == header
        assert re.fullmatch(rf"    {line}", second), second
        assert rest[-1] == "    jv.placement.check_processes(model.specs(*args))"
    assert "net/bias: trainable True in processes 0-1, False in process 2; collections" in found["trainable"]
    assert "net/moments: collections trainable_variables, variables in processes 0-1, mine, " in found["collections"]


def test_many_differences_are_cut_short():
    kinds = []
    for number, processes in enumerate([[0, 1, 4], [2], [3]]):
        names = ["same", *(f"v{i:02}" for i in range(30))]
        records = {name: ["()", "float32", "True", "variables", "", ""] for name in names}
        records["v00"][0] = f"({number},)"
        if number:
            records = {name: record for name, record in records.items() if name < "v01"}
        kinds.append(_Kind(processes, records, {"v00": f"net.py:{number}", "v29": "net.py:9"}))
    lines = _difference_text(kinds, 5).splitlines()
    assert lines[:2] == [
        "The processes do not have the same variables: 30 differ, processes 0-1, 4 from process 2 from process 3 and 2 "
        "more groups (this is process 0).",
        "    v00: shape (0,) in processes 0-1, 4, (1,) in process 2, (2,) in process 3 (defined at net.py:0) in "
        "processes 0-1, 4 (defined at net.py:1) in process 2 (defined at net.py:2) in process 3",
    ]
    assert lines[20] == "    v19: only in processes 0-1, 4" and lines[21] == "    and 10 more"


def come_late():
    """What each of two processes is told, of which the second does something else meanwhile."""
    specs = jv.Variables({"w": jax.ShapeDtypeStruct((2,), "float32")})
    client = _compat.distributed_client()
    if jax.process_index() == 1:
        client.blocking_key_value_get("the other has given up", 30_000)
    try:
        jv.placement.check_processes(specs, timeout=1)
    except jv.errors.FailedPreconditionError as error:
        text = str(error)
    if jax.process_index() == 0:
        client.key_value_set("the other has given up", "yes")
    jv.placement.check_processes(specs)
    return text


@pytest.mark.slow
def test_a_process_that_does_not_come_is_an_error_after_a_time():
    waiting, late = run_processes(come_late, 2, devices=1)
    assert waiting.startswith("Process 1 did not come to compare variables with process 0, which waited at most 1 s.")
    assert late.startswith("Process 1 came to compare variables with the others when one of them had given up.")
    assert "check_processes(model.specs(*args), timeout=3600)" in waiting and "timeout=3600" in late


def test_one_process_has_nobody_to_compare_with():
    jv.placement.check_processes(jv.Variables({}))
    with pytest.raises(jv.errors.InvalidTypeError, match=r"Write: check_processes\(model.specs\(x\)\)"):
        jv.placement.check_processes({"w": 1})


# -- the recipe ----------------------------------------------------------------------------------------------------


def run(strategy, steps, folder, killed=None, kill_after=0):
    """Train; return losses by step, how many bytes lie here, and digests of what was restored and saved."""
    losses, digests = {}, {}

    def report(step, value, variables):
        losses[str(step)] = value
        if step % SAVE_EVERY == 0:
            digests.update({str(step): digest(variables)})
            if not jax.process_index():
                Path(folder, f"digest-{step}").write_text(digests[str(step)])
        if jax.process_index() == killed and step == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    latest = jv.train.latest_checkpoint(folder)
    start = digest(jv.train.Saver().restore(spread_specs(strategy), latest)) if latest else None
    variables = multihost.train(strategy, steps, folder, SAVE_EVERY, report)
    for name, hole in spread_specs(strategy).items():  # training leaves them where they were
        assert variables[name].sharding.is_equivalent_to(hole.sharding, hole.ndim), name
    own = sum(shard.data.nbytes for value in variables.values() for shard in value.addressable_shards)
    return {"losses": losses, "digests": digests, "start": start, "bytes": own, "all bytes": variables.nbytes}


def spread_specs(strategy):
    images = jax.ShapeDtypeStruct((multihost.BATCH, multihost.SIZE, multihost.SIZE, 1), np.float32)
    specs = jv.train.create_global_step(multihost.optimizer.init(multihost.model.specs(images, training=True)))
    return jv.placement.apply(specs, jv.placement.mesh(data=-1), multihost.STRATEGIES[strategy])


def digest(variables):
    """Of names and bits, wherever they lie."""
    whole = multihost_utils.process_allgather(dict(variables), tiled=True)
    assert len(whole) > 10
    return hashlib.sha256(
        b"".join(name.encode() + value.tobytes() for name, value in sorted(whole.items()))
    ).hexdigest()


def both(folder):
    """Train with each strategy."""
    return {strategy: run(strategy, STEPS, f"{folder}/{strategy}") for strategy in multihost.STRATEGIES}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The losses of a process with one device."""
    [found] = run_processes(
        run, 1, "data_parallel", STEPS, str(tmp_path_factory.mktemp("alone")), devices=1, environment=FAST
    )
    losses = list(found["losses"].values())
    assert losses[-1] < 0.8 * losses[0]
    return losses


@pytest.mark.slow
@pytest.mark.parametrize(("count", "devices"), [(2, 2), (4, 1)])
def test_losses_are_those_of_one_process(tmp_path, alone, count, devices):
    for strategy in multihost.STRATEGIES:
        (tmp_path / strategy).mkdir()
    found = run_processes(both, count, str(tmp_path), devices=devices, environment=FAST)
    for process in found:
        for strategy, result in process.items():
            np.testing.assert_allclose(list(result["losses"].values()), alone, **CLOSE)
            assert result["digests"] == found[0][strategy]["digests"]
        assert process["data_parallel"]["bytes"] == devices * process["data_parallel"]["all bytes"]
        assert process["fsdp"]["bytes"] < 0.6 * process["data_parallel"]["bytes"]


@pytest.mark.slow
def test_others_go_on_where_a_process_was_killed(tmp_path, alone):
    folder = str(tmp_path)
    with pytest.raises(ProcessesFailed) as failed:
        run_processes(run, 4, "fsdp", STEPS, folder, 2, 6, devices=1, environment=FAST)
    # One was killed, and the others ended by themselves: whom the launcher has to kill counts as killed too.
    codes = failed.value.codes
    assert codes[2] == -signal.SIGKILL and -signal.SIGKILL not in codes[:2] + codes[3:] and 0 not in codes
    assert jv.train.latest_checkpoint(folder) == f"{folder}/model.ckpt-4"
    saved = Path(folder, "digest-4").read_text()
    # Four have saved what one restores bit for bit, and two, who go on; then one does.
    [one] = run_processes(run, 1, "data_parallel", 4, folder, devices=1, environment=FAST)
    assert one["start"] == saved and not one["losses"]
    two = run_processes(run, 2, "fsdp", 8, folder, devices=1, environment=FAST)
    last = run_processes(run, 1, "data_parallel", STEPS, folder, devices=1, environment=FAST)
    for process in two:
        assert process["start"] == saved and list(process["losses"]) == ["5", "6", "7", "8"]
    assert last[0]["start"] == two[0]["digests"]["8"]
    np.testing.assert_allclose([*two[0]["losses"].values(), *last[0]["losses"].values()], alone[4:], **CLOSE)


def program(folder):
    """What the program prints."""
    sys.argv = ["multihost", "--steps", "1", "--folder", folder]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_module("examples.multihost", run_name="__main__")
    return printed.getvalue()


@pytest.mark.slow
def test_the_program_runs_by_itself(tmp_path):
    [printed] = run_processes(program, 1, str(tmp_path), devices=1, environment=FAST)
    assert re.fullmatch(r"step   1 loss \d\.\d{6}\n", printed)
    assert jv.train.latest_checkpoint(str(tmp_path)) == f"{tmp_path}/model.ckpt-1"
