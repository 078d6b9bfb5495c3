"""Transforms of rules: what they do to values, what they say of shapes beforehand, and how they print."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxvars import rules
from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.rules.steps import Described

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)


def array(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(math.prod(shape), dtype=np.float32).reshape(shape)


@st.composite
def on_one(draw: st.DrawFn) -> tuple[tuple[int, ...], rules.ValueTransform]:
    """A shape, and a transform that works on it."""
    shape = draw(SHAPES)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    start, stop = draw(st.integers(-6, 6)), draw(st.none() | st.integers(-6, 6))
    choices = [
        rules.transpose(*draw(st.permutations(range(len(shape))))),
        rules.transpose(),
        rules.reshape(*draw(st.permutations(shape))),
        rules.reshape(math.prod(shape)),
        rules.slice(start, stop, axis=axis),
        rules.cast(draw(st.sampled_from(["float16", "bfloat16", "int32", "int8"]))),
        rules.stack(draw(st.integers(-len(shape) - 1, len(shape)))),
        rules.concat(axis),
    ]
    if size:
        choices.append(rules.unstack(draw(st.integers(-size, size - 1)), axis=axis))
        choices.append(rules.split(size, draw(st.integers(0, size - 1)), axis=axis))
        cut = draw(st.integers(0, size))
        choices.append(rules.split([cut, size - cut], draw(st.integers(-2, 1)), axis=axis))
    return shape, draw(st.sampled_from(choices))


@given(on_one())
def test_what_they_say_beforehand_is_what_they_make(drawn) -> None:
    shape, transform = drawn
    values = array(shape) % 100  # beyond the range of int8, libraries differ
    (said,) = transform.described([Described(shape, values.dtype)])
    made = transform(values)
    assert (made.shape, made.dtype) == (said.shape, said.dtype)
    jitted = jax.jit(transform)(jnp.asarray(values))
    np.testing.assert_array_equal(np.asarray(jitted), np.asarray(made).astype(jitted.dtype))


@given(on_one())
def test_they_print_as_they_are_written(drawn) -> None:
    transform = drawn[1]
    assert rules.parse_transform(repr(transform)) == transform
    chain = transform >> rules.cast("float32")
    assert rules.parse_transform(str(chain)) == chain


@given(SHAPES, st.integers(1, 4), st.data())
def test_stack_and_unstack_undo_each_other(shape, count, data) -> None:
    axis = data.draw(st.integers(-len(shape) - 1, len(shape)))
    parts = [array(shape) + i for i in range(count)]
    whole = rules.stack(axis)(parts)
    for number, part in enumerate(parts):
        np.testing.assert_array_equal(rules.unstack(number, axis=axis)(whole), part)


@given(SHAPES, st.lists(st.integers(0, 4), min_size=1, max_size=4), st.data())
def test_concat_and_split_undo_each_other(shape, sizes, data) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    parts = [array((*shape[:axis], size, *shape[axis + 1 :])) + size for size in sizes]
    whole = rules.concat(axis)(parts)
    for number, part in enumerate(parts):
        np.testing.assert_array_equal(rules.split(sizes, number, axis=axis)(whole), part)


def test_a_chain_works_on_each_of_several_until_they_are_one() -> None:
    parts = [array((2, 3)), array((2, 3)) + 10]
    chain = rules.transpose(1, 0) >> rules.stack() >> rules.reshape(-1, 2)
    np.testing.assert_array_equal(chain(parts), np.stack([parts[0].T, parts[1].T]).reshape(-1, 2))
    assert chain.described([Described((2, 3), np.dtype("f4"))] * 2) == [((6, 2), np.dtype("f4"))]
    assert str(chain) == "transpose(1, 0) >> stack() >> reshape(-1, 2)" == chain.__name__


def test_functions_take_part_in_chains() -> None:
    def double(values: np.ndarray) -> np.ndarray:
        return values * 2

    for chain in (rules.transpose() >> double, double >> rules.transpose()):
        np.testing.assert_array_equal(chain(array((2, 3))), array((2, 3)).T * 2)
        assert chain.described([Described((2, 3), np.dtype("f4"))]) is None
        assert "double" in str(chain)
    with pytest.raises(InvalidTypeError, match="a transform or a function"):
        rules.transpose() >> 3  # pyright: ignore


F4 = np.dtype("f4")
MISFITS = [
    (rules.transpose(0, 1), [(2, 3, 4)], r"transpose\(0, 1\) does not go with shape \[2, 3, 4\]"),
    (rules.transpose(0, 0), [(2, 3)], "does not go with"),
    (rules.reshape(5), [(2, 3)], "does not go with"),
    (rules.reshape(-1, -1), [(2, 3)], "does not go with"),
    (rules.reshape(-2, 3), [(2, 3)], "does not go with"),
    (rules.reshape(4, -1), [(2, 3)], "does not go with"),
    (rules.stack(), [(2,), (3,)], r"one shape and dtype, not float32 \[2\], float32 \[3\]"),
    (rules.stack(3), [(2,)], "there is no axis 3"),
    (rules.concat(1), [(2, 3), (3, 3)], "only along the axis"),
    (rules.concat(), [()], "there is no axis 0"),
    (rules.slice(0, 1, axis=2), [(2, 3)], "there is no axis 2"),
    (rules.unstack(3), [(3, 2)], r"unstack\(3\): there are only 3"),
    (rules.unstack(r"\1"), [(3, 2)], "filled in from the match"),
    (rules.split(2, 0), [(3, 2)], "does not go with"),
    (rules.split([1, 1], 0), [(3, 2)], "does not go with"),
    (rules.split(3, 3), [(3, 2)], "there are only 3"),
    (rules.pad(), [(3, 2)], "as large as a variable that it is restored into"),
]


@pytest.mark.parametrize(("transform", "shapes", "text"), MISFITS, ids=lambda value: str(value)[:40])
def test_what_does_not_fit_says_so_before_anything_is_read(transform, shapes, text) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        transform.described([Described(shape, F4) for shape in shapes])


def test_arguments_are_checked_at_once() -> None:
    with pytest.raises(InvalidArgumentError, match="at least one piece"):
        rules.split([], 0)
    with pytest.raises(InvalidArgumentError, match="a number, or"):
        rules.pad(fill="zeros")
    with pytest.raises(TypeError):
        rules.transpose(1.5)  # pyright: ignore
    with pytest.raises(TypeError):
        rules.cast("float99")


def test_cast_refuses_integers_that_do_not_fit() -> None:
    assert rules.cast("int8")(np.array([127, -128])).dtype == np.int8
    for value in (128, -129, 2**40):
        with pytest.raises(InvalidArgumentError, match="does not fit"):
            rules.cast("int8")(np.array([value]))
    with pytest.raises(InvalidArgumentError, match="does not fit"):
        rules.cast("uint32")(np.array([-1]))
    with jax.enable_x64(False), pytest.raises(InvalidArgumentError, match="needs 64-bit JAX"):
        rules.cast("float64")(jnp.ones(2))
    assert rules.cast("float64")(np.ones(2, np.float32)).dtype == np.float64
    assert rules.cast("bfloat16")(np.array([1e30])).dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("transpos(1, 0)", "Did you mean transpose"),
        ("xyzzy()", "There are cast, concat"),
        ("transpose(1, 0", "is no transform"),
        ("__import__('os').system('true')", "are calls of"),
        ("transpose(*[1, 0])", "is no transform"),
        ("cast(**{'dtype': 'f4'})", "written out"),
        ("transpose(print('x'))", "is no transform"),
        ("transpose(1, 0) + stack()", "are calls of"),
        ("stack", "are calls of"),
        ("", "is no transform"),
        ("cast('no such dtype')", "is no transform"),
        ("(" * 5000, "is no transform"),
        ("stack(" + "0" * 20000 + ")", "20007 characters"),
    ],
)
def test_only_transforms_are_read_from_text(text, says) -> None:
    with pytest.raises(InvalidArgumentError, match=says):
        rules.parse_transform(text)


def test_globs_become_patterns_whose_wildcards_are_groups() -> None:
    found = rules.parse_rules([(rules.glob("layer_*/**/ke?nel"), r"\1-\2-\3")], op="test").match("layer_3/a/b/kernel")
    assert found is not None and found.replacement == "3-a/b-r"
    assert rules.parse_rules([(rules.glob("a.b/*"), "x")], op="test").match("aXb/c") is None
    assert rules.parse_rules([(rules.glob("*"), "x")], op="test").match("a/b") is None


def test_several_names_need_a_transform_and_a_place_where_they_make_sense() -> None:
    with pytest.raises(InvalidTypeError, match="what becomes of several tensors"):
        rules.parse_rules([("w", ["a", "b"])], op="restore", several=True)
    with pytest.raises(InvalidTypeError, match="a list of names"):
        rules.parse_rules([("w", ["a", 3], rules.stack())], op="restore", several=True)
    with pytest.raises(InvalidTypeError, match="a name or None"):
        rules.parse_rules([("w", ["a", "b"], rules.stack())], op="rename")
    rule = rules.parse_rules([("w", ["a", "b"], rules.stack())], op="restore", several=True).rules[0]
    assert str(rule) == '("w", ["a", "b"], stack())'
