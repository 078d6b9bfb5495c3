"""What another library is needed for says which extra has it, and does nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

import jaxvars as jv

VARIABLES = jv.Variables({"fc/bias": jnp.zeros(2)})


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("haiku", lambda folder: jv.interop.haiku(None)),
        ("haiku", lambda folder: jv.interop.as_haiku(lambda x: x)),
        ("equinox", lambda folder: jv.interop.equinox(lambda key: None)),
        ("safetensors.numpy", lambda folder: jv.interop.hugging_face.save(VARIABLES, folder / "net", config={})),
    ],
)
def test_a_missing_package_is_named_by_its_extra(
    module: str, use: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(jv.errors.UnavailableError, match=r'pip install "jaxvars\[interop\]"'):
        use(tmp_path)
    assert not list(tmp_path.iterdir())
