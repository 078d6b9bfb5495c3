"""Where errors say that a variable was defined: a line of a file, or of a notebook's cell."""

from __future__ import annotations

import subprocess
import sys

import pytest

CELLS = '''
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(history_length=0)
shell.run_cell("import jax.numpy as jnp, jaxvars as jv", store_history=True)
shell.run_cell("""store = jv.VariableStore(0)
with store:
    jv.get_variable("w", [2])""", store_history=True)
for _ in range(2):
    shell.run_cell("""try:
    jv.assign(store.variables, "w", jnp.ones(3))
except jv.errors.InvalidArgumentError as error:
    print(error)""", store_history=True)
shell.run_cell("print(store.variables.variable_specs['w'].defined_at)", store_history=True)
'''


def test_a_variable_of_a_notebook_is_defined_in_a_cell() -> None:
    pytest.importorskip("IPython")
    done = subprocess.run([sys.executable, "-c", CELLS], capture_output=True, text=True, timeout=120)
    assert done.stdout.count("Variable defined at Cell In[2], line 3.") == 2, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "Cell In[2], line 3"
    assert "ipython" not in done.stdout.lower()


def test_without_a_notebook_it_is_a_line_of_a_file() -> None:
    code = "import jaxvars as jv\nwith jv.VariableStore() as store:\n    jv.get_variable('w', [2])\n"
    names: dict[str, object] = {}
    exec(compile(code, "/somewhere/model.py", "exec"), names)
    assert names["store"].variables.variable_specs["w"].defined_at == "/somewhere/model.py:3"  # pyright: ignore
