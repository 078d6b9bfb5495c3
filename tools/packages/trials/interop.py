"""What needs the extra [interop]: files of Hugging Face, modules of Haiku and Equinox, tables and pretty trees."""

import io

import jax
import jax.numpy as jnp
import numpy as np

import jaxvars as jv

x = jnp.ones([2, 3])


def files() -> None:
    dense = jv.transform(lambda x: jv.layers.dense(x, 4, name="fc"))
    variables = dense.init(0, x)
    folder = jv.interop.hugging_face.save(variables, "net", config={"model_type": "net"})
    restored = jv.interop.hugging_face.restore(folder, dense.specs(x))
    assert all(np.array_equal(restored[name], variables[name]) for name in variables)


def modules() -> jv.Variables:
    import equinox
    import haiku

    mlp = haiku.transform(lambda x: haiku.nets.MLP([4, 2])(x))
    linear = equinox.nn.Linear(2, 1, key=jax.random.key(0))
    model = jv.transform(lambda x: jax.vmap(jv.interop.equinox(linear, "head"))(jv.interop.haiku(mlp, "body")(x)))
    variables = model.init(0, x)
    assert model(variables, x).shape == (2, 1)
    return variables


def displays(variables: jv.Variables) -> None:
    import pandas
    import rich.console
    import treescope

    assert len(pandas.DataFrame(variables.summary().rows)) == len(variables) == 6
    assert "head/weight" in treescope.render_to_text(variables)
    console = rich.console.Console(file=io.StringIO(), record=True, width=160)
    console.print(variables)
    assert "head/weight" in console.export_text()


files()
displays(modules())
