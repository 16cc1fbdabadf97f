"""Modules on disk: their weights as safetensors, their architecture in its metadata."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from ._arguments import MOST_SIZE, Array, as_flag, show_shape
from ._arrays import Arrays
from ._linear import Linear
from ._module import Module
from ._recurrent import Recurrent
from ._replacing import Target
from ._safetensors import Entry, Header, Source, dtype_read, read_header, read_tensors
from ._safetensors_writer import FORMAT, write
from ._spec import Spec
from ._tensors import as_metadata, as_tensors, check_text
from .layers import GRU, LSTM, RNN

Part: TypeAlias = Module | Mapping[str, Any]  # of a model; Mapping: arrays of the caller's own

_CLASSES: dict[str, type[Recurrent[Any]]] = {
    "rnn_tanh": RNN,
    "rnn_relu": RNN,
    "lstm": LSTM,
    "gru": GRU,
}
_ARRAYS = "arrays"  # in the place of a cell: a dict of arrays
_SIZES = ("input_size", "hidden_size", "num_layers")
_FLAGS = ("bias", "batch_first", "bidirectional")


def save(
    path: Target,
    modules: Module | Mapping[str, Part],
    metadata: Mapping[str, str] | None = None,
    *,
    compact: bool = False,
) -> None:
    """Save a model in one safetensors file: modules and arrays by name; `load` gives it back.

    ::

        parts = {"lstm": lstm, "norm": {"weight": gain, "bias": bias}, "head": head}
        fastrnn.save("model.safetensors", parts, {"sample_rate": "16000"})

    Tensors are named as in ``state_dict``, with the module's name and a dot in front
    ("lstm.weight_ih_l0", "norm.weight"); the architecture is in the metadata, beside that of the
    caller, which `load_metadata` gives back. The file appears whole or not at all, and the same
    content gives the same bytes. While other threads change weights, those of each module are of
    one moment, but not all modules of the same.

    Args:
        path: the file's name, or a writable binary file such as ``io.BytesIO()``, which gets the
            bytes at its place.
        modules: a dict by name of RNN, LSTM, GRU, Linear and of dicts of arrays: float32, float64
            or float16 (which comes back as float32), of 32 axes at most. Or one module alone, as by
            ``layer.save(path)``.
        metadata: a dict of strings; None for none. Keys that the file needs itself are refused:
            "format", "format_version", "cell" and whatever ends in ".cell", those of the modules.
        compact: float32 arrays of which bfloat16 or float16 holds every value are written as
            BF16 or F16, in half the bytes, and come back as float32, bit for bit. (See
            `convert.to_bfloat16`.)

    Raises:
        TypeError: `modules` is no module and no dict of them by name, `metadata` none of strings;
            `path` is neither of the two; `compact` is no bool.
        ValueError: `modules` or a name is empty, or no text that UTF-8 can hold; a name with dots
            that makes a tensor look like one of another module; a key of the metadata that the file
            needs; `path` is no name of a file, or a file that is not open for writing.
        OSError: writing failed. A file named by `path` is as it was before; a file object may
            have got a part.
    """
    compact, entries, told = as_flag("compact", compact), as_metadata(metadata), dict(FORMAT)
    tensors: dict[str, Array] = {}
    owners: list[tuple[str, str]] = []  # of each tensor, by its name in the file
    parts = _parts(modules)
    for name, part in parts.items():
        prefix = _prefix(name)
        arrays, fields = _content(name, part)
        tensors |= {prefix + key: array for key, array in arrays.items()}
        owners += [(prefix + key, name) for key in arrays]
        told |= {prefix + key: text for key, text in fields.items()}
    read = _owners(tensors, parts)
    for tensor, name in owners:
        if read[tensor] != name:
            raise ValueError(
                f"modules[{name!r}]: expected names apart from those of {read[tensor]!r}, "
                f"got {tensor.removeprefix(_prefix(name))!r}"
            )
    for key in entries:
        if key in told or key == "cell" or key.endswith(".cell"):
            raise ValueError(f"metadata: expected a key that the file does not need, got {key!r}")
    write(path, tensors, told | entries, compact=compact)


def _prefix(name: str) -> str:
    """Return what stands before the names of a module's tensors and fields; alone it has none."""
    return f"{name}." if name else ""


def _parts(modules: Any) -> Mapping[str, Part]:
    """Return what is to be saved by name, a module alone by the empty one, or raise."""
    if isinstance(modules, Module):
        return {"": modules}
    if not isinstance(modules, Mapping):
        got = type(modules).__name__
        raise TypeError(f"modules: expected a module or a dict of modules by name, got {got}")
    if not modules:
        raise ValueError("modules: expected at least one module, got none")
    for name, part in modules.items():
        if not isinstance(name, str) or not isinstance(part, (Module, Arrays, Mapping)):
            hint = "; arrays stand in a dict" if hasattr(part, "__dlpack__") else ""
            if hasattr(part, "named_parameters"):
                hint = "; fastrnn.convert.from_torch makes one of torch's ours"
            raise TypeError(
                "modules: expected RNN, LSTM, GRU, Linear or dicts of arrays by name, "
                f"got {name!r:.80}: {type(part).__name__}{hint}"
            )
        if not name:
            raise ValueError("modules: expected names that are not empty, got ''")
        check_text("modules: expected names of text", name)
    return modules


def _content(name: str, part: Part | Arrays) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the tensors of a module, or of a dict of arrays, and its fields in the metadata."""
    if isinstance(part, Module):
        return part.state_dict(), part._architecture()
    given = part if isinstance(part, Mapping) else part.state_dict()
    for key, value in given.items():
        if isinstance(value, (Module, Arrays, Mapping)):
            raise TypeError(
                f"modules[{name!r}][{key!r}]: expected an array, got {type(value).__name__}; "
                "a model is flat: names of modules may have dots"
            )
    return as_tensors(f"modules[{name!r}]", given), {"cell": _ARRAYS}


def _owners(tensors: Iterable[str], modules: Iterable[str]) -> dict[str, str | None]:
    """Return whose each tensor is: of the longest module's name that it starts with, and a dot.

    In order, a name follows whatever it starts with; what is open are the starts of the one before.
    """
    starts = [(_prefix(name), 0, name) for name in modules]
    found: dict[str, str | None] = {}
    opened: list[tuple[str, str]] = []
    for text, is_tensor, name in sorted([*starts, *((tensor, 1, "") for tensor in tensors)]):
        while opened and not text.startswith(opened[-1][0]):
            opened.pop()
        if is_tensor:
            found[text] = opened[-1][1] if opened else None
        else:
            opened.append((text, name))
    return found


def load(path: Source) -> Any:
    """Load what `layer.save` or `save` wrote: the layer, or a dict of modules by name.

    A dict of arrays among the modules is one again. `path` may also be what the file holds, as
    bytes, or a readable binary file, which is read to its end: a package's resource, for example,
    or a member of a zip.

    The weights are those saved, bit for bit; F16 and BF16, of a file that was made smaller since,
    become float32, which holds them exactly. As a new one, a layer is in training mode, uses
    `fastrnn.get_num_threads()` threads and draws a fresh seed for its dropout (or assign its
    `generator`). Where the `safetensors` package is installed it reads F32 and F64 from files;
    nothing else depends on it.

    Raises:
        OSError: the file cannot be read.
        TypeError: `path` is neither a name nor bytes nor a file.
        ValueError: it is no safetensors file, a damaged one, one without an architecture (see
            `load_tensors`), or tensors and architecture do not fit; the message says which. A
            `path` that is no name of a file.
    """
    header = read_header(path)
    modules = _by_module(header)
    owners = _owners(header.tensors, modules)
    entries: dict[str, dict[str, Entry]] = {name: {} for name in modules}
    for tensor, entry in header.tensors.items():
        owner = owners[tensor]
        if owner is None:
            raise ValueError(f"{header.path}: {tensor!r:.80}: expected a tensor of a module")
        entries[owner][tensor.removeprefix(_prefix(owner))] = entry
    built = {}
    for name, fields in modules.items():
        try:
            built[name] = _module(header, _prefix(name), fields, entries[name])
        except _MisfitError as wrong:
            where = f"{name}: " if name else ""
            raise ValueError(f"{header.path}: {where}{wrong}") from None
    return built.get("", built)


class _MisfitError(Exception):
    """Why a module cannot be made of what a file says."""


def _by_module(header: Header) -> dict[str, dict[str, str]]:
    """Return the fields of each module by its name; the name of a module alone is empty."""
    metadata = header.metadata
    if metadata.get("format") != FORMAT["format"]:
        raise ValueError(
            f"{header.path}: holds tensors but no architecture (metadata format: expected "
            f"'fastrnn', got {metadata.get('format')!r:.80}); make the layer, then "
            "layer.load_state_dict(fastrnn.load_tensors(path))"
        )
    if metadata.get("format_version") != FORMAT["format_version"]:
        got = metadata.get("format_version")
        raise ValueError(f"{header.path}: format_version: expected '1', got {got!r:.80}")
    fields: dict[str, dict[str, str]] = {}
    for key, value in metadata.items():
        name, dot, field = key.rpartition(".")
        if name or not dot:
            fields.setdefault(name, {})[field] = value
    modules = {name: its for name, its in fields.items() if "cell" in its}  # others: the caller's
    if not modules:
        raise ValueError(
            f"{header.path}: expected at least one module in the metadata, got no 'cell' of one"
        )
    if "" in modules and len(modules) > 1:
        raise ValueError(f"{header.path}: expected one module without a name, or several with one")
    return modules


def _module(
    header: Header, prefix: str, fields: Mapping[str, str], found: Mapping[str, Entry]
) -> Module | dict[str, Array]:
    """Make a module, or a dict of arrays, of what a file says of it and of its tensors."""
    cell = fields["cell"]
    if cell == _ARRAYS and prefix:
        return _arrays(header, prefix, found)
    kinds = {dtype_read(entry.dtype) for entry in found.values()}
    dtype = kinds.pop() if len(kinds) == 1 else None
    if dtype is None:
        shown = ", ".join(sorted({entry.dtype for entry in found.values()})) or "no tensor"
        raise _MisfitError(f"expected tensors of F64, or of F32, F16 and BF16, got {shown}")
    if cell == "linear":
        sizes = _size(fields, "in_features"), _size(fields, "out_features")
        shapes = Linear._shapes(*sizes, _flag(fields, "bias"))
        return Linear._of(dtype, *sizes, _weights(header, prefix, found, shapes))
    if cell not in _CLASSES:
        expected = ", ".join(map(repr, [*_CLASSES, "linear", *[_ARRAYS][: len(prefix)]]))
        raise _MisfitError(f"cell: expected one of {expected}, got {cell!r:.80}")
    options: dict[str, Any] = {name: _size(fields, name) for name in _SIZES}
    options |= {name: _flag(fields, name) for name in _FLAGS}
    options |= {"proj_size": _size(fields, "proj_size", 0), "dropout": _dropout(fields)}
    if options["proj_size"] and (cell != "lstm" or options["proj_size"] >= options["hidden_size"]):
        raise _MisfitError("proj_size: expected 0, or for an lstm less than hidden_size")
    if options["num_layers"] > len(found):  # or the names alone would fill the memory
        raise _MisfitError(f"num_layers: expected weights of {options['num_layers']} layers")
    spec = Spec(
        cell, dtype, **{k: v for k, v in options.items() if k not in ("batch_first", "dropout")}
    )
    weights = _weights(header, prefix, found, spec.shapes())
    return _CLASSES[cell]._of(spec, options["batch_first"], options["dropout"], weights)


def _weights(
    header: Header, prefix: str, found: Mapping[str, Entry], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Array]:
    missing = [name for name in shapes if name not in found]
    unexpected = [name for name in found if name not in shapes]
    if missing or unexpected:
        raise _MisfitError(f"tensors missing: {missing!r:.200}, unexpected: {unexpected!r:.200}")
    for name, shape in shapes.items():
        if found[name].shape != shape:
            got = show_shape(found[name].shape)
            raise _MisfitError(f"{name}: expected shape {show_shape(shape)}, got {got}")
    return _arrays(header, prefix, {name: found[name] for name in shapes})


def _arrays(header: Header, prefix: str, found: Mapping[str, Entry]) -> dict[str, Array]:
    arrays = read_tensors(header, {prefix + name: entry for name, entry in found.items()})
    return {name: arrays[prefix + name] for name in found}


def _text(fields: Mapping[str, str], name: str) -> str:
    if name not in fields:
        raise _MisfitError(f"{name}: missing in the metadata")
    return fields[name]


def _size(fields: Mapping[str, str], name: str, least: int = 1) -> int:
    text = _text(fields, name)
    if not re.fullmatch("[0-9]{1,10}", text) or not least <= int(text) <= MOST_SIZE:
        raise _MisfitError(
            f"{name}: expected an integer from {least} to {MOST_SIZE}, got {text!r:.80}"
        )
    return int(text)


def _flag(fields: Mapping[str, str], name: str) -> bool:
    text = _text(fields, name)
    if text not in ("true", "false"):
        raise _MisfitError(f"{name}: expected 'true' or 'false', got {text!r:.80}")
    return text == "true"


def _dropout(fields: Mapping[str, str]) -> float:
    text = _text(fields, "dropout")
    number = r"[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?"
    if not re.fullmatch(number, text[:40]) or len(text) > 40 or not 0.0 <= float(text) <= 1.0:
        raise _MisfitError(f"dropout: expected a number in [0, 1], got {text!r:.80}")
    return float(text)
