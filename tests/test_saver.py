"""`jv.train.Saver`. Methods named ``testSomething`` are the behaviours that TensorFlow's saver_test.py checks."""

import json
import os
import shutil
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    InvalidTypeError,
    NotFoundError,
)
from jaxvars.spec import VariableSpec


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make(**values):
    """Variables of the dtypes that TensorFlow gives Python numbers."""
    narrow = {np.float64: np.float32, np.int64: np.int32}
    arrays = {key: jnp.asarray(value) for key, value in values.items()}
    return jv.Variables({key: array.astype(narrow.get(array.dtype.type, array.dtype)) for key, array in arrays.items()})


PAIR = {"v0": 10.0, "v1": 20.0}


def check(variables, **values):
    for key, value in values.items():
        np.testing.assert_array_equal(variables[key], value)


class Handle:
    def __init__(self, key):
        self.key = key


class TestSaverTest:
    def testBasic(self, folder):
        saver = jv.train.Saver({"v0": Handle("v0"), "v1": "v1:0"})
        path = saver.save(make(**PAIR), folder + "/basic")
        assert path == folder + "/basic"
        check(saver.restore(make(v0=0.0, v1=0.0), path), **PAIR)
        check(saver.restore(make(v0=1000.0, v1=2000.0), path), **PAIR)
        holes = jv.Variables({key: jax.ShapeDtypeStruct((), np.float32) for key in PAIR})
        check(saver.restore(holes, path), **PAIR)

    def testEagerBasic(self, folder):
        variables = make(v0=3.14)
        path = jv.train.Saver(["v0"]).save(variables, folder + "/model")
        variables = jv.assign(variables, "v0", 2.71)
        check(jv.train.Saver(["v0"]).restore(variables, path), v0=np.float32(3.14))

    def testBasicsWithListOfVariables(self, folder):
        variables = make(**PAIR, v2=30.0)
        saver = jv.train.Saver(["v0", Handle("v1")])
        path = saver.save(variables, folder + "/list")
        assert jv.train.list_variables(path) == [("v0", []), ("v1", [])]
        restored = saver.restore(make(v0=0.0, v1=0.0, v2=7.0), path)
        check(restored, **PAIR, v2=7.0)

    def testVariables(self, folder):
        variables = make(one=1.0, twos=[2.0, 2.0, 2.0])
        path = jv.train.Saver().save(variables, folder + "/variables")
        assert jv.train.list_variables(path) == [("one", []), ("twos", [3])]
        check(jv.train.Saver().restore(make(one=0.0, twos=jnp.zeros(3)), path), one=1.0, twos=[2.0, 2.0, 2.0])

    def testInt64(self, folder):
        value = np.iinfo(np.int32).max
        path = jv.train.Saver().save(make(v=np.int32(value)), folder + "/int")
        assert int(jv.train.Saver().restore(make(v=np.int32(0)), path)["v"]) == value

    def testCacheRereadsFile(self, folder):
        saver = jv.train.Saver()
        for value in (1.0, 2.0):
            path = saver.save(make(v=value), folder + "/cache")
            check(saver.restore(make(v=0.0), path), v=value)

    def testReshape(self, folder):
        variables = make(v=jnp.arange(6.0).reshape(2, 3))
        path = jv.train.Saver().save(variables, folder + "/reshape")
        target = make(v=jnp.zeros((3, 2)))
        with pytest.raises(InvalidArgumentError, match="Assign requires shapes"):
            jv.train.Saver().restore(target, path)
        check(jv.train.Saver(reshape=True).restore(target, path), v=np.arange(6.0).reshape(3, 2))
        with pytest.raises(InvalidArgumentError, match=r"\[7\]"):
            jv.train.Saver(reshape=True).restore(make(v=jnp.zeros(7)), path)

    @pytest.mark.parametrize("step", [5, np.int64(5), jnp.int32(5), "step", Handle("step")])
    def testSaveWithGlobalStep(self, folder, step, pad=False, suffix="-5"):
        variables = make(v=1.0, step=jnp.int32(5))
        path = jv.train.Saver(pad_step_number=pad).save(variables, folder + "/model", global_step=step)
        assert path == folder + "/model" + suffix
        assert jv.train.checkpoint_exists(path)
        assert jv.train.latest_checkpoint(folder) == path

    def testSaveWithGlobalStepWithPadding(self, folder):
        self.testSaveWithGlobalStep(folder, 5, pad=True, suffix="-00000005")

    def testSaveToNonexistingPath(self, folder):
        path = jv.train.Saver().save(make(v=1.0), folder + "/new/folders/model")
        check(jv.train.Saver().restore(make(v=0.0), path), v=1.0)
        Path(folder + "/file").touch()
        with pytest.raises(FailedPreconditionError, match=r"no folder .*file"):
            jv.train.Saver().save(make(v=1.0), folder + "/file/model")

    def testSaveToURI(self, folder):
        path = jv.train.Saver().save(make(v=1.0), "file://" + folder + "/new/uri")
        assert path == "file://" + folder + "/new/uri"
        check(jv.train.Saver().restore(make(v=0.0), path), v=1.0)
        assert jv.train.latest_checkpoint("file://" + folder + "/new").endswith(folder + "/new/uri")

    def testInvalidPath(self, folder):
        for error in (ValueError, KeyError, NotFoundError):
            with pytest.raises(error, match=r"not a valid checkpoint: .*missing[\s\S]*Failed to find any matching"):
                jv.train.Saver().restore(make(v=1.0), folder + "/missing")
        with pytest.raises(ValueError, match="Can't load save_path when it is None"):
            jv.train.Saver().restore(make(v=1.0), None)

    def testSomeErrors(self, folder):
        with pytest.raises(ValueError, match="same name: v0"):
            jv.train.Saver(["v0", "v1", "v0:0"])
        jv.train.Saver({"vee1": "v0", "other": "v1"}).save(make(**PAIR), folder + "/fine")
        for wrong in ("v0", 3, Handle("v0")):
            with pytest.raises(TypeError, match="should be passed in a dict or a list"):
                jv.train.Saver(wrong)
        for wrong in ([jnp.ones(3)], {"v0": 1.0}):
            with pytest.raises(TypeError, match="is not a Variable"):
                jv.train.Saver(wrong)
        with pytest.raises(ValueError, match="max_to_keep"):
            jv.train.Saver(max_to_keep=-1)

    def testSameName(self):
        with pytest.raises(ValueError, match="will be restored with two names: v0"):
            jv.train.Saver({"save0": "v0", "save1": Handle("v0")})

    def testAllowEmpty(self, folder):
        empty = jv.Variables({})
        with pytest.raises(ValueError, match="No variables to save"):
            jv.train.Saver().save(empty, folder + "/empty")
        saver = jv.train.Saver(allow_empty=True)
        assert saver.save(empty, folder + "/empty") is None
        assert saver.restore(empty, folder + "/empty") is empty
        assert os.listdir(folder) == []

    def testSaveCopyRestoreWithSaveRelativePaths(self, folder):
        saver = jv.train.Saver(save_relative_paths=True)
        saver.save(make(**PAIR), folder + "/first/model", global_step=1)
        saver.save(make(v0=1.0, v1=2.0), folder + "/first/model", global_step=2)
        os.rename(folder + "/first", folder + "/second")
        path = jv.train.latest_checkpoint(folder + "/second")
        assert path == folder + "/second/model-2"
        check(jv.train.Saver().restore(make(**PAIR), path), v0=1.0, v1=2.0)
        text = Path(folder + "/second/checkpoint").read_text()
        assert folder not in text


class TestCheckpointableCompatibilityTests:
    def testVariableNotFoundErrorRaised(self, folder):
        path = jv.train.Saver().save(make(a=1.0, w=2.0), folder + "/model")
        variables = make(a=0.0, b=1.0, c=2.0)
        with pytest.raises(NotFoundError, match=r"Key b not found in checkpoint[\s\S]*Key c not found") as caught:
            jv.train.Saver().restore(variables, path)
        assert "Nothing was restored" in str(caught.value)
        assert "jv.checkpoint.restore(path, variables, ...)" in str(caught.value)
        check(variables, a=0.0)

    def testCheckpointNotFoundErrorRaised(self, folder):
        with pytest.raises(NotFoundError) as caught:
            jv.train.Saver().restore(make(a=1.0), folder + "/path-does-not-exist")
        assert caught.value.__suppress_context__


class TestMaxToKeepTest:
    def testNonSharded(self, folder):
        variables = make(v=10.0)
        s1, s2, s3 = (f"{folder}/{name}" for name in ("s1", "s2", "s3"))
        saver = jv.train.Saver({"v": "v"}, max_to_keep=2)

        def exist(*paths):
            return [jv.train.checkpoint_exists(path) for path in paths]

        assert saver.last_checkpoints == []
        saver.save(variables, s1)
        assert saver.last_checkpoints == [s1]
        saver.save(variables, s2)
        assert saver.last_checkpoints == [s1, s2]
        saver.save(variables, s3)
        assert saver.last_checkpoints == [s2, s3]
        assert exist(s1, s2, s3) == [False, True, True]
        state = jv.train.get_checkpoint_state(folder)
        assert state.model_checkpoint_path == s3
        assert list(state.all_model_checkpoint_paths) == [s2, s3]

        second = jv.train.Saver({"v": "v"}, max_to_keep=2)  # goes on with the first one's list
        second.set_last_checkpoints_with_time([(path, time.time()) for path in saver.last_checkpoints])
        third = jv.train.Saver({"v": "v"}, max_to_keep=2)  # knows of nothing

        saver.save(variables, s2)  # again: moves to the end
        assert saver.last_checkpoints == [s3, s2]
        saver.save(variables, s1)
        assert saver.last_checkpoints == [s2, s1]
        assert exist(s1, s2, s3) == [True, True, False]

        assert second.last_checkpoints == [s2, s3]
        second.save(variables, s2)
        assert second.last_checkpoints == [s3, s2]
        second.save(variables, s1)
        assert second.last_checkpoints == [s2, s1]
        assert exist(s1, s2, s3) == [True, True, False]

        third.save(variables, s3)
        third.save(variables, s1)
        assert third.last_checkpoints == [s3, s1]
        assert exist(s1, s2, s3) == [True, True, True]

    @pytest.mark.parametrize("count", [None, 0])
    def testNoMaxToKeep(self, folder, count):
        saver = jv.train.Saver(max_to_keep=count)
        paths = [saver.save(make(v=1.0), folder + "/model", global_step=step) for step in range(7)]
        assert all(map(jv.train.checkpoint_exists, paths))
        assert saver.last_checkpoints == []
        assert jv.train.latest_checkpoint(folder) == paths[-1]

    def testNoMetaGraph(self, folder):
        jv.train.Saver().save(make(v=1.0), folder + "/model", write_meta_graph=False)
        assert sorted(os.listdir(folder)) == ["checkpoint", "model"]


class TestRecoverLastCheckpointsTest:
    def test_recover_last_checkpoints(self, folder):
        saver = jv.train.Saver(max_to_keep=2)
        paths = [saver.save(make(v=1.0), folder + "/model", global_step=step) for step in range(3)]
        later = jv.train.Saver(max_to_keep=2)
        later.recover_last_checkpoints(jv.train.get_checkpoint_state(folder).all_model_checkpoint_paths)
        assert later.last_checkpoints == paths[1:]
        shutil.rmtree(paths[1])
        later.recover_last_checkpoints(paths)
        assert later.last_checkpoints == paths[2:]
        more = [later.save(make(v=1.0), folder + "/model", global_step=step) for step in (3, 4)]
        assert later.last_checkpoints == more
        assert not jv.train.checkpoint_exists(paths[2])


class TestKeepCheckpointEveryNHoursTest:
    def testNonSharded(self, folder, monkeypatch):
        now = [1000.0]
        monkeypatch.setattr(time, "time", lambda: now[0])
        saver = jv.train.Saver(max_to_keep=2, keep_checkpoint_every_n_hours=0.7 / 3600)
        variables = make(v=10.0)

        def save(name, when):
            now[0] = when
            return saver.save(variables, f"{folder}/{name}")

        s1 = save("s1", 1001.0)  # after the first 0.7 seconds: kept for good
        s2 = save("s2", 1001.1)
        s3 = save("s3", 1001.2)  # s1 falls out and stays
        s4 = save("s4", 1001.3)  # s2 falls out; the next to stay is of 1001.4 or later
        assert [jv.train.checkpoint_exists(s) for s in (s1, s2, s3, s4)] == [True, False, True, True]
        assert saver.last_checkpoints == [s3, s4]


class TestSaveRestoreWithVariableNameMap:
    def testNonReshapeVariable(self, folder):
        saver = jv.train.Saver({"save_prefix/v0": "v0", "save_prefix/v1": "v1"})
        path = saver.save(make(**PAIR), folder + "/mapped")
        assert [name for name, _ in jv.train.list_variables(path)] == ["save_prefix/v0", "save_prefix/v1"]
        check(saver.restore(make(v0=0.0, v1=0.0), path), **PAIR)
        with pytest.raises(NotFoundError, match="Key v0 not found in checkpoint"):
            jv.train.Saver({"v0": "v0", "v1": "v1"}).restore(make(**PAIR), path)
        prefixed = jv.train.Saver({"save_prefix/v0": "restore/a.b", "save_prefix/v1": "restore/axb"})
        restored = prefixed.restore(make(**{"restore/a.b": 0.0, "restore/axb": 0.0}), path)
        check(restored, **{"restore/a.b": 10.0, "restore/axb": 20.0})


@pytest.mark.usefixtures("here")
class TestLatestCheckpointWithRelativePaths:
    def testNameCollision(self):
        saver = jv.train.Saver()
        with pytest.raises(ValueError, match="'latest_filename' collides with 'save_path'"):
            saver.save(make(v=1.0), "checkpoint")
        with pytest.raises(ValueError, match="collides"):
            saver.save(make(v=1.0), "traindir/model", latest_filename="model")
        with pytest.raises(ValueError, match="path components"):
            saver.save(make(v=1.0), "traindir/model", latest_filename="a/b")
        saver.save(make(v=1.0), "traindir/checkpoint", global_step=1)
        assert jv.train.latest_checkpoint("traindir") == "traindir/checkpoint-1"

    @pytest.mark.parametrize("start", ["", "./", "traindir/"])
    def testRelativePath(self, start):
        path = jv.train.Saver().save(make(v0=2.0), start + "snapshot", global_step=7)
        assert path == start + "snapshot-7"
        found = jv.train.latest_checkpoint(start or ".")
        check(jv.train.Saver().restore(make(v0=0.0), found), v0=2.0)
        text = Path(os.path.join(start, "checkpoint")).read_text()
        assert 'model_checkpoint_path: "snapshot-7"' in text


class TestCheckpointStateTest:
    def testAllPathsAndTimes(self, folder):
        """Upstream: testAbsPath, testAllModelCheckpointPaths, testUpdateCheckpointState."""
        saver = jv.train.Saver(max_to_keep=3)
        paths = [saver.save(make(v=1.0), folder + "/model", global_step=step) for step in range(2)]
        state = jv.train.get_checkpoint_state(folder)
        assert list(state.all_model_checkpoint_paths) == paths
        assert os.path.isabs(state.model_checkpoint_path)

    def testOtherStateFile(self, folder):
        saver = jv.train.Saver()
        path = saver.save(make(v=1.0), folder + "/model", latest_filename="mine")
        assert jv.train.latest_checkpoint(folder) is None
        assert jv.train.latest_checkpoint(folder, "mine") == path

    def testCheckPointStateFailsWhenIncomplete(self, folder):
        Path(folder + "/checkpoint").touch()
        with pytest.raises(ValueError, match="the state file is incomplete"):
            jv.train.get_checkpoint_state(folder)

    def testWithoutState(self, folder):
        saver = jv.train.Saver(max_to_keep=1)
        paths = [saver.save(make(v=1.0), f"{folder}/{i}", write_state=False) for i in range(3)]
        assert all(map(jv.train.checkpoint_exists, paths))
        assert not os.path.exists(folder + "/checkpoint")
        assert saver.last_checkpoints == []


# -- a whole run -----------------------------------------------------------------------------------------


def test_a_run_resumes_bit_for_bit(folder):
    def net(x):
        x = jv.layers.batch_normalization(jv.layers.dense(x, 4, activation=jax.nn.relu), training=True)
        return jv.layers.dense(x, 1, name="head")

    model, x = jv.transform(net), jnp.linspace(-1, 1, 12).reshape(6, 2)

    def loss(variables):
        out, variables = model.apply(variables, x)
        return jnp.mean(jnp.square(out - jnp.sum(x, 1, keepdims=True))), variables

    def begin():
        optimizer = jv.train.AdamOptimizer(
            jv.train.exponential_decay(0.1, decay_steps=2, decay_rate=0.5), var_list=".*/(kernel|bias|gamma)"
        )
        variables = optimizer.init(jv.train.create_global_step(model.init(0, x)))
        step = jax.jit(lambda v: optimizer.minimize(loss, v, global_step="global_step")[1])
        return variables, step

    variables, step = begin()
    saver = jv.train.Saver(max_to_keep=2)
    for number in range(6):
        variables = step(variables)
        saver.save(variables, folder + "/model.ckpt", global_step="global_step") if number == 2 else None
    assert jv.train.latest_checkpoint(folder) == folder + "/model.ckpt-3"

    again, step = begin()
    again = jv.train.Saver().restore(again, jv.train.latest_checkpoint(folder))
    assert jv.train.global_step(again) == 3
    for _ in range(3):
        again = step(again)
    assert list(again) == list(variables)
    for key in again:
        np.testing.assert_array_equal(again[key], variables[key], err_msg=key)


def test_only_global_variables_by_default(folder):
    specs = [
        VariableSpec("w", (), np.float32),
        VariableSpec("seen", (), np.float32, False, ("local_variables",)),
        VariableSpec("table", (), np.float32, False, ("saveable_objects",)),
    ]
    variables = jv.Variables.from_specs([(spec, jnp.array(1.0)) for spec in specs])
    path = jv.train.Saver().save(variables, folder + "/model")
    assert [name for name, _ in jv.train.list_variables(path)] == ["table", "w"]
    restored = jv.train.Saver().restore(jax.tree.map(lambda x: x + 1, variables), path)
    check(restored, w=1.0, table=1.0, seen=2.0)
    assert restored._layout is variables._layout


def test_holes_are_all_listed_and_nothing_is_written(folder):
    names = [f"layer_{i:02}/w" for i in range(12)]
    variables = jv.Variables({"a": jnp.ones(2), **{n: jax.ShapeDtypeStruct((2,), np.float32) for n in names}})
    with pytest.raises(FailedPreconditionError, match="uninitialized values: " + ", ".join(names)):
        jv.train.Saver().save(variables, folder + "/model", global_step=1)
    assert os.listdir(folder) == []
    jv.train.Saver(["a"]).save(variables, folder + "/model")


def test_unknown_names_are_all_listed(folder):
    saver = jv.train.Saver(["conv/w", "conv/x", "zzz"])
    variables = jv.Variables({"conv/w": jnp.ones(2)})
    for call in (lambda: saver.save(variables, folder + "/m"), lambda: saver.restore(variables, folder + "/m")):
        with pytest.raises(NotFoundError, match=r'"conv/x" does not exist.*conv/w.*\n.*"zzz"'):
            call()


def test_other_dtype_and_extra_tensors(folder):
    path = jv.train.Saver().save(make(a=jnp.ones(2), b=jnp.ones(2), extra=1.0), folder + "/model")
    wrong = make(a=jnp.zeros(2, jnp.int32), b=jnp.zeros(3))
    with pytest.raises(InvalidArgumentError, match="expected dtype int32 does not equal original dtype float32") as e:
        jv.train.Saver().restore(wrong, path)
    assert "Shape of variable b" in str(e.value)
    check(jv.train.Saver().restore(make(b=jnp.zeros(2)), path), b=[1.0, 1.0])


def test_bad_arguments(folder):
    saver, variables = jv.train.Saver(), make(v=1.0)
    path = saver.save(variables, folder + "/model")
    with pytest.raises(InvalidTypeError, match=r"swapped\. Write: variables = saver\.restore\(variables, path\)"):
        saver.restore(path, variables)
    with pytest.raises(InvalidTypeError, match="not Variables"):
        saver.save({"v": 1.0}, folder + "/model")
    with pytest.raises(InvalidTypeError, match="path is int"):
        saver.save(variables, 3)
    with pytest.raises(InvalidArgumentError, match=r"is a folder: add a name, as in '.*/model\.ckpt'"):
        saver.save(variables, folder + "/")
    for step in (1.5, "v", jnp.ones(2, jnp.int32)):
        with pytest.raises(InvalidTypeError, match="global_step is an integer"):
            saver.save(variables, folder + "/model", global_step=step)
    with pytest.raises(InvalidArgumentError, match="no checkpoint format 'tar'"):
        jv.train.Saver(format="tar").save(variables, folder + "/model")


def test_save_inside_jit_is_refused(folder):
    with pytest.raises(FailedPreconditionError, match="outside"):
        jax.jit(lambda v: jv.train.Saver().save(v, folder + "/model"))(make(v=1.0))
    with pytest.raises(FailedPreconditionError, match="outside of jit"):
        jax.jit(lambda v: jv.train.Saver().save(v, folder + "/model", global_step="v"))(make(v=1))


# -- deletion --------------------------------------------------------------------------------------------


def fallen_out(path, folder):
    """Make a saver delete `path` as an old checkpoint."""
    saver = jv.train.Saver(max_to_keep=1)
    saver.set_last_checkpoints_with_time([(path, 0.0)])
    saver.save(make(v=1.0), folder + "/newest")


def test_never_deletes_what_no_saver_wrote(folder):
    precious = folder + "/data"
    os.makedirs(precious)
    for name in ("photo.jpg", "_METADATA", "_CHECKPOINT_METADATA"):
        with open(f"{precious}/{name}", "w") as file:
            file.write("{}")
    fallen_out(precious, folder)
    assert sorted(os.listdir(precious)) == ["_CHECKPOINT_METADATA", "_METADATA", "photo.jpg"]
    fallen_out(precious + "/photo.jpg", folder)
    assert os.path.exists(precious + "/photo.jpg")
    os.symlink(precious, folder + "/link")
    fallen_out(folder + "/link", folder)
    assert os.path.islink(folder + "/link")


def test_deletes_exactly_the_files_of_a_tensorflow_checkpoint(folder):
    gone = ["m-1.index", "m-1.data-00000-of-00001", "m-1.meta"]
    kept = ["m-10.index", "m-1.txt", "m-1.data-backup", "m-1"]
    for name in gone + kept:
        Path(f"{folder}/{name}").touch()
    fallen_out(folder + "/m-1", folder)
    assert sorted(os.listdir(folder)) == sorted([*kept, "checkpoint", "newest"])


def test_deletes_the_old_folder_whole_and_only_after_the_state_file(folder, monkeypatch):
    saver = jv.train.Saver(max_to_keep=1)
    first = saver.save(make(v=1.0), folder + "/model", global_step=1)
    noted = []

    def rmtree(path, *args, **kwargs):
        if "model-1" in str(path):
            noted.append((os.path.exists(first), Path(folder + "/checkpoint").read_text()))
        original(path, *args, **kwargs)

    original = shutil.rmtree
    monkeypatch.setattr("jaxvars.train.retention.shutil.rmtree", rmtree)
    saver.save(make(v=1.0), folder + "/model", global_step=2)
    assert [(there, "model-1" in text) for there, text in noted] == [(False, False)]
    assert sorted(os.listdir(folder)) == ["checkpoint", "model-2"]


def test_what_a_killed_process_left_half_deleted_goes_with_the_next(folder):
    os.makedirs(folder + "/model-0.jaxvars-deleted/d")
    saver = jv.train.Saver(max_to_keep=1)
    for step in (1, 2):
        saver.save(make(v=1.0), folder + "/model", global_step=step)
    assert sorted(os.listdir(folder)) == ["checkpoint", "model-2"]


def test_a_failed_deletion_warns_and_training_goes_on(folder, monkeypatch):
    saver = jv.train.Saver(max_to_keep=1)
    saver.save(make(v=1.0), folder + "/model", global_step=1)

    def rename(source, target):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patch.setattr("jaxvars.train.retention.os.rename", lambda *a: rename(*a) if "model-1" in a[0] else real(*a))
        path = saver.save(make(v=1.0), folder + "/model", global_step=2)
    assert any("could not delete the old checkpoint" in str(w.message) for w in caught)
    assert jv.train.latest_checkpoint(folder) == path


real = os.rename


def test_a_failed_save_changes_nothing(folder, monkeypatch):
    saver = jv.train.Saver(max_to_keep=1)
    first = saver.save(make(v=1.0), folder + "/model", global_step=1)
    before = Path(folder + "/checkpoint").read_text()

    def broken(*args):
        raise FailedPreconditionError("the disk is full")

    monkeypatch.setattr("jaxvars.train.saver.save_checkpoint", broken)
    with pytest.raises(FailedPreconditionError, match="the disk is full"):
        saver.save(make(v=2.0), folder + "/model", global_step=2)
    assert saver.last_checkpoints == [first]
    assert Path(folder + "/checkpoint").read_text() == before
    check(jv.train.Saver().restore(make(v=0.0), first), v=1.0)


def test_a_run_of_tensorflow_goes_on_as_tensorflow_did():
    """From TensorFlow's checkpoint of step 3 to its state of step 7 (tools/record_resume_golden.py)."""
    golden = Path(__file__).parent / "golden" / "resume"
    x = np.linspace(-1, 1, 12).reshape(6, 2).astype(np.float32)
    y = x.sum(1, keepdims=True)

    def net(x):
        with jv.variable_scope("net"):
            return x @ jv.get_variable("w", [2, 1]) + jv.nn.bias_add(jnp.zeros([6, 1]), jv.get_variable("b", [1]))

    model = jv.transform(net)
    optimizer = jv.train.AdamOptimizer(jv.train.exponential_decay(0.1, decay_steps=2, decay_rate=0.5))

    @jax.jit
    def step(variables):
        loss, grads = jv.value_and_grad(lambda v: jnp.mean((model(v, x) - y) ** 2))(variables)
        return loss, optimizer.apply_gradients(grads, variables, global_step="global_step")

    holes = optimizer.init(jv.train.create_global_step(model.specs(x)))
    variables = jv.train.Saver().restore(holes, jv.train.latest_checkpoint(golden))
    assert jv.train.global_step(variables) == 3
    for _ in range(4):
        _, variables = step(variables)
    end = json.loads((golden / "end.json").read_text())
    assert sorted(end) == list(variables)
    for key, value in end.items():
        np.testing.assert_allclose(variables[key], np.asarray(value, variables[key].dtype), rtol=1e-6, err_msg=key)


def test_a_save_names_the_savers_format(tmp_path):
    with pytest.raises(InvalidTypeError, match=r"Write: jv\.train\.Saver\(format='tf'\)"):
        jv.train.Saver().save(jv.Variables({"w": jnp.ones(2)}), tmp_path / "m", format="tf")
    jv.train.Saver(format="tf").save(jv.Variables({"w": jnp.ones(2)}), tmp_path / "m")
    assert (tmp_path / "checkpoint").read_text().startswith("model_checkpoint_path: ")
