"""The summary table, as text and as HTML."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxvars.spec import Hole
from jaxvars.variables import Variables


def model():
    return Variables(
        {
            "conv1/weights": jnp.ones((5, 5, 1, 32), jnp.float32),
            "conv1/biases": jnp.zeros(32, jnp.bfloat16),
            "head/kernel": Hole((32, 10), "float32"),
            "step": np.int32(0),
        }
    ).freeze("step")


def test_text_table():
    assert str(model().summary()) == repr(model().summary())
    both = "variables, trainable_variables"
    assert str(model().summary()).splitlines() == [
        "name           shape          dtype     count  bytes  trainable  collections                     sharding",
        "-------------  -------------  --------  -----  -----  ---------"
        "  ------------------------------  -------------",
        f"conv1/biases   (32,)          bfloat16     32     64  yes        {both}  cpu:0",
        f"conv1/weights  (5, 5, 1, 32)  float32     800  3,200  yes        {both}  cpu:0",
        f"head/kernel    (32, 10)       float32     320  1,280  yes        {both}  uninitialized",
        f"step           ()             int32         1      4  no         {'variables':30}  cpu:0",
        "",
        "scope       variables  count  bytes",
        "----------  ---------  -----  -----",
        "conv1               2    832  3,264",
        "head                1    320  1,280",
        "(no scope)          1      1      4",
        "total               4  1,153  4,548",
    ]


def test_totals_follow_the_depth_and_sizes_agree():
    variables = Variables({"a/b/w": jnp.ones(2, "float32"), "a/c/w": jnp.ones(3, "int16"), "a/v": jnp.ones((), bool)})
    assert [t.scope for t in variables.summary(depth=2).totals] == ["a/b", "a/c", "a", "total"]
    total = variables.summary().totals[-1]
    assert (total.count, total.bytes) == (variables.size, variables.nbytes) == (6, 8 + 6 + 1)


def test_places_of_values():
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("data", "model"))
    spread = Variables({"w": jnp.ones((4, 4))}).to(NamedSharding(mesh, PartitionSpec("data", None)))
    assert spread.summary().rows[0].sharding == "('data', None) over data=2, model=2"
    seen = []
    gone = Variables({"w": jnp.ones(2)})
    jax.jit(lambda v: seen.append(v.summary().rows[0].sharding) or v, donate_argnums=0)(gone)
    assert seen == ["traced"] and gone.summary().rows[0].sharding == "deleted"


def test_labels_keys_and_emptiness_have_a_table_too():
    assert "'fast'" in str(model().labels({".*": "fast"}).summary())
    assert "key<fry>" in str(Variables({"rng": jax.random.key(0)}).summary())
    assert str(Variables().summary()).splitlines()[-1].split() == ["total", "0", "0", "0"]


def test_html_escapes_and_folds_long_tables():
    page = Variables({"<b>/w": np.float32(1)})._repr_html_()
    assert "&lt;b&gt;/w" in page and "<b>/w" not in page
    assert "</b>: 1 variable, 1 element, 4 bytes" in page and "<details open>" in page
    long = Variables({f"v{i}": 1.0 for i in range(40)})._repr_html_()
    assert "<details open>" not in long and long.count("<tr>") == 1 + 40 + 1 + 2
