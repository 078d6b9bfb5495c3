"""`make_template`: variables made at the first call, shared at all later ones; a fresh graph in each frame."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv

X = jnp.ones([2], jnp.float32)


def scale(x: Any = X, name: str = "w") -> Any:
    return x * jv.get_variable(name, [2], initializer=jv.ones_initializer())


def weight(**options: Any) -> Any:
    return jv.get_variable("w", [2], initializer=jv.ones_initializer(), **options)


def specs(fn: Any, *args: Any) -> list[str]:
    """The names a model makes, in the order of creation."""
    return list(jv.transform(fn).specs(*args)._layout.creation_order)


# Names


def test_two_templates_of_one_name_have_scopes_of_their_own() -> None:
    first, second = jv.make_template("s1", scale), jv.make_template("s1", scale)
    assert specs(lambda: [second(), first(), first(), second()]) == ["s1/w", "s1_1/w"]


def test_the_scope_is_where_the_first_call_is() -> None:
    def net() -> None:
        shared = jv.make_template("s1", scale)
        with jv.variable_scope("a"):
            shared()
        with jv.variable_scope("b"):
            shared()

    assert specs(net) == ["a/s1/w"]


def test_a_scope_created_now_is_where_the_template_is_made() -> None:
    def net() -> None:
        with jv.variable_scope("a"):
            one = jv.make_template("t", scale, create_scope_now_=True)
            two = jv.make_template("t", scale, True)
            late = jv.make_template("t", scale)
        assert (one.variable_scope_name, two.variable_scope_name, late.variable_scope) == ("a/t/", "a/t_1/", None)
        with jv.variable_scope("b"):
            two(), one(), late()

    assert specs(net) == ["a/t_1/w", "a/t/w", "b/t/w"]


def test_a_scope_created_outside_of_frames_stands_at_the_root() -> None:
    template = jv.make_template("t", scale, create_scope_now_=True)

    def net() -> None:
        with jv.variable_scope("b"):
            template(), template()

    assert specs(net) == specs(net) == ["t/w"]


@pytest.mark.parametrize("now", [False, True])
def test_a_unique_name_is_taken_as_it_is_and_may_collide(now: bool) -> None:
    def net() -> None:
        one = jv.make_template("_", scale, unique_name_="s1", create_scope_now_=now)
        two = jv.make_template("_", scale, unique_name_="s1", create_scope_now_=now)
        one(), one()
        with pytest.raises(ValueError, match=r"s1/w already exists(.|\n)*originally defined at:\n.*test_template.py"):
            two()

    assert specs(net) == ["s1/w"]


def test_the_scope_counts_as_one_of_its_default_name() -> None:
    def net() -> list[str]:
        template = jv.make_template("t", weight)
        names: list[str] = []
        with jv.variable_scope("s"):
            for _ in range(2):
                template()
                with jv.variable_scope(None, "t") as scope:
                    names.append(scope.name)
        return names

    with jv.VariableStore(0):
        assert net() == ["s/t_1", "s/t_2"]


def test_variables_made_by_jv_variable_follow_the_name_scopes_of_the_calls() -> None:
    template = jv.make_template("t", lambda: jv.Variable(1.0, name="v", trainable=False))
    assert specs(lambda: [template(), template()]) == ["t/v", "t_1/v"]


# Sharing and its errors


def test_later_calls_share_and_the_first_takes_over_reuse() -> None:
    def net() -> None:
        template = jv.make_template("t", weight)
        with jv.variable_scope("s", reuse=jv.AUTO_REUSE):
            made = template()
        with jv.variable_scope("q"):
            assert template() is made
        assert template.variable_scope is not None and template.variable_scope.reuse is jv.AUTO_REUSE

    assert specs(net) == ["s/t/w"]


def test_a_later_call_makes_no_new_variable() -> None:
    template = jv.make_template("t", scale)

    def net() -> None:
        template(name="a")
        with pytest.raises(ValueError) as caught:
            template(name="b")
        text = str(caught.value)
        assert "Variable t/b does not exist" in text
        assert "\n\noriginally defined at:\n" in text and "test_template.py" in text.rsplit("defined at", 1)[1]
        template(name="a")

    assert specs(net) == ["t/a"]


def test_a_later_call_makes_no_trainable_variable() -> None:
    def bad() -> Any:
        return jv.Variable(1.0, name="v"), jv.get_variable("w", [])

    def net() -> list[str]:
        template = jv.make_template("t", bad)
        template()
        for _ in range(2):  # the wrong call leaves nothing behind
            with pytest.raises(ValueError, match="Trainable variable created when calling a template after the first"):
                template()
        return [v.key for v in jv.trainable_variables()]

    store = jv.VariableStore(0)
    with store:
        assert net() == ["t/v", "t/w"]
    assert list(store.variables) == specs(net) == ["t/v", "t/w"]


def test_a_first_call_that_fails_leaves_the_template_uncalled() -> None:
    fails = [True]

    def shaky() -> None:
        jv.get_variable("a", [])
        if fails.pop() if fails else False:
            raise KeyError("boom")

    def net() -> None:
        template = jv.make_template("t", shaky)
        with jv.variable_scope("s"), pytest.raises(KeyError) as caught:
            template()
        assert "boom\n\noriginally defined at:" in caught.value.args[0]
        assert template.variable_scope is None and template.variables == [] == jv.global_variables()
        template()
        assert [v.key for v in template.variables] == ["t/a"]

    store = jv.VariableStore(0)
    with store:
        net()
    assert list(store.variables) == ["t/a"]


def test_an_error_of_several_arguments_keeps_them() -> None:
    def refuse() -> None:
        raise OSError(2, "no such file")

    with jv.VariableStore(0), pytest.raises(OSError) as caught:
        jv.make_template("t", refuse)()
    assert caught.value.args == (2, "no such file")
    assert "originally defined at:" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (lambda: jv.make_template(None, scale), ValueError, "name cannot be None"),  # pyright: ignore[reportArgumentType]
        (lambda: jv.make_template(3, scale), TypeError, "name_ of make_template is a string"),  # pyright: ignore
        (lambda: jv.make_template("t", scale, unique_name_=3), TypeError, "unique_name_"),  # pyright: ignore
        (lambda: jv.make_template("t", "scale"), TypeError, "takes a function"),  # pyright: ignore
    ],
)
def test_what_is_no_template(make: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        make()


def test_outside_of_a_frame() -> None:
    template = jv.make_template("t", scale)
    assert template.variable_scope is None is template.variable_scope_name
    for use in (template, lambda: template.variables):
        with pytest.raises(RuntimeError, match=r"(?s)template 't'.*jv\.transform"):
            use()


# Arguments, getters, defaults


def test_keywords_are_bound_and_the_function_is_kept() -> None:
    template = jv.make_template("t", scale, name="y")
    assert (template.name, template.func.func, template.func.keywords) == ("t", scale, {"name": "y"})  # pyright: ignore
    assert jv.make_template("t", scale).func is scale
    assert specs(lambda: template()) == ["t/y"]


@pytest.mark.parametrize("now", [False, True])
def test_a_custom_getter_serves_all_calls(now: bool) -> None:
    def renamed(getter: Any, name: str, **options: Any) -> Any:
        return getter(name + "_g", **options)

    def net() -> None:
        template = jv.make_template("t", scale, create_scope_now_=now, custom_getter_=renamed)
        template(), template()

    assert specs(net) == ["t/w_g"]


def test_defaults_are_those_of_the_first_call() -> None:
    def net() -> Any:
        template = jv.make_template("t", lambda: jv.get_variable("w", [2]))
        with jv.variable_scope("s", initializer=jv.ones_initializer()):
            template()
        return template() * 1.0

    assert jv.transform(net).init(0)["s/t/w"].tolist() == [1.0, 1.0]


def test_what_a_template_has() -> None:
    def make() -> None:
        jv.get_variable("w", [])
        jv.get_variable("steps", [], trainable=False)
        jv.get_local_variable("seen", [])

    with jv.VariableStore(0):
        template = jv.make_template("a.b", make)
        assert template.variables == [] == template.trainable_variables
        jv.get_variable("axb/other", [])
        template()
        keys = {
            attribute: [v.key.rsplit("/", 1)[1] for v in getattr(template, attribute)]
            for attribute in ("variables", "global_variables", "local_variables", "trainable_variables",
                              "non_trainable_variables", "weights", "trainable_weights", "non_trainable_weights")
        }  # fmt: skip
        assert template.var_scope is template.variable_scope
        assert template.variable_scope_name == "a.b/"
    assert keys["variables"] == keys["weights"] == ["w", "steps", "seen"]
    assert keys["trainable_variables"] == keys["trainable_weights"] == ["w"]
    assert keys["non_trainable_variables"] == keys["non_trainable_weights"] == ["steps"]
    assert (keys["global_variables"], keys["local_variables"]) == (["w", "steps"], ["seen"])


# Templates in templates, in themselves


def test_templates_in_templates() -> None:
    def outer() -> Any:
        one, two = jv.make_template("inner", weight), jv.make_template("inner", weight)
        return one(), two(), one()

    def net() -> None:
        first, second = jv.make_template("outer", outer), jv.make_template("outer", outer)
        assert first() == first()
        second()
        assert [v.key for v in second.variables] == ["outer_1/inner/w", "outer_1/inner_1/w"]

    assert specs(net) == ["outer/inner/w", "outer/inner_1/w", "outer_1/inner/w", "outer_1/inner_1/w"]


def test_the_inner_and_the_outer_template_are_named_in_an_error() -> None:
    inner = jv.make_template("inner", scale)
    outer = jv.make_template("outer", inner)
    with jv.VariableStore(0):
        outer(name="a")
        with pytest.raises(ValueError, match=r"(?s)template 'inner'.*template 'outer'"):
            outer(name="b")


def test_a_template_that_calls_itself() -> None:
    def halve(n: int) -> Any:
        w = weight()
        return w if n == 0 else template(n - 1)

    template = jv.make_template("t", halve)
    assert specs(lambda: template(2) * 1.0) == ["t/w"]


# Frames and JAX


shared = jv.make_template("shared", scale)


def twice(x: Any) -> Any:
    return shared(shared(x))


def test_each_frame_is_a_fresh_graph() -> None:
    model, other = jv.transform(twice), jv.transform(lambda x: [jv.variable_scope("s")(shared)(x), shared(x)])
    assert list(model.specs(X)) == list(model.init(0, X)) == ["shared/w"]
    variables = jv.Variables({"shared/w": jnp.full([2], 3.0, jnp.float32)})
    for _ in range(2):
        assert model(variables, X).tolist() == [9.0, 9.0]
    assert list(other.specs(X)) == ["s/shared/w"]
    store = jv.VariableStore(0, variables)
    for _ in range(2):
        with store:
            assert twice(X).tolist() == [9.0, 9.0]


def in_scan(x: Any) -> Any:
    return jax.lax.scan(lambda carry, _: (shared(carry), None), x, length=2)[0]


def in_cond(x: Any) -> Any:
    return shared(jax.lax.cond(x.sum() > 0, shared, lambda y: shared(y) + 1.0, x))


def passed_to_scan(x: Any) -> Any:
    step = jv.make_template("shared", lambda carry, _: (scale(carry), None))
    return jax.lax.scan(step, x, length=2)[0]


def traced_twice(x: Any) -> Any:
    """The carry becomes a float: JAX traces the body a second time, and the call in it is a first one again."""
    step = jv.make_template("shared", lambda y: y + jnp.sum(scale() * X) / 2.0)
    total = jax.lax.scan(lambda carry, _: (step(carry), None), 0, length=3)[0]
    return X * (total if isinstance(total, int) else total.astype(jnp.float32))


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda x: shared(jax.jit(shared)(x)), 9.0),
        (lambda x: jax.checkpoint(shared)(shared(x)), 9.0),
        (in_scan, 9.0),
        (in_cond, 9.0),
        (passed_to_scan, 9.0),
        (traced_twice, 9.0),
    ],
    ids=["jit", "checkpoint", "scan", "cond", "passed to scan", "traced twice"],
)
def test_under_jax_transforms(fn: Any, expected: float) -> None:
    model = jv.transform(fn)
    assert {key: spec.shape for key, spec in model.specs(X).items()} == {"shared/w": (2,)}
    variables = jv.Variables({"shared/w": jnp.full([2], 3.0, jnp.float32)})
    for apply in (model.apply, jax.jit(model.apply)):
        np.testing.assert_allclose(apply(variables, X)[0], expected)


def test_assignments_in_a_template() -> None:
    @jax.jit
    def step(variables: Any) -> Any:
        return jv.transform(lambda: [count() for _ in range(3)]).apply(variables)

    def body() -> Any:
        n = jv.get_variable("n", [], "int32", initializer=jv.zeros_initializer(), trainable=False)
        return n.assign_add(1)

    count = jv.make_template("count", body)
    out, variables = step(jv.Variables({"count/n": jnp.int32(0)}))
    assert [int(n) for n in out] == [1, 2, 3] and int(variables["count/n"]) == 3


def test_a_scope_made_at_once_has_the_dtype_of_tf1() -> None:
    with jv.VariableStore(rng=0), jv.variable_scope("half", dtype="float16"):
        now, later = (
            jv.make_template("t", lambda: jv.get_variable("w", [2]), create_scope_now_=flag) for flag in (True, False)
        )
        assert (now().dtype, later().dtype) == ("float32", "float16")
