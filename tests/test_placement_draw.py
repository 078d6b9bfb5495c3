"""Pictures of who holds what: bytes against what JAX holds, and the three ways of looking at them."""

from __future__ import annotations

import math
import sys
from html.parser import HTMLParser
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P
from processes import run_processes

import jaxvars as jv
from jaxvars.errors import InvalidTypeError, UnavailableError
from jaxvars.fitting import fit
from jaxvars.placement.drawing_holdings import Place
from jaxvars.placement.drawing_shares import grid, layouts, ranges
from jaxvars.spec import Hole

DEVICES = jax.devices()
MESH = Mesh(np.array(DEVICES).reshape(4, 2), ("a", "b"))
KEYS = jax.random.key(0).dtype
SHAPES = [
    ((8, 12), "float32"),
    ((6,), "bfloat16"),
    ((2, 3, 4), "int32"),
    ((1, 8), "bool"),
    ((0, 4), "float32"),
    ((), "int8"),
]


def over(*axes: Any, mesh: Any = MESH, **more: Any) -> NamedSharding:
    return NamedSharding(mesh, P(*axes), **more)


def ones(shape: Any) -> jax.Array:
    return jnp.ones(shape, jnp.float32)


def put(value: Any, where: Any) -> jax.Array:
    return jax.device_put(value, where)


def held(variables: jv.Variables) -> dict[str, int]:
    """What JAX holds by device, in devices' own memories."""
    found: dict[str, int] = {}
    for value in variables.values():
        for shard in value.addressable_shards:
            name = f"{shard.device.platform}:{shard.device.id}"
            nbytes = shard.data.size * shard.data.dtype.itemsize
            found[name] = found.get(name, 0) + nbytes
    return found


# -- bytes ----------------------------------------------------------------------------------------------------


@st.composite
def placed(draw: st.DrawFn) -> dict[str, Hole]:
    """Values of several kinds, each spread by a rule of its own over one mesh, of some devices in any order."""
    sizes = draw(st.sampled_from([(8,), (4, 2), (2, 2, 2), (1, 3), (2, 3), (2, 1, 2)]))
    order = draw(st.permutations(DEVICES))[: math.prod(sizes)]
    mesh = Mesh(np.array(order).reshape(sizes), ("x", "y", "z")[: len(sizes)])
    found: dict[str, Hole] = {}
    for number, (shape, dtype) in enumerate([*SHAPES, ((4,), KEYS)]):
        names = draw(st.permutations(mesh.axis_names))
        wanted = draw(
            st.sampled_from([P(), P(*names), P(tuple(names)), P(None, names[0]), P(None, None, tuple(names))])
        )
        spec, _ = fit(wanted, shape, mesh.shape)
        found[f"s{number % 3}/v{number}"] = Hole(shape, dtype, sharding=NamedSharding(mesh, spec))
    return found


def filled(hole: Hole) -> jax.Array:
    keys = hole.dtype == KEYS
    value = jax.random.split(jax.random.key(0), hole.shape) if keys else np.zeros(hole.shape, hole.dtype)
    return jax.device_put(value, hole.sharding)


@settings(max_examples=15)
@given(placed())
def test_bytes_are_those_of_the_shards_for_any_mesh_and_rule(holes: dict[str, Hole]):
    variables = jv.Variables({name: filled(hole) for name, hole in holes.items()})
    drawing = jv.placement.draw(variables)
    assert drawing.bytes_per_device == held(variables)
    assert jv.placement.draw(jv.Variables(holes)).bytes_per_device == held(variables)  # beforehand
    assert sum(drawing.bytes_per_scope.values()) == sum(held(variables).values())
    for holding in drawing.holdings:
        assert_pieces(drawing, holding, holes[holding.name].sharding, holes[holding.name].shape)


def assert_pieces(drawing: Any, holding: Any, sharding: Any, shape: tuple[int, ...]) -> None:
    """Two devices hold the same piece exactly where JAX says that they hold the same part."""
    parts = {
        f"{device.platform}:{device.id}": tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
        for device, index in sharding.devices_indices_map(shape).items()
    }
    names = [str(drawing.places[i]) for i in holding.spread.places]
    assert sorted(names) == sorted(parts)
    if holding.nbytes:  # of nothing all parts are the same
        pairs = {(int(piece), parts[name]) for piece, name in zip(holding.spread.piece, names, strict=True)}
        assert len(pairs) == len({piece for piece, _ in pairs}) == len({part for _, part in pairs})
        # Counted along the last dimension first.
        assert [part for _, part in sorted(pairs)] == sorted({part for _, part in pairs})


def test_every_kind_of_value_and_place():
    variables = jv.Variables(
        {
            "all": put(ones(8), over()),
            "one_axis": put(ones((8, 3)), over("a")),
            "two_axes": put(ones((8, 4)), over("a", "b")),
            "together": put(ones((2, 8)), over(None, ("b", "a"))),
            "device": put(ones(5), DEVICES[3]),
            "free": ones(7),
            "scalar": put(jnp.int32(1), DEVICES[6]),
            "empty": put(jnp.zeros((0, 4), jnp.float32), over(None, "a")),
            "key": put(jax.random.key(0), DEVICES[7]),
            "host": put(ones(8), over("a", memory_kind="pinned_host")),
        }
    )
    drawing = jv.placement.draw(variables)
    each = 8 * 4 + 8 * 3 * 4 // 4 + 8 * 4 * 4 // 8 + 2 * 8 * 4 // 8
    own = {f"cpu:{i}": each for i in range(8)}
    own["cpu:3"] += 20
    own["cpu:0"] += 28
    own["cpu:6"] += 4
    own["cpu:7"] += 8
    host = {f"cpu:{i} pinned_host": 8 for i in range(8)}
    assert drawing.bytes_per_device == own | host
    assert list(drawing.bytes_per_device) == [*own, *host]
    assert drawing.nbytes == variables.nbytes
    assert drawing.imbalance == pytest.approx((each + 28) * 8 / sum(own.values()))
    assert drawing.unplaced == {}


def test_holes_are_where_they_will_be():
    def model() -> None:
        with jv.device("/cpu:2"):
            jv.get_variable("near", [4])
        with jv.device("/job:ps/task:1"):
            jv.get_variable("ps", [3])
        with jv.device("/gpu:99"):
            jv.get_variable("absent", [2])
        with jv.device("/gpu:99", soft_placement=True):
            jv.get_variable("soft", [1])
        jv.get_variable("free", [5])

    specs = jv.transform(model).specs() | jv.Variables({"spread": Hole((8, 2), "float32", sharding=over("a"))})
    drawing = jv.placement.draw(specs)
    soft = f"cpu:{99 % 8}"
    expected = {f"cpu:{i}": 16 for i in range(8)}
    expected["cpu:2"] += 16
    expected[soft] += 4
    assert drawing.bytes_per_device == expected | {"/device:GPU:99": 8, "/job:ps/task:1": 12}
    assert drawing.unplaced == {"free": "JAX will choose"}
    assert "on no device: 20 bytes, JAX will choose: free float32[5]" in str(drawing)


def test_what_has_no_place_says_why():
    gone = put(ones(4), DEVICES[1])
    gone.delete()
    wanting = jv.Variables.from_specs(
        [(jv.VariableSpec("wanting", (4,), "float32", placement=P("data")), Hole((4,), "float32"))]
    )
    indivisible = Hole((6, 2), "float32", sharding=over("a"))
    labels = jax.tree.map(lambda _: "slow", jv.Variables({"label": 1.0}))
    variables = jv.Variables({"gone": gone, "uneven": indivisible}) | wanting
    assert jv.placement.draw(variables).unplaced == {
        "gone": "deleted",
        "uneven": "('a',) cuts dimension 0 of size 6 into 4 pieces",
        "wanting": "wants ('data',) of a mesh that is not given",
    }
    assert jv.placement.draw(labels).unplaced == {"label": "not an array of JAX"}
    assert jv.placement.draw(labels).nbytes == 0
    seen: list[Any] = []
    jax.jit(lambda state: seen.append(jv.placement.draw(state).unplaced))(jv.Variables({"w": 1.0}))
    assert list(seen[0]) == ["w"] and seen[0]["w"].startswith("traced")


def test_packed_variables_are_drawn_without_being_cut_out(monkeypatch: pytest.MonkeyPatch):
    values = {f"s{i}/w": put(ones(i + 1), DEVICES[i % 2]) for i in range(6)}
    values["large"] = put(ones((8, 4)), over("a"))
    variables = jv.Variables(values)
    packed = variables.packed()
    monkeypatch.setattr(type(packed), "_cut", None)
    drawing = jv.placement.draw(packed)
    assert drawing.bytes_per_device == held(variables)
    assert [holding.name for holding in drawing.holdings] == sorted(values)
    assert str(drawing) == str(jv.placement.draw(variables))


def test_a_buffer_that_is_cut_is_drawn_as_one():
    packed = jax.tree.map(lambda leaf: put(leaf, over("a")), jv.Variables({"a/v": ones(4), "a/w": ones(4)}).packed())
    drawing = jv.placement.draw(packed)
    assert [holding.name for holding in drawing.holdings] == ["a/v and 1 more"]
    assert drawing.bytes_per_device == {f"cpu:{i}": 8 for i in range(8)}


def test_shardings_without_a_mesh():
    rows = jax.jit(lambda x: x * 2)(put(ones((8, 4)), over(None, "a")))
    gspmd = jax._src.sharding_impls.GSPMDSharding(  # pyright: ignore[reportAttributeAccessIssue]
        tuple(DEVICES), rows.sharding._to_xla_hlo_sharding(2)
    )
    variables = jv.Variables(
        {
            "w": Hole((8, 4), "float32", sharding=gspmd),
            "one": Hole((), "int32", sharding=SingleDeviceSharding(DEVICES[2])),
        }
    )
    drawing = jv.placement.draw(variables)
    assert drawing.bytes_per_device == {f"cpu:{i}": 32 + 4 * (i == 2) for i in range(8)}
    (layout,) = (layout for layout in layouts(drawing.holdings) if layout.holdings[0].name == "w")
    assert layout.spread.pieces == (1, 4)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_mesh_without_devices(kind: AxisType):
    mesh = AbstractMesh((2, 3), ("data", "model"), axis_types=(kind, kind))
    specs = jv.Variables({"w": Hole((4, 6), "float32", sharding=over("data", "model", mesh=mesh))})
    drawing = jv.placement.draw(specs)
    assert drawing.bytes_per_device == {f"data={i}, model={j}": 16 for i in range(2) for j in range(3)}
    assert "│ data=1, model=0 │ data=1, model=1 │ data=1, model=2 │" in str(drawing)


def test_nothing_at_all():
    drawing = jv.placement.draw(jv.Variables({}))
    assert (drawing.bytes_per_device, drawing.imbalance, str(drawing)) == ({}, 1.0, "0 variables, 0 bytes in one copy")
    assert parsed(drawing).text.startswith("Placement: 0 variables")


def test_only_variables_are_drawn():
    with pytest.raises(
        InvalidTypeError, match=r"not dict.*write: jv.placement.draw\(jv.Variables.from_nested\(tree\)\)"
    ):
        jv.placement.draw({"w": ones(3)})  # type: ignore[arg-type]


def see_together() -> Any:
    """What each of several processes sees of a state that is spread over all of them."""
    mesh = jax.make_mesh((jax.device_count(),), ("x",), axis_types=(AxisType.Auto,))
    where = NamedSharding(mesh, P("x"))
    value = jax.make_array_from_callback((8, 2), where, lambda index: np.ones((8, 2), np.float32)[index])
    drawing = jv.placement.draw(jv.Variables({"w": value}))
    return [drawing.bytes_per_device, str(drawing).splitlines()[0], drawing._repr_html_().count("(process 1)")]


@pytest.mark.slow
def test_every_process_sees_the_devices_of_all():
    one, other = run_processes(see_together, 2, devices=4)
    assert one == other
    assert len(one[0]) == 8 and set(one[0].values()) == {8}
    assert one[1].endswith("on 8 devices, the fullest with 1.00 times the mean, of 2 processes")


# -- text -----------------------------------------------------------------------------------------------------


def test_the_picture_in_text():
    variables = jv.Variables(
        {
            "a/w": put(ones((8, 4)), over("a", "b")),
            "a/v": put(ones((16, 4)), over("a", "b")),
            "b/x": put(ones(8), over(None)),
            "b/y": put(ones(10), DEVICES[5]),
        }
    )
    assert jv.placement.draw(variables).to_text(width=10) == (
        "4 variables, 456 bytes in one copy; 680 bytes on 8 devices, the fullest with 1.41 times the mean\n"
        "cpu:5             ██████████  120 bytes\n"
        "cpu:0-4, cpu:6-7  ███████     80 bytes each\n"
        "\n"
        "4 x 2 pieces by ('a', 'b') over cpu:0-7: 384 bytes in all\n"
        "  a/v float32[16,4]; a/w float32[8,4]\n"
        "  ┌───┬───┐\n"
        "  │ 0 │ 1 │\n"
        "  ├───┼───┤\n"
        "  │ 2 │ 3 │\n"
        "  ├───┼───┤\n"
        "  │ 4 │ 5 │\n"
        "  ├───┼───┤\n"
        "  │ 6 │ 7 │\n"
        "  └───┴───┘\n"
        "\n"
        "whole on cpu:0-7: 256 bytes in all\n"
        "  b/x float32[8]\n"
        "\n"
        "whole on cpu:5: 40 bytes\n"
        "  b/y float32[10]"
    )


@pytest.mark.parametrize(
    ("shape", "axes", "cells"),
    [
        ((4, 6), ("b",), [["0, 2, 4, 6"], ["1, 3, 5, 7"]]),
        ((6, 4), (None, "a"), [["0-1", "2-3", "4-5", "6-7"]]),
        ((4,), ("a",), [["0-1", "2-3", "4-5", "6-7"]]),
        ((3, 4, 5), (None, "a"), [["0-1"], ["2-3"], ["4-5"], ["6-7"]]),
        ((2, 3, 4), ("b", None, "a"), [["0", "2", "4", "6"], ["1", "3", "5", "7"]]),
        ((2, 2), (), [["0-7"]]),
    ],
)
def test_a_grid_has_a_cell_per_piece(shape: tuple[int, ...], axes: tuple[Any, ...], cells: list[list[str]]):
    drawing = jv.placement.draw(jv.Variables({"w": Hole(shape, "float32", sharding=over(*axes))}))
    (layout,) = layouts(drawing.holdings)
    assert grid(layout.spread, drawing.places) == cells


def test_names_of_places_are_said_shortly():
    cpus = [Place(f"cpu:{i}") for i in (0, 1, 2, 5, 7, 8)]
    assert ranges(cpus) == "cpu:0-2, cpu:5, cpu:7-8"
    assert ranges(cpus, short=True) == "0-2, 5, 7-8"
    assert ranges([Place("cpu:0", "pinned_host"), Place("cpu:1", "pinned_host"), Place("cpu:2")]) == (
        "cpu:0-1 pinned_host, cpu:2"
    )
    assert ranges([Place("/job:ps"), Place("/job:worker/task:1")]) == "/job:ps, /job:worker/task:1"


def test_long_pictures_are_cut_short():
    variables = jv.Variables(
        {f"s{i}/w": Hole((i + 1, 8), "float32", sharding=SingleDeviceSharding(DEVICES[i])) for i in range(8)}
    )
    text = jv.placement.draw(variables).to_text(devices=3, layouts=2)
    assert "and 5 more, with 32 bytes to 160 bytes" in text
    assert text.endswith("6 more layouts, of 6 variables")
    many = jv.Variables({f"v{i}": Hole((4,), "float32", sharding=over()) for i in range(9)})
    assert "v3 float32[4]; and 5 more" in str(jv.placement.draw(many))


# -- HTML -----------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Text and tags of a page, whose tags must be closed in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def parsed(drawing: Any) -> Page:
    page = Page()
    page.feed(drawing._repr_html_())
    page.close()
    assert page.open == []
    return page


def test_the_page_has_bars_scopes_and_grids():
    variables = jv.Variables(
        {
            "enc/w": put(ones((8, 4)), over("a", "b")),
            "dec/b": put(ones(8), over()),
            "dec/x": put(ones(24), DEVICES[1]),
            "hole": Hole((2,), "float32"),
        }
    )
    page = parsed(jv.placement.draw(variables))
    assert {tag for tag, _ in page.tags} <= {
        "div",
        "style",
        "b",
        "span",
        "i",
        "br",
        "table",
        "tr",
        "td",
        "th",
        "details",
        "summary",
    }
    assert not {name for _, attributes in page.tags for name in attributes} & {"src", "href", "onclick"}
    for text in ("cpu:1", "144 bytes", "cpu:0, cpu:2-7", "48 bytes each", "enc: 1 variable, 128 bytes",
                 "dec/x", "float32[24]", "4 x 2 pieces by ('a', 'b') over cpu:0-7", "1 way of cutting variables",
                 "on no device: 8 bytes, JAX will choose: hole float32[2]"):  # fmt: skip
        assert text in page.text, text
    widths = [
        float(str(attributes["style"]).split("%")[0].removeprefix("width:"))
        for tag, attributes in page.tags
        if tag == "i"
    ]
    assert widths == pytest.approx([100 * 128 / 144, 100 * 16 / 144, 100 * 32 / 144, 100 * 16 / 144], rel=0.01)


def test_names_in_the_page_are_escaped():
    nasty = "<script>alert('&')</script>/\"w\""
    page = parsed(jv.placement.draw(jv.Variables({nasty: put(ones((8, 2)), over("a"))})))
    assert "script" not in {tag for tag, _ in page.tags}
    assert nasty in page.text


def test_a_thousand_devices_and_two_thousand_variables():
    mesh = AbstractMesh((125, 8), ("data", "model"))
    specs = {
        f"layer_{i // 8}/{i % 8}": Hole((1000, 8 * (1 + i % 40)), "float32", sharding=over(*axes, mesh=mesh))
        for i in range(2000)
        for axes in [(("data", "model"),) if i % 3 else (None, "model")]
    }
    drawing = jv.placement.draw(jv.Variables(specs))
    assert len(drawing.bytes_per_device) == 1000
    assert drawing.imbalance == 1.0
    assert len(str(drawing).splitlines()) < 60 and max(map(len, str(drawing).splitlines())) < 200
    page = parsed(drawing)
    assert len(drawing._repr_html_()) < 600_000
    assert "1,000 devices" in page.text and "layer_249/7" in page.text and "242 more" in page.text
    # All different: bars of the fullest devices are seen at once, the others are behind a click.
    uneven = jv.Variables(
        {f"v{i}": Hole((i + 1,), "float32", sharding=over(mesh=AbstractMesh((1,), (f"x{i}",)))) for i in range(1000)}
    )
    assert len(jv.placement.draw(uneven).bytes_per_device) == 1000
    page = parsed(jv.placement.draw(uneven))
    assert page.text.index("x999=0") < page.text.index("968 more, with 4 bytes to 3.8 KiB") < page.text.index("x0=0")


# -- matplotlib -----------------------------------------------------------------------------------------------


@pytest.fixture
def axes() -> Any:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    return figure.add_subplot()


def test_a_plot_stacks_scopes_on_devices(axes: Any):
    variables = jv.Variables(
        {f"s{i}/w": put(ones((8, i + 1)), over("a")) for i in range(10)} | {"t/w": put(ones(1000), DEVICES[3])}
    )
    drawing = jv.placement.draw(variables)
    assert drawing.plot(axes) is axes
    tops = [0.0] * 8
    for bar in axes.patches:
        number = round(bar.get_x() + bar.get_width() / 2)
        tops[number] = max(tops[number], bar.get_y() + bar.get_height())
    assert tops == pytest.approx([nbytes / 1024 for nbytes in drawing.bytes_per_device.values()])
    assert axes.get_ylabel() == "KiB"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "t",
        *(f"s{i}" for i in range(9, 2, -1)),
        "3 more",
    ]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [f"cpu:{i}" for i in range(8)]


def test_a_plot_of_nothing_and_of_many_devices(axes: Any):
    assert jv.placement.draw(jv.Variables({})).plot(axes).patches[:] == []
    mesh = AbstractMesh((1000,), ("data",))
    jv.placement.draw(jv.Variables({"w": Hole((2000,), "float32", sharding=over("data", mesh=mesh))})).plot(axes)
    assert axes.get_xlabel() == "1,000 devices" and axes.get_ylabel() == "bytes"


def test_a_plot_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UnavailableError, match="Run: pip install matplotlib"):
        jv.placement.draw(jv.Variables({"w": 1.0})).plot()
