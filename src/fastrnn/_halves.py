"""Floats of two bytes, whose values float32 all has: float16, and bfloat16, a float32's upper half.

NumPy has no bfloat16: its bits are uint16 here, and its values float32 whose lower half is zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._arguments import Array

# Of the safetensors format.
HALVES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


def widened(halves: Array) -> Array:
    """Return float16, or the bits of bfloat16, as float32: the same values."""
    if halves.dtype.kind == "f":
        return halves.astype(np.float32)
    return np.left_shift(halves, 16, dtype=np.uint32).view(np.float32)


def halved(array: Array) -> tuple[str, Array]:
    """Return float32 in two bytes a value if none loses a bit, else as it is, and the dtype."""
    bits = np.asarray(array, order="C").view(np.uint32)
    if not (bits & 0xFFFF).any():
        return "BF16", (bits >> 16).astype(np.uint16)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        halves = array.astype(np.float16)
        if np.array_equal(halves.astype(np.float32).view(np.uint32), bits):
            return "F16", halves
    return "F32", array


def rounded(array: Array) -> Array:
    """Return the nearest bfloat16 of each float32, of two the even one, as a new float32 array."""
    bits = np.array(array, np.float32, order="C").view(np.uint32)
    nan = np.isnan(array)
    bits += 0x7FFF + (bits >> 16 & 1)
    bits &= 0xFFFF0000
    values = bits.view(np.float32)
    values[nan] = np.nan  # which the addition may have carried into an infinity, or beyond
    return values
