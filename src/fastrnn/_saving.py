"""Modules on disk: their weights as safetensors, their architecture in its metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ._arguments import MOST_SIZE, Array, show_shape
from ._arrays import Arrays
from ._linear import Linear
from ._module import Module
from ._recurrent import Recurrent
from ._replacing import Target
from ._safetensors import (
    FORMAT,
    Entry,
    Header,
    Source,
    dtype_read,
    read_header,
    read_tensors,
    write,
)
from ._spec import Spec
from ._tensors import check_text
from .layers import GRU, LSTM, RNN

_CLASSES: dict[str, type[Recurrent[Any]]] = {
    "rnn_tanh": RNN,
    "rnn_relu": RNN,
    "lstm": LSTM,
    "gru": GRU,
}
_SIZES = ("input_size", "hidden_size", "num_layers")
_FLAGS = ("bias", "batch_first", "bidirectional")


def save(path: Target, modules: Mapping[str, Module]) -> None:
    """Save several modules in one safetensors file; `load` gives the same dict back.

    ::

        fastrnn.save("model.safetensors", {"lstm": lstm, "head": head})

    Tensors are named as in ``state_dict``, with the module's name and a dot in front
    ("lstm.weight_ih_l0"); the architecture is in the metadata. The file appears whole or not at
    all, and the same modules give the same bytes. While other threads change weights, those of each
    module are of one moment, but not all modules of the same. One module alone:
    ``layer.save(path)``.

    Args:
        path: the file's name, or a writable binary file such as ``io.BytesIO()``, which gets the
            bytes at its place.
        modules: a dict of RNN, LSTM, GRU and Linear by name.

    Raises:
        TypeError: `modules` is no dict of modules by name; `path` is neither of the two.
        ValueError: `modules` or a name is empty, or no text that UTF-8 can hold; `path` is no name
            of a file, or a file that is not open for writing.
        OSError: writing failed. A file named by `path` is as it was before; a file object may
            have got a part.
    """
    if not isinstance(modules, Mapping):
        got = type(modules).__name__
        raise TypeError(f"modules: expected a dict of modules by name, got {got}")
    if not modules:
        raise ValueError("modules: expected at least one module, got none")
    tensors: dict[str, Array] = {}
    metadata = dict(FORMAT)
    for name, module in modules.items():
        if not isinstance(name, str) or not isinstance(module, Module):
            arrays = isinstance(module, (Arrays, Mapping, np.ndarray))
            raise TypeError(
                "modules: expected RNN, LSTM, GRU or Linear by name, "
                f"got {name!r}: {type(module).__name__}"
                + ("; arrays are for save_tensors" if arrays else "")
            )
        if not name:
            raise ValueError("modules: expected names that are not empty, got ''")
        check_text("modules: expected names of text", name)
        tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
        metadata |= {f"{name}.{key}": value for key, value in module._architecture().items()}
    write(path, tensors, metadata)


def load(path: Source) -> Any:
    """Load what `layer.save` or `save` wrote: the layer, or a dict of modules by name.

    `path` may also be what the file holds, as bytes: a package's resource, for example.

    The weights are those saved, bit for bit; F16 and BF16, of a file that was made smaller since,
    become float32, which holds them exactly. As a new one, a layer is in training mode, uses
    `fastrnn.get_num_threads()` threads and draws a fresh seed for its dropout (or assign its
    `generator`). Where the `safetensors` package is installed it reads F32 and F64 from files;
    nothing else depends on it.

    Raises:
        OSError: the file cannot be read.
        TypeError: `path` is neither a name nor bytes.
        ValueError: it is no safetensors file, a damaged one, one without an architecture (see
            `load_tensors`), or tensors and architecture do not fit; the message says which. A
            `path` that is no name of a file.
    """
    header = read_header(path)
    modules = _by_module(header)
    if "" in modules and len(modules) > 1:
        raise ValueError(f"{header.path}: expected one module without a name, or several with one")
    built = {}
    for name, fields in modules.items():
        prefix = f"{name}." if name else ""
        try:
            built[name] = _module(header, prefix, fields)
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
    modules: dict[str, dict[str, str]] = {}
    for key, value in metadata.items():
        name, _, field = key.rpartition(".")
        if key not in FORMAT:
            modules.setdefault(name, {})[field] = value
    if not modules:
        raise ValueError(f"{header.path}: expected at least one module in the metadata, got none")
    stray = [name for name in header.tensors if name.rpartition(".")[0] not in modules]
    if stray:
        raise ValueError(f"{header.path}: {stray[0]!r}: expected a tensor of a module")
    return modules


def _module(header: Header, prefix: str, fields: Mapping[str, str]) -> Module:
    found = {
        name.removeprefix(prefix): entry
        for name, entry in header.tensors.items()
        if name.rpartition(".")[0] == prefix[:-1]
    }
    kinds = {dtype_read(entry.dtype) for entry in found.values()}
    dtype = kinds.pop() if len(kinds) == 1 else None
    if dtype is None:
        shown = ", ".join(sorted({entry.dtype for entry in found.values()})) or "no tensor"
        raise _MisfitError(f"expected tensors of F64, or of F32, F16 and BF16, got {shown}")
    cell = _text(fields, "cell")
    if cell == "linear":
        sizes = _size(fields, "in_features"), _size(fields, "out_features")
        shapes = Linear._shapes(*sizes, _flag(fields, "bias"))
        return Linear._of(dtype, *sizes, _weights(header, prefix, found, shapes))
    if cell not in _CLASSES:
        expected = ", ".join(map(repr, [*_CLASSES, "linear"]))
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
    arrays = read_tensors(header, {prefix + name: found[name] for name in shapes})
    return {name: arrays[prefix + name] for name in shapes}


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
