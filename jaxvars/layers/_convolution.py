"""What convolution layers share: a window that slides over the spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from jaxvars.errors import InvalidArgumentError
from jaxvars.layers._arguments import layout_of, padding_of, positive, sizes
from jaxvars.layers._kernel import KernelLayer
from jaxvars.nn._windows import check_fits, spatial_axes

__all__ = ["ConvolutionLayer"]


class ConvolutionLayer(KernelLayer):
    """A layer whose kernel slides over `_dims` spatial axes."""

    _dims: int
    #: Whether the convolution goes from the kernel's size to one number, not the other way.
    _shrinks = True

    def _set_window(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int],
        padding: str,
        data_format: str,
        dilation_rate: int | Sequence[int] = 1,
    ) -> None:
        """Check the arguments that describe the window, and keep them."""
        layer, dims = self._kind, self._dims
        self.filters: int = positive(filters, f"{layer}: filters")
        self.kernel_size: tuple[int, ...] = sizes(kernel_size, dims, f"{layer}: kernel_size")
        self.strides: tuple[int, ...] = sizes(strides, dims, f"{layer}: strides")
        self.padding: str = padding_of(padding, layer, causal=dims == 1)
        self.data_format = data_format
        self.dilation_rate: tuple[int, ...] = sizes(dilation_rate, dims, f"{layer}: dilation_rate")
        self._layout = layout_of(data_format, dims, layer)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise InvalidArgumentError(
                f"{layer}: `strides > 1` not supported in conjunction with `dilation_rate > 1`. Received: "
                f"strides={self.strides} and dilation_rate={self.dilation_rate}. jv.nn's convolutions take both."
            )

    def check(self, inputs: Any) -> jax.Array:
        """Refuse another rank, integers, and what is smaller than the kernel."""
        x = self._checked(inputs, self._dims + 2, exactly=True)
        if self._shrinks and self.padding == "VALID":
            reach = [(n - 1) * rate + 1 for n, rate in zip(self.kernel_size, self.dilation_rate, strict=True)]
            check_fits(self._kind, "VALID", [x.shape[i] for i in spatial_axes(self._layout)], reach, self._layout)
        return x
