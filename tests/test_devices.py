"""Device strings, `jv.device`, and the devices of JAX on which variables then live."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import textwrap
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError
from jaxvars.scopes.devices import canonical_device

numbers = st.none() | st.integers(0, 12)


@st.composite
def specs(draw: st.DrawFn) -> jv.DeviceSpec:
    kind = draw(st.sampled_from([None, "CPU", "GPU", "TPU", "XLA_CPU"]))
    index = None if kind is None else draw(numbers)
    return jv.DeviceSpec(
        draw(st.sampled_from([None, "ps", "worker", "w_2"])), draw(numbers), draw(numbers), kind, index
    )


def device_of(*blocks: Any, name: str = "v") -> str:
    """The device of a variable made inside these blocks, outermost first."""

    def net() -> None:
        def made() -> Any:
            return jv.get_variable(name, [2])

        for block in reversed(blocks):
            made = jv.device(block)(made)
        made()

    return jv.transform(net).specs().variable_specs[name].placement or ""


# -- strings


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        ("/gpu:1", "/device:GPU:1"),
        ("gpu:0", "/device:GPU:0"),
        ("/Gpu:0", "/device:GPU:0"),
        ("/cpu", "/device:CPU:*"),
        ("/device:CPU:*", "/device:CPU:*"),
        ("/device:cpu:0", "/device:CPU:0"),
        ("/device:xla_cpu:0", "/device:xla_cpu:0"),
        ("//tpu:3//", "/device:TPU:3"),
        ("/gpu:0/task:01/job:ps/replica:2", "/job:ps/replica:2/task:1/device:GPU:0"),
    ],
)
def test_canonical_strings(text: str, canonical: str) -> None:
    assert canonical_device(text) == device_of(text) == canonical


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("/device:GPU", r"Unknown attribute 'device' in 'device:GPU'. Write /device:GPU:0\."),
        ("/gpu:0/cpu:0", "Multiple device types are not allowed"),
        ("/job:a/job:b", "more than one job"),
        ("/job:a/task:1/task:1", "more than one task"),
        ("/job:", "'' is not the name of a job"),
        ("/job:a:b", "Unknown attribute 'job'"),
        ("/job:my ps", "'my ps' is not the name of a job"),
        ("/task:-1", "'-1' in 'task:-1' is not a number"),
        ("/task:x", "'x' in 'task:x' is not a number"),
        ("/gpu:", "'' in 'gpu:' is not a number"),
        ("/foo:1", "Unknown attribute 'foo'"),
        ("/:0", "Unknown attribute ''"),
        (" /gpu:0", "Unknown attribute ' '"),
        ("cuda:0", "Unknown attribute 'cuda'"),
        ("/device:G PU:0", "Unknown attribute 'device'"),
    ],
)
def test_malformed_strings(text: str, what: str) -> None:
    with pytest.raises(InvalidArgumentError, match=what) as caught:
        jv.device(text)
    assert repr(text) in str(caught.value) and "test_devices.py" in str(caught.value)


@given(specs())
def test_parsing_undoes_printing(spec: jv.DeviceSpec) -> None:
    assert jv.DeviceSpec.from_string(spec.to_string()) == spec
    assert canonical_device(spec.to_string()) == spec.to_string()


@given(specs(), specs(), specs())
def test_merging_is_associative_and_the_inner_one_wins(a: jv.DeviceSpec, b: jv.DeviceSpec, c: jv.DeviceSpec) -> None:
    assert a.make_merged_spec(b).make_merged_spec(c) == a.make_merged_spec(b.make_merged_spec(c))
    assert a.make_merged_spec(jv.DeviceSpec()) == jv.DeviceSpec().make_merged_spec(a) == a
    merged = a.make_merged_spec(b)
    assert all(getattr(merged, f) == getattr(b, f) for f in jv.DeviceSpec.__slots__ if getattr(b, f) is not None)
    # Of a device only the type is said where the index is open.
    expected = merged if merged.device_type is not None else merged.replace(device_index=None)
    assert device_of(a, b) == expected.to_string()


def test_spec_fields() -> None:
    spec = jv.DeviceSpec(job="ps", device_type="gpu")
    assert spec.device_type == "GPU" and spec.replace(job=None).to_string() == "/device:GPU:*"
    with pytest.raises(InvalidTypeError, match="named by a string"):
        jv.DeviceSpec.from_string(3)  # pyright: ignore[reportArgumentType]


# -- blocks


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([], ""),
        (["/device:GPU:1", "/cpu"], "/device:CPU:1"),
        (["/job:ps/task:1", "/gpu:*"], "/job:ps/task:1/device:GPU:*"),
        (["/gpu:1", None, "/job:a"], "/job:a"),
        (["/gpu:1", None], ""),
        (["/gpu:1", ""], "/device:GPU:1"),
        ([lambda op: "/gpu:1", "/cpu:0"], "/device:GPU:1"),
        (["/job:ps", lambda op: "/gpu:1"], "/job:ps/device:GPU:1"),
        (["/gpu:1", lambda op: op.device], "/device:GPU:1"),
        (["/gpu:0", lambda op: "/job:f", "/task:2"], "/job:f/device:GPU:0"),
        (["/gpu:0", lambda op: f"{op.device}/job:{op.name}", "/task:2"], "/job:v/task:2/device:GPU:0"),
        ([lambda op: jv.DeviceSpec(job=op.type)], "/job:VariableV2"),
        ([lambda op: f"/task:{op.shape[0]}/job:{op.dtype.name}"], "/job:float32/task:2"),
        ([jv.DeviceSpec(task=3), "/job:a"], "/job:a/task:3"),
    ],
)
def test_nesting(blocks: list[Any], expected: str) -> None:
    assert device_of(*blocks) == expected


def test_every_way_of_making_a_variable() -> None:
    def net(x: Any) -> Any:
        with jv.device("/gpu:1"):
            made = [
                jv.get_variable("a", [1], caching_device="/cpu:0"),
                jv.get_local_variable("b", [1]),
                jv.Variable(1.0, name="c"),
            ]
            x = jv.layers.dense(x, 2, name="d")
            with jv.variable_scope("s", reuse=jv.AUTO_REUSE), jv.device("/gpu:2"):
                made.append(jv.get_variable("e", [1]))
        with jv.variable_scope("s", reuse=True), jv.device("/gpu:3"):
            assert jv.get_variable("e", [1]) is made[-1]
        assert [v.device for v in made] == ["/device:GPU:1"] * 3 + ["/device:GPU:2"]
        assert jv.get_variable("f", [1]).device == ""
        return x

    found = jv.transform(net).specs(jnp.ones([1, 2]))
    places = {name: spec.placement for name, spec in found.variable_specs.items()}
    one = "/device:GPU:1"
    assert places == {
        "a": one, "b": one, "c": one, "d/bias": one, "d/kernel": one, "f": None, "s/e": "/device:GPU:2"
    }  # fmt: skip
    assert "/device:GPU:2" in str(found.summary()) and "device" in found.summary()._repr_html_()
    assert pickle.loads(pickle.dumps(found))._layout is found._layout
    # A note: never compared, so it costs no second trace.
    moved = found._layout.with_placement({0: "/cpu:1"})
    assert moved == found._layout and hash(moved) == hash(found._layout) and moved.placement[0] == "/cpu:1"
    assert found.scope("s").variable_specs["s/e"].placement == "/device:GPU:2"


def test_bodies_that_jax_runs_twice_ask_once() -> None:
    asked: list[str] = []

    def setter(op: Any) -> str:
        asked.append(op.name)
        return f"/task:{len(asked)}"

    def net(x: Any) -> Any:
        def body(carry: Any, _: Any) -> Any:
            with jv.device(setter):
                w = jv.get_variable("w", [], initializer=jv.ones_initializer())
            assert w.device == "/task:1"
            return carry + w, None

        # The carry begins as an int and becomes a float: JAX traces the body twice.
        return jax.lax.scan(body, 0, x)[0]

    assert jv.transform(net).specs(jnp.ones(3)).variable_specs["w"].placement == "/task:1"
    assert asked == ["w"]


def test_blocks_end_with_an_exception_with_a_thread_and_with_a_frame() -> None:
    with pytest.raises(ZeroDivisionError), jv.device("/gpu:1"), jv.VariableStore():
        jv.device("/gpu:2").__enter__()  # left open: ends with the frame
        raise ZeroDivisionError
    assert device_of() == ""
    found: list[str] = []
    with jv.device("/gpu:1"):
        assert device_of() == "/device:GPU:1"  # a frame begins with what is open around it
        thread = threading.Thread(target=lambda: found.append(device_of()))
        thread.start()
        thread.join()
    assert found == [""]


def test_blocks_are_closed_in_order() -> None:
    outer, inner = jv.device("/gpu:1"), jv.device("/job:a")
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(FailedPreconditionError, match="Improper nesting of device"):
        outer.__exit__(None, None, None)
    assert device_of() == "/job:a/device:GPU:1"
    inner.__exit__(None, None, None)
    outer.__exit__(None, None, None)
    with pytest.raises(FailedPreconditionError, match="Improper nesting of device"):
        outer.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("function", "kind", "text"),
    [
        (
            lambda op: None,
            InvalidTypeError,
            "returned None for variable w: it must return a device string.*return op.device",
        ),
        (lambda op: "/gpu", None, ""),
        (lambda op: "/nope:1", InvalidArgumentError, "for variable w: The device '/nope:1'"),
    ],
)
def test_functions_that_return_nonsense(function: Any, kind: Any, text: str) -> None:
    with jv.VariableStore() as store:
        if kind is None:
            with jv.device(function):
                assert jv.get_variable("w", [2]).device == "/device:GPU:*"
            return
        with jv.device(function), pytest.raises(kind, match=text):
            jv.get_variable("w", [2])
        jv.get_variable("w", [2])  # the name was not taken
    assert list(store.variables) == ["w"]


def test_device_takes_devices_only() -> None:
    with pytest.raises(InvalidTypeError, match=r"a jax.Device or a Sharding, got 3 \(int\)"):
        jv.device(3)


# -- devices of JAX


def _on(array: Any) -> int:
    (device,) = array.devices()
    return device.id


def _two(x: Any) -> Any:
    with jv.device("/cpu:1"):
        w = jv.get_variable("w", [2, 2], initializer=jv.ones_initializer())
    with jv.device("/job:ps/task:3/cpu:2"):
        n = jv.get_variable("n", [2], initializer=jv.zeros_initializer(), trainable=False)
    with jv.device("/job:ps"):
        b = jv.get_variable("b", [2], initializer=jv.zeros_initializer())
    n.assign_add(jnp.ones(2))
    return x @ w + (n + b).reshape(1, 2)


TWO = jv.transform(_two)
X = np.ones([1, 2], np.float32)
HOMES = {"b": 0, "n": 2, "w": 1}


def _homes(variables: jv.Variables) -> dict[str, int]:
    return {name: _on(value) for name, value in variables.items()}


def test_init_puts_values_where_they_live() -> None:
    variables = TWO.init(0, X)
    assert _homes(variables) == HOMES
    assert variables["w"].committed and not variables["b"].committed  # a job alone leaves the choice to JAX
    by_hand = TWO.init(0, X, variables=jv.Variables({"w": jax.ShapeDtypeStruct((2, 2), "float32")}))
    assert _homes(by_hand) == HOMES
    kept = TWO.init(0, X, variables=jv.Variables({"w": jnp.ones([2, 2], "float32")}))
    assert _homes(kept) == {**HOMES, "w": 0}  # a value stays where it is
    filled = jv.variables_initializer(TWO.specs(X), 0)
    assert _homes(filled) == HOMES
    assert _homes(jax.jit(TWO.init)(0, X)) == {"b": 0, "n": 0, "w": 0}  # inside jit its caller decides


def test_eager_apply_brings_values_together_and_updates_home() -> None:
    variables = TWO.init(0, X)
    for _ in range(2):
        out, after = TWO.apply(variables, X)
        assert out.tolist() == [[3, 3]] and _on(out) == 0
        assert _homes(after) == HOMES and after["n"].tolist() == [1, 1]
        assert after["w"] is variables["w"]
    out, after = TWO.apply(variables, jax.device_put(X, jax.devices()[3]))
    assert _on(out) == 3 and _homes(after) == HOMES
    with pytest.raises(FailedPreconditionError, match="assigned n"):
        TWO(variables, X)


def test_under_jit_the_variables_are_brought_together_before() -> None:
    variables = TWO.init(0, X)
    with pytest.raises(ValueError, match="incompatible devices"):
        jax.jit(TWO.apply)(variables, X)
    there = variables.to(jax.devices()[3])
    assert set(_homes(there).values()) == {3}
    assert there.variable_specs["w"].placement == "/device:CPU:3"
    out, _ = TWO.apply(there, X)  # one device only: nothing is moved
    assert _on(out) == 3 and out.tolist() == [[3, 3]]


def test_gradients_come_home() -> None:
    def loss(variables: jv.Variables, x: Any) -> tuple[Any, Any]:
        out, variables = TWO.apply(variables, x)
        return jnp.sum(out**2), {"state": variables, "out": out}

    variables = TWO.init(0, X)
    (value, aux), gradients = jv.value_and_grad(loss, has_aux=True)(variables, X)
    assert value == 18 and _on(aux["out"]) == 0 and aux["state"]["n"].tolist() == [1, 1]
    assert _homes(gradients) == {"b": 0, "w": 1} and gradients["w"].tolist() == [[6, 6], [6, 6]]
    assert _homes(aux["state"]) == HOMES
    optimizer = jv.train.MomentumOptimizer(0.5, 0.9)
    after = optimizer.apply_gradients(gradients, optimizer.init(aux["state"]))
    assert _homes(after) == {**HOMES, "b/Momentum": 0, "w/Momentum": 1} and after["w"].tolist() == [[-2, -2], [-2, -2]]


def test_other_gradients_over_several_devices_say_what_to_write() -> None:
    variables = TWO.init(0, X)
    with pytest.raises(InvalidArgumentError, match=r"variables = variables.to\(jax.devices\(\)\[0\]\)") as caught:
        jax.grad(lambda v: jnp.sum(TWO.apply(v, X)[0]))(variables)
    assert "/device:CPU:1: w" in str(caught.value)


def test_values_moved_by_hand_say_so_too() -> None:
    one, two = jax.devices()[1:3]
    variables = jv.Variables({"w": jax.device_put(jnp.ones([2, 2], "float32"), one), "n": jnp.ones(2, "float32")})
    variables |= jv.Variables({"b": jax.device_put(jnp.ones(2, "float32"), two)})
    with pytest.raises(InvalidArgumentError, match="cpu:1: w"):
        TWO.apply(variables, X)


def test_a_model_with_an_inner_transform() -> None:
    def net(xs: Any) -> Any:
        with jv.device("/cpu:1"):
            total = jv.get_variable("total", [], initializer=jv.zeros_initializer(), trainable=False)
        with jv.device("/cpu:2"):
            scale = jv.get_variable("scale", [], initializer=jv.ones_initializer())
        return jax.lax.scan(lambda c, x: (c, total.assign_add(scale * x)), None, xs)[1]

    model = jv.transform(net)
    xs = jnp.arange(3.0)
    variables = model.init(0, xs)
    out, after = model.apply(variables, xs)
    assert out.tolist() == [0, 1, 3] and _homes(after) == {"scale": 2, "total": 1} and after["total"] == 3


def test_initial_values_that_the_model_computes() -> None:
    def net() -> None:
        with jv.device("/cpu:1"):
            v = jv.get_variable("v", [2], initializer=jv.ones_initializer())
        with jv.device("/cpu:2"):
            u = jv.get_variable("u", [2], initializer=jv.ones_initializer())
            jv.get_variable("w", initializer=v.initialized_value() + u.initialized_value())
        with jv.device(SingleDeviceSharding(jax.devices()[4])):
            jv.get_variable("x", initializer=v.initialized_value() * 3)

    variables = jv.transform(net).init(0)
    assert _homes(variables) == {"u": 2, "v": 1, "w": 2, "x": 4}
    assert variables["w"].tolist() == [2, 2] and variables["x"].tolist() == [3, 3]


def test_a_store_kept_by_hand() -> None:
    store = jv.VariableStore(0)
    for _ in range(2):
        with store:
            with jv.device("/cpu:1"):
                a = jv.get_variable("a", [2], initializer=jv.ones_initializer())
            with jv.device("/cpu:2"):
                b = jv.get_variable("b", [2], initializer=jv.ones_initializer())
                c = jv.Variable(jnp.ones(2) * 5, name="c")
            a.assign(a + b + c)  # computed on the default device
            assert _on(a.value) == 0 and a.device == "/device:CPU:1"
            assert _homes(store.variables) == {"a": 1, "b": 2, "c": 2}
        assert _homes(store.variables) == {"a": 1, "b": 2, "c": 2}
    assert store.variables["a"].tolist() == [13, 13]
    with jv.VariableStore() as unseeded, jv.device("/gpu:1"):
        jv.get_variable("w", [2], initializer=jv.ones_initializer())  # without rng nothing is placed
    assert unseeded.variables["w"].tolist() == [1, 1]


def test_restored_values_go_home(tmp_path: Any) -> None:
    path = jv.checkpoint.save(
        jv.Variables({"w": jnp.ones([2, 2], "float32"), "n": jnp.ones(2, "float32")}), str(tmp_path / "c")
    )
    variables = jv.checkpoint.restore(path, TWO.specs(X), strict=False)
    assert {name: _on(variables[name]) for name in "nw"} == {"n": 2, "w": 1}
    assert variables["b"].sharding is None and variables.uninitialized == ("b",)
    assert _homes(TWO.init(0, X, variables=variables)) == HOMES

    def absent() -> None:
        with jv.device("/gpu:1"):
            jv.get_variable("w", [2, 2])

    with pytest.raises(InvalidArgumentError, match="Cannot assign a device for operation w"):
        jv.checkpoint.restore(path, jv.transform(absent).specs())


def test_optimizer_slots_live_with_their_variable() -> None:
    optimizer = jv.train.MomentumOptimizer(0.1, 0.9)
    variables = optimizer.init(TWO.init(0, X))
    assert _on(variables["w/Momentum"]) == 1
    assert variables.variable_specs["w/Momentum"].placement == "/device:CPU:1"


def test_an_absent_device_is_named_with_what_there_is() -> None:
    def net(soft: bool) -> None:
        with jv.device("/gpu:1", soft_placement=soft):
            jv.get_variable("w", [2])
        with jv.device("/cpu:11", soft_placement=soft), jv.device("/job:a"):
            assert jv.get_variable("v", [2]).device == "/job:a/device:CPU:11"

    model = jv.transform(net)
    specs = model.specs(False)  # nothing is resolved
    for fill in (lambda: model.init(0, False), lambda: jv.variables_initializer(specs, 0)):
        with pytest.raises(InvalidArgumentError) as caught:
            fill()
        text = str(caught.value)
        assert "was explicitly assigned to /job:a/device:CPU:11 but available devices are [ /device:CPU:0" in text or (
            "was explicitly assigned to /device:GPU:1 but available devices are [ /device:CPU:0" in text
        )
        assert "w: /device:GPU:1, defined at" in text and "v: /job:a/device:CPU:11, defined at" in text
        assert "soft_placement=True): ..." in text and "with jv.device('/device:CPU:0'): ..." in text
    variables = model.init(0, True)
    assert _homes(variables) == {"v": 3, "w": 1}  # another type; the index taken round
    assert variables.variable_specs["w"].placement == "/device:GPU:1 (soft)"
    assert jv.transform(lambda: jv.get_variable("w", [2]).device).apply(variables)[0] == "/device:GPU:1"


def test_resolve() -> None:
    assert jv.placement.resolve("/cpu:3") == jax.devices("cpu")[3]
    assert jv.placement.resolve("/cpu") == jv.placement.resolve("/device:CPU:*") == jax.devices("cpu")[0]
    assert jv.placement.resolve("") is jv.placement.resolve("/job:worker/task:5") is None
    assert jv.placement.resolve("/tpu:9", soft_placement=True) == jax.devices()[1]
    with pytest.raises(
        InvalidArgumentError, match=r"no device /device:GPU:0; available devices are \[ /device:CPU:0 to"
    ):
        jv.placement.resolve("/gpu:0")


def test_devices_and_shardings_of_jax() -> None:
    mesh = jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("i"))

    def net() -> None:
        with jv.device(sharding):
            jv.get_variable("a", [8], initializer=jv.ones_initializer())
            with jv.device("/cpu:1"):
                jv.get_variable("b", [8], initializer=jv.ones_initializer())
            with jv.device(None):
                assert jv.get_variable("c", [8], initializer=jv.ones_initializer()).device == ""
        with jv.device(jax.devices()[5]), jv.device("/job:a"):
            assert jv.get_variable("d", [8]).device == "/job:a/device:CPU:5"

    model = jv.transform(net)
    specs = model.specs()
    assert specs["a"].sharding == sharding and specs.variable_specs["a"].placement == PartitionSpec("i")
    variables = model.init(0)
    assert variables["a"].sharding == sharding
    assert {name: _on(variables[name]) for name in "bcd"} == {"b": 1, "c": 0, "d": 5}
    with jv.VariableStore(0) as store, jv.device(sharding):
        jv.get_variable("a", [8], initializer=jv.ones_initializer())
    assert store.variables["a"].sharding == sharding
    assert "('i',) over i=4  ('i',)" in str(variables.summary())


@pytest.mark.slow
def test_only_those_who_name_devices_import_the_room() -> None:
    code = "import sys, jaxvars as jv; jv.transform(lambda: jv.get_variable('w', [2]) + 1).init(0)\n"
    code += "assert not any(name.startswith('jaxvars.placement') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_tasks_are_processes() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    code = f"""
        import sys, jax
        number = int(sys.argv[1])
        jax.distributed.initialize({address!r}, 2, number)
        import jaxvars as jv

        def of(text):
            device = jv.placement.resolve(text)
            return device and (device.process_index, device.platform)

        assert of("/task:0") == (0, "cpu") and of("/job:worker/task:1/cpu:1") == (1, "cpu")
        assert of("/job:ps/cpu:3") == (1, "cpu") and of("/job:ps") is None
        try:
            jv.placement.resolve("/task:2")
        except jv.errors.InvalidArgumentError as error:
            assert "no device /task:2" in str(error)
        else:
            raise AssertionError

        def net(task):
            with jv.device(f"/job:worker/task:{{task}}"):
                w = jv.get_variable("w", [2], initializer=jv.ones_initializer())
            return w + 1

        model = jv.transform(net)
        made = [model.init(0, task) for task in range(2)]  # in one order: all processes must make the same
        own, other = made[number], made[1 - number]
        assert own["w"].device.process_index == number and model(own, number).tolist() == [2, 2]
        assert other["w"].device.process_index == 1 - number and not other["w"].is_fully_addressable
        text = jv.scopes.device_scope.device_text(own["w"].device)
        assert text == f"/task:{{number}}/device:CPU:0" and jv.placement.resolve(text) == own["w"].device
        print("done")
    """
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in range(2)
    ]
    for process in started:
        out, err = process.communicate(timeout=120)
        assert out == "done\n", err
