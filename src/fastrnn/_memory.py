"""Whose memory arrays lie in, and who may write there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from . import _core
from ._arguments import Array


def read_only(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return a view of each that cannot be written to."""
    views = {name: array.view() for name, array in arrays.items()}
    for view in views.values():
        view.flags.writeable = False
    return views


def owned(array: Array) -> Array:
    """Return an array that can be written to and shares its memory with none; itself if it can."""
    flags = array.flags
    return array if flags.writeable and flags.owndata else array.copy()


def dense(array: Array) -> Array:
    """Return it, if the core can read and write its elements where they lie; otherwise a copy."""
    return array if array.flags.carray else array.copy()


def in_large_pages(array: Array) -> Array:
    """Return a copy in memory as large results have it, in pages of 2 MB; a small array itself.

    Single steps of training read weights where they lie. Their pass forward, one thread of a Zen 4,
    from memory of NumPy's and from here: RNN H1024 337 and 250 us, LSTM H1024 1,750 and 1,400. (It
    may be the memory of a result that is gone, up to twice as large.)
    """
    if array.nbytes < _core.huge_block:
        return array
    copy = _core.empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def entangled(arrays: Sequence[Array]) -> set[int]:
    """Return the places of as many of them as it takes for the others to share no memory."""
    found, reach = set(), 0
    for first, end, place in sorted((*_bounds(a), place) for place, a in enumerate(arrays)):
        if first < reach:
            found.add(place)
        else:
            reach = end
    return found


def sharing(arrays: Sequence[Array]) -> tuple[int, int] | None:
    """Return the places of two of them that share memory, None where no two do.

    Only those whose bounds meet are compared: 1,500 arrays of their own took 2.3 s by pairs, 13 ms
    since.
    """
    before: list[tuple[int, int]] = []  # (end, place) of those that may reach the next one
    for first, end, place in sorted((*_bounds(a), place) for place, a in enumerate(arrays)):
        before = [other for other in before if other[0] > first]
        for _, other in before:
            if overlap(arrays[other], arrays[place]):
                return min(other, place), max(other, place)
        before.append((end, place))
    return None


def _bounds(array: Array) -> tuple[int, int]:
    """Return the address of the first byte of an array, and the one behind its last."""
    at: int = array.__array_interface__["data"][0]
    if array.flags.c_contiguous:
        return at, at + array.nbytes
    steps = [s * (n - 1) for s, n in zip(array.strides, array.shape, strict=True)]
    return at + sum(s for s in steps if s < 0), at + sum(s for s in steps if s > 0) + array.itemsize


def detached(arrays: Mapping[str, Array], targets: Collection[Array]) -> dict[str, Array]:
    """Return the arrays, copied where one may lie in the memory of a target."""
    return {
        name: np.array(a) if any(np.may_share_memory(a, target) for target in targets) else a
        for name, a in arrays.items()
    }


# Candidates to look at; slices of one array take far fewer. (NumPy's stubs know -1 and 0 alone.)
_MOST_WORK: Any = 10_000


def overlap(array: Array, other: Array) -> bool:
    """Whether two share memory; columns of one array, one beside the other, do not."""
    try:
        return bool(np.shares_memory(array, other, max_work=_MOST_WORK))
    except RuntimeError:  # np.exceptions.TooHardError, which is elsewhere before NumPy 1.25
        return True


def overlaps_itself(array: Array) -> bool:
    """Whether elements may share memory, as those of a broadcast array or a sliding window do."""
    reach = array.itemsize
    axes = zip(map(abs, array.strides), array.shape, strict=True)
    for stride, size in sorted(axis for axis in axes if axis[1] != 1):
        if stride < reach:
            return array.size > 0
        reach += stride * (size - 1)
    return False
