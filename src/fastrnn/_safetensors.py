"""The safetensors format: 8 bytes of header length N, N bytes of JSON, then the tensors' bytes.

Little-endian throughout. The JSON maps each tensor's name to its dtype, shape and
``data_offsets`` [begin, end) behind the header, and ``__metadata__`` to a dict of strings.

Nothing in a file is believed: every number is checked before memory is taken for it, by the code
below, whoever reads the bytes afterwards. Those of F32 and F64 in a file the `safetensors` package
reads where it is installed (it maps the file); all others one read per tensor straight into its
array. _safetensors_writer.py writes files.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any, NoReturn, TypeAlias

import numpy as np

from ._arguments import Array, Shape, as_path
from ._halves import HALVES, widened

Path: TypeAlias = str | os.PathLike[str]
# A file, what one holds, or an open one, which is read to its end.
Source: TypeAlias = Path | bytes | bytearray | memoryview | IO[bytes]
_EXPECTED = "str, os.PathLike[str], bytes or a readable binary file"

MOST_HEADER = 100_000_000  # bytes, as in the reference implementation
_MOST_BYTES = 2**63 - 1
MOST_AXES = 32  # NumPy 1's
DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
# What other dtypes of the format weigh, so that a file that also holds them is still understood.
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "U16": 16, "I16": 16,
    "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One tensor of a file."""

    dtype: str
    shape: Shape
    begin: int  # behind the header
    end: int


@dataclass(frozen=True)
class Header:
    """What a file says it holds; checked."""

    path: str  # "<bytes>" where there is none
    content: bytes | None = field(repr=False)  # all of it then
    stamp: tuple[int, ...]  # of what was read: its size first
    start: int  # of the tensors' bytes in it
    tensors: dict[str, Entry]
    metadata: dict[str, str]


class _BadFileError(Exception):
    """What is wrong with a file, in words."""


def read_header(source: Source) -> Header:
    """Read and check the header of a safetensors file, or of one in memory.

    Raises:
        OSError: the file cannot be read.
        TypeError: it is nothing of `Source`.
        ValueError: it is no safetensors file, or a damaged one; the message says what is wrong.
    """
    if not isinstance(source, (str, os.PathLike)) and hasattr(source, "read"):
        content = source.read()
        if not isinstance(content, bytes):
            got = f"{type(source).__name__}, whose read() gives {type(content).__name__}"
            raise TypeError(f"path: expected {_EXPECTED}, got {got}")
        source = content
    # A copy of what may change.
    content = bytes(source) if isinstance(source, (bytes, bytearray, memoryview)) else None
    in_memory = content is not None
    name = "<bytes>" if in_memory else as_path(source, _EXPECTED)
    with _opened(name, content) as file:
        stamp = _stamp(os.fstat(file.fileno())) if content is None else (len(content),)
        try:
            start, tensors, metadata = _header(file, stamp[0])
        except _BadFileError as wrong:
            hint = "; bytes are what a file holds, not its path" if in_memory else ""
            raise ValueError(f"{name}: not a valid safetensors file: {wrong}{hint}") from None
    return Header(name, content, stamp, start, tensors, metadata)


def _opened(path: str, content: bytes | None) -> io.BufferedReader | io.BytesIO:
    return open(path, "rb") if content is None else io.BytesIO(content)


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """A file's size, and what else tells it from one in its place, or from what it was."""
    return status.st_size, status.st_dev, status.st_ino, status.st_mtime_ns


def _header(file: IO[bytes], size: int) -> tuple[int, dict[str, Entry], dict[str, str]]:
    """Return where the tensors' bytes start, the tensors and the metadata."""
    if size < 8:
        _reject(f"expected at least 8 bytes, got {size}")
    head = file.read(8)
    length = int.from_bytes(head, "little")
    if head.startswith(b"PK\3\4") and length > min(MOST_HEADER, size - 8):
        _reject(
            "it is a zip, as torch.save and numpy.savez write; for a state_dict of torch's, once: "
            "fastrnn.save_tensors(path, torch.load(file, map_location='cpu'))"
        )
    if length > MOST_HEADER:
        _reject(f"expected a header of at most {MOST_HEADER} bytes, got {length}")
    if length > size - 8:
        _reject(f"expected a header within the {size - 8} bytes left, got {length}")
    text = file.read(length)
    if len(text) != length:
        _reject(f"expected {length} bytes of header, got {len(text)}")
    raw = _parse(text)
    metadata = _metadata(raw.pop("__metadata__", {}))
    tensors = {name: _entry(name, value) for name, value in raw.items()}
    _check_cover(tensors, size - 8 - length)
    return 8 + length, tensors, metadata


def _reject(message: str) -> NoReturn:
    raise _BadFileError(message)


def _parse(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        _reject(f"expected a header that starts with '{{', got {text[:1]!r}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                _reject(f"key {key!r:.80} occurs twice")
            found[key] = value
        return found

    def no_constant(word: str) -> NoReturn:
        _reject(f"{word} is no JSON")

    try:
        raw = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_constant)
        json.dumps(raw, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        _reject(f"the header is no JSON ({error})")
    found: dict[str, Any] = raw  # it starts with a brace
    return found


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        _reject(f"__metadata__: expected a dict of strings, got {type(value).__name__}")
    for key, word in value.items():
        if not isinstance(word, str):
            _reject(f"__metadata__[{key!r}]: expected a string, got {word!r:.80}")
    return value


def _entry(name: str, value: Any) -> Entry:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        _reject(f"{name!r}: expected dtype, shape and data_offsets, got {value!r:.80}")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        _reject(f"{name!r}: expected a dtype of the format, such as F32 or F64, got {dtype!r:.80}")
    if not _sizes(shape) or len(shape) > MOST_AXES:
        _reject(f"{name!r}: expected a shape of at most {MOST_AXES} sizes, got {shape!r:.80}")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        _reject(f"{name!r}: expected data_offsets [begin, end], got {offsets!r:.80}")
    # NumPy counts the axes that are not zero, even where another one is.
    bits = math.prod(size or 1 for size in shape) * _BITS[dtype]
    if bits > 8 * _MOST_BYTES:
        _reject(f"{name!r}: expected at most {_MOST_BYTES} bytes, got shape {shape!r:.80}")
    bits = 0 if 0 in shape else bits
    begin, end = offsets
    if bits != 8 * (end - begin):
        expected = bits / 8 if bits % 8 else bits // 8
        _reject(
            f"{name!r}: expected {expected} bytes ({dtype} of shape {shape!r:.80}), "
            f"got {end - begin} (data_offsets [{begin}, {end}])"
        )
    return Entry(dtype, tuple(shape), begin, end)


def _sizes(value: Any) -> bool:
    """Whether it is a list of integers that a size can have; True is none."""
    return isinstance(value, list) and all(
        type(size) is int and 0 <= size <= _MOST_BYTES for size in value
    )


def _check_cover(tensors: Mapping[str, Entry], size: int) -> None:
    """All of the data section belongs to exactly one tensor."""
    at = 0
    for name, entry in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != at:
            kind = (
                "overlaps the tensor before it" if entry.begin < at else "leaves a hole before it"
            )
            _reject(f"{name!r} {kind}: expected it to begin at {at}, got {entry.begin}")
        at = entry.end
    if at > size:
        _reject(f"truncated: expected {at} bytes of tensors, got {size}")
    if at < size:
        _reject(f"expected {at} bytes of tensors, got {size}: {size - at} belong to none")


def dtype_read(stored: str) -> np.dtype[Any] | None:
    """Return what a tensor of this dtype of the format is read as; None: it is not read."""
    dtype = DTYPES.get("F32" if stored in HALVES else stored)
    return dtype and dtype.newbyteorder("=")


def read_tensors(header: Header, wanted: Mapping[str, Entry]) -> dict[str, Array]:
    """Read some of a file's tensors, each value as it is, each into a writable array of its own.

    Raises:
        OSError: the file cannot be read.
        ValueError: a tensor is none of F32, F64, F16 and BF16; the file has changed meanwhile.
    """
    for name, entry in wanted.items():
        if dtype_read(entry.dtype) is None:
            expected = ", ".join([*DTYPES, *HALVES])
            raise ValueError(
                f"{header.path}: {name!r}: expected dtype {expected}, got {entry.dtype}"
            )
    halves = {name: entry for name, entry in wanted.items() if entry.dtype in HALVES}
    whole = {name: entry for name, entry in wanted.items() if name not in halves}
    read = _read_mapped if _package() and header.content is None else _read_plain
    # NumPy has no bfloat16, so that the package cannot hand one over.
    arrays = read(header, whole) | {
        name: widened(array) for name, array in _read_plain(header, halves).items()
    }
    return {
        name: np.require(arrays[name], dtype_read(entry.dtype), ["C", "A", "W"])
        for name, entry in wanted.items()
    }


def _check_same(header: Header, status: os.stat_result) -> None:
    if _stamp(status) != header.stamp:
        raise ValueError(f"{header.path}: changed while it was read")


def _package() -> bool:
    try:
        import safetensors  # noqa: F401
    except ImportError:
        return False
    return True


def _read_mapped(header: Header, wanted: Mapping[str, Entry]) -> dict[str, Array]:
    import safetensors

    try:
        with safetensors.safe_open(header.path, framework="numpy") as file:
            _check_same(header, os.stat(header.path))
            return {name: file.get_tensor(name) for name in wanted}
    except safetensors.SafetensorError:  # an older one does not know every dtype of the format
        return _read_plain(header, wanted)


def _read_plain(header: Header, wanted: Mapping[str, Entry]) -> dict[str, Array]:
    arrays = {}
    with _opened(header.path, header.content) as file:
        if header.content is None:
            _check_same(header, os.fstat(file.fileno()))
        for name, entry in wanted.items():
            arrays[name] = array = np.empty(entry.shape, (DTYPES | HALVES)[entry.dtype])
            file.seek(header.start + entry.begin)
            left = array.reshape(-1).view(np.uint8).data
            while left:  # one call reads at most 2 GiB on Linux
                count = file.readinto(left)
                if not count:
                    raise ValueError(f"{header.path}: {name!r}: the file ends in its middle")
                left = left[count:]
    return arrays
