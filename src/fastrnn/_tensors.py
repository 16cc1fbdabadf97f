"""Arrays by name on disk, as safetensors: files of other origin, and what is no module."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np

from ._arguments import FLOATS, Array, as_flag, as_floats
from ._replacing import Target
from ._safetensors import MOST_AXES, Header, Source, read_header, read_tensors
from ._safetensors_writer import write

_FLOATS = (np.dtype(np.float16), *FLOATS)


def save_tensors(
    path: Target,
    tensors: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
    *,
    compact: bool = False,
) -> None:
    """Save arrays by name as a safetensors file; `load_tensors` gives them back, bit for bit.

    float16 comes back as float32, which holds it exactly.

    ::

        fastrnn.save_tensors("statistics.safetensors", {"mean": mean, "std": std})

    The file appears whole or not at all, and the same content gives the same bytes.

    Args:
        path: the file's name, or a writable binary file such as ``io.BytesIO()``, which gets the
            bytes at its place.
        tensors: a dict of arrays, float32, float64 or float16, of 32 axes at most.
        metadata: a dict of strings, which `load_metadata` gives back; None for none.
        compact: float32 arrays of which bfloat16 or float16 holds every value are written as
            BF16 or F16, in half the bytes, and come back as float32, bit for bit.

    Raises:
        TypeError: `tensors` is no dict of such arrays by name, `metadata` none of strings, `path`
            neither a name nor a file, `compact` no bool.
        ValueError: a name or a text that UTF-8 cannot hold; the name ``__metadata__``, which the
            format uses; more axes; `path` is no name of a file, or a file that is not open for
            writing.
        OSError: writing failed. A file named by `path` is as it was before; a file object may
            have got a part.
    """
    compact = as_flag("compact", compact)
    write(path, as_tensors("tensors", tensors), as_metadata(metadata), "tensors", compact)


def as_tensors(what: str, given: Any) -> dict[str, Array]:
    """Return arrays by name that a file can hold, or raise."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{what}: expected a dict of arrays by name, got {type(given).__name__}")
    arrays: dict[str, Array] = {}
    for name, value in given.items():
        if not isinstance(name, str):
            raise TypeError(f"{what}: expected names of text, got {name!r:.80}")
        check_text(f"{what}: expected names of text", name)
        if name == "__metadata__":
            raise ValueError(f"{what}: expected another name than {name!r}, which the format uses")
        arrays[name] = array = as_floats(f"{what}[{name!r}]", value, _FLOATS)
        if array.ndim > MOST_AXES:
            raise ValueError(
                f"{what}[{name!r}]: expected at most {MOST_AXES} axes, got {array.ndim}"
            )
    return arrays


def as_metadata(given: Any) -> dict[str, str]:
    """Return a dict of strings that a file can hold, of None an empty one, or raise."""
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise TypeError(f"metadata: expected a dict of strings, got {type(given).__name__}")
    for key, text in given.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"metadata: expected strings by name, got {key!r:.80}: {text!r:.80}")
        check_text("metadata: expected strings of text", key + text)
    return dict(given)


def load_tensors(path: Source, prefix: str = "") -> dict[str, Array]:
    """Load the tensors of any safetensors file by name: F32 and F64 bit for bit.

    F16 and BF16 become float32, which holds each of their values.

    For files of other origin::

        layer.load_state_dict(fastrnn.load_tensors("model.safetensors", "encoder.lstm."))

    Args:
        path: the file's name, its content as bytes, or a readable binary file such as a member of
            a zip, which is read to its end.
        prefix: only tensors whose name starts with it, named without it.

    Raises:
        OSError: the file cannot be read.
        TypeError: `path` is neither of them; `prefix` is no string.
        ValueError: it is no safetensors file or a damaged one; a tensor asked for is none of
            F32, F64, F16 and BF16; none has a name that starts with `prefix`; a `path` that is no
            name of a file.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"prefix: expected a string, got {prefix!r}")
    header = read_header(path)
    wanted = {name: e for name, e in header.tensors.items() if name.startswith(prefix)}
    if prefix and not wanted:
        raise ValueError(
            f"prefix: expected the start of a tensor's name in {header.path}, got {prefix!r:.80}"
            f"; {_prefixes(header)}"
        )
    arrays = read_tensors(header, wanted)
    return {name.removeprefix(prefix): array for name, array in arrays.items()}


def load_metadata(path: Source) -> dict[str, str]:
    """Load the metadata of any safetensors file, {} without any; `path` as in `load_tensors`.

    In a file that `save` wrote they are the architecture of the modules ("lstm.hidden_size"), and
    what its `metadata` was.

    Raises:
        OSError: the file cannot be read.
        TypeError: `path` is neither a name nor bytes nor a file.
        ValueError: it is no safetensors file or a damaged one; a `path` that is no name of a file.
    """
    return read_header(path).metadata


def _prefixes(header: Header) -> str:
    """Tell a few of the prefixes that a file has."""
    found = dict.fromkeys(name[: name.rindex(".") + 1] for name in header.tensors if "." in name)
    if not found:
        return "its names have no dot"
    shown = [f"{prefix!r:.80}" for prefix in islice(found, 5)]
    return f"it has {', '.join([*shown, '...'] if len(found) > 5 else shown)}"


def check_text(expected: str, text: str) -> None:
    """Raise ValueError for a string that UTF-8 cannot hold: `expected` with the argument's name."""
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        raise ValueError(f"{expected}, got {text!r:.80}") from None
