"""Memory of results: large arrays take over that of earlier ones which are gone."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _core
from ._arguments import Array, Shape

_LARGE = 1 << 16  # bytes; below, a fresh array costs less than asking for a used one
_DOUBLE = np.dtype(np.float64)


def empty(shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Return a new array of float32 or float64 whose values are not set.

    An array of 64 KiB or more lies on memory that fastrnn keeps (64 MiB at most) when the array is
    gone, for the next one: fresh pages from the system would cost up to a tenth of a call.
    """
    size = dtype.itemsize
    for n in shape:
        size *= n
    if size < _LARGE:
        return np.empty(shape, dtype)
    return _core.empty(shape, dtype == _DOUBLE)
