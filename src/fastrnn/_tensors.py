"""Arrays by name on disk, as safetensors: files of other origin, and what is no module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._arguments import Array, as_floats
from ._replacing import Target
from ._safetensors import MOST_AXES, Source, read_header, read_tensors, write


def save_tensors(
    path: Target, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Save arrays by name as a safetensors file; `load_tensors` gives them back, bit for bit.

    ::

        fastrnn.save_tensors("statistics.safetensors", {"mean": mean, "std": std})

    The file appears whole or not at all, and the same content gives the same bytes.

    Args:
        path: the file's name, or a writable binary file such as ``io.BytesIO()``, which gets the
            bytes at its place.
        tensors: a dict of arrays, float32 or float64, of 32 axes at most.
        metadata: a dict of strings, which `load_metadata` gives back; None for none.

    Raises:
        TypeError: `tensors` is no dict of such arrays by name, `metadata` none of strings, `path`
            neither a name nor a file.
        ValueError: a name or a text that UTF-8 cannot hold; the name ``__metadata__``, which the
            format uses; more axes; `path` is no name of a file, or a file that is not open for
            writing.
        OSError: writing failed. A file named by `path` is as it was before; a file object may
            have got a part.
    """
    if not isinstance(tensors, Mapping):
        got = type(tensors).__name__
        raise TypeError(f"tensors: expected a dict of arrays by name, got {got}")
    arrays: dict[str, Array] = {}
    for name, value in tensors.items():
        if not isinstance(name, str):
            raise TypeError(f"tensors: expected names of text, got {name!r:.80}")
        check_text("tensors: expected names of text", name)
        if name == "__metadata__":
            raise ValueError(f"tensors: expected another name than {name!r}, which the format uses")
        arrays[name] = array = as_floats(f"tensors[{name!r}]", value)
        if array.ndim > MOST_AXES:
            raise ValueError(
                f"tensors[{name!r}]: expected at most {MOST_AXES} axes, got {array.ndim}"
            )
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata: expected a dict of strings, got {type(metadata).__name__}")
    for key, text in metadata.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"metadata: expected strings by name, got {key!r:.80}: {text!r:.80}")
        check_text("metadata: expected strings of text", key + text)
    write(path, arrays, metadata, "tensors")


def load_tensors(path: Source, prefix: str = "") -> dict[str, Array]:
    """Load the tensors of any safetensors file by name: F32 and F64 bit for bit.

    F16 and BF16 become float32, which holds each of their values.

    For files of other origin::

        layer.load_state_dict(fastrnn.load_tensors("model.safetensors", "encoder.lstm."))

    Args:
        path: the file, or its content as bytes.
        prefix: only tensors whose name starts with it, named without it.

    Raises:
        OSError: the file cannot be read.
        TypeError: `path` is neither a name nor bytes; `prefix` is no string.
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
            f"prefix: expected the start of a tensor's name in {header.path}, got {prefix!r}"
        )
    arrays = read_tensors(header, wanted)
    return {name.removeprefix(prefix): array for name, array in arrays.items()}


def load_metadata(path: Source) -> dict[str, str]:
    """Load the metadata of any safetensors file, or of its content as bytes; {} without any.

    In a file that `save` wrote they are the architecture of the modules.

    Raises:
        OSError: the file cannot be read.
        TypeError: `path` is neither a name nor bytes.
        ValueError: it is no safetensors file or a damaged one; a `path` that is no name of a file.
    """
    return dict(read_header(path).metadata)


def check_text(expected: str, text: str) -> None:
    """Raise ValueError for a string that UTF-8 cannot hold: `expected` with the argument's name."""
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        raise ValueError(f"{expected}, got {text!r:.80}") from None
