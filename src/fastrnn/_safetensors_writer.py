"""The writer of safetensors files; _safetensors.py has the format.

The `safetensors` package is not asked even where it is installed: it keeps metadata in a hash map,
so that its files differ from run to run, and its signature differs between versions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ._arguments import Array
from ._halves import halved
from ._replacing import Target, writing
from ._safetensors import MOST_HEADER

FORMAT = {"format": "fastrnn", "format_version": "1"}  # metadata of the files written here
_WRITTEN = {8: "F64", 4: "F32", 2: "F16"}  # by the bytes of a value


def write(
    path: Target,
    tensors: Mapping[str, Array],
    metadata: dict[str, str],
    what: str = "modules",
    compact: bool = False,
) -> None:
    """Write a safetensors file: the same bytes for the same content, and all of it or nothing.

    For a path it is written beside its place and renamed, so that a reader, a full disk or a crash
    never leaves half a file there. The widest come first: every tensor is then aligned.
    `compact`: float32 in two bytes a value where nothing is lost. `what` is the argument that the
    names come from.
    """
    stored = {name: _stored(array, compact) for name, array in tensors.items()}
    names = sorted(stored, key=lambda name: -stored[name][1].itemsize)
    entries: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name in names:
        dtype, array = stored[name]
        end = at + array.nbytes
        entries[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MOST_HEADER:  # nobody could read it
        raise ValueError(
            f"{what}: expected names that fit a header of {MOST_HEADER} bytes, got {len(text)}"
        )
    with writing(path) as put:
        put(memoryview(len(text).to_bytes(8, "little") + text))
        for name in names:
            array = stored[name][1]
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            put(little.reshape(-1).view(np.uint8).data)


def _stored(array: Array, compact: bool) -> tuple[str, Array]:
    """Return the dtype that an array has in a file, and its values as they lie there."""
    dtype = _WRITTEN[array.itemsize]
    return halved(array) if compact and dtype == "F32" else (dtype, array)
