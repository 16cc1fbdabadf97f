"""Layers of torch as ours, and weights of other frameworks under torch's names, which are ours.

And weights of our own in half the bytes: `to_bfloat16`.

::

    gru = convert.from_torch(torch_gru)

    lstm = fastrnn.LSTM(40, 128, batch_first=True)
    lstm.load_state_dict(convert.from_keras("lstm", keras_layer.get_weights()))

    gru = fastrnn.GRU(40, 128)
    gru.load_state_dict(convert.from_onnx("gru", W, R, B))

A stack is put together layer by layer: `from_keras("lstm", first) | from_keras("lstm", second,
layer=1)`. Gates are brought into torch's order, matrices stand as [outputs, inputs]; no value
changes. The cells compute the same as long as the others' settings are their defaults, but for the
GRU's: its reset gate must act after the matrix product (``reset_after=True``, Keras' default;
``linear_before_reset=1``, not ONNX's).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._arguments import (
    MOST_SIZE,
    Array,
    Shape,
    as_array,
    as_choice,
    as_flag,
    as_floats,
    as_real,
    as_size,
    as_weights,
    shape_error,
    show_shape,
)
from ._halves import rounded
from ._linear import Linear
from ._recurrent import Recurrent
from ._spec import checked_spec
from .layers import GRU, LSTM, RNN

__all__ = ["from_keras", "from_onnx", "from_torch", "to_bfloat16"]

# Where torch's gates stand: rnn; lstm i f g o; gru r z n.
_ONNX = {"rnn": (0,), "lstm": (0, 2, 3, 1), "gru": (1, 0, 2)}  # i o f c; z r h
_KERAS = {"rnn": (0,), "lstm": (0, 1, 2, 3), "gru": (1, 0, 2)}  # i f c o; z r h
_CELLS = tuple(_ONNX)
_LAYERS: dict[str, type[Recurrent[Any]]] = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}
_TORCH = (*_LAYERS, *(f"{name}Cell" for name in _LAYERS), "Linear")
# Of torch's layers; a cell has none of them.
_OPTIONS: dict[str, Any] = {
    "num_layers": 1, "batch_first": False, "dropout": 0.0, "bidirectional": False, "proj_size": 0
}  # fmt: skip
_LIMIT = f"sizes from 1 to {MOST_SIZE}"


def from_torch(module: Any) -> Any:
    """Return the layer with the options of a module of PyTorch, and with a copy of its weights.

    A cell becomes a layer of one layer, whose call with one step, `layer(x[None], state)`, is the
    cell's. The layer is in training mode where the module is: its dropout acts where that of the
    module would. torch is not imported here.

    Args:
        module: an RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell or Linear of torch.nn or of
            fastrnn.torch, whose parameters are float32 or float64, on the CPU. Of a subclass, what
            its own `forward` adds is not seen.

    Returns:
        fastrnn.RNN, LSTM, GRU or Linear.

    Raises:
        TypeError: another module, or none; parameters of another dtype or on another device.
        ValueError: other parameters than those of torch's class, as those that are parametrized
            (`torch.nn.utils.parametrize.remove_parametrizations` ends that), or of other shapes or
            several dtypes; sizes beyond 1,048,576.
    """
    kind = _torch_kind(module)
    end = "_l0" if kind.endswith("Cell") else ""
    arrays = {name + end: _of_tensor(name, t) for name, t in module.state_dict().items()}
    made = _linear(module, arrays) if kind == "Linear" else _recurrent_of(module, kind, arrays)
    return made.train(module.training)


def _torch_kind(module: Any) -> str:
    """Return the name of the class of torch.nn that this is one of, or raise."""
    for base in type(module).__mro__:
        if base.__name__ in _TORCH and base.__module__.startswith(("torch.nn.", "fastrnn.torch.")):
            return base.__name__
    got = f"{type(module).__module__}.{type(module).__qualname__}"
    raise TypeError(f"module: expected a module of torch.nn, one of {', '.join(_TORCH)}, got {got}")


def _of_tensor(name: str, tensor: Any) -> Array:
    device = getattr(tensor, "device", "cpu")
    if str(device) != "cpu":
        raise TypeError(
            f"module: {name}: expected a tensor on the CPU, got one on {device}; try module.cpu()"
        )
    dtype = str(getattr(tensor, "dtype", "")).removeprefix("torch.")
    if dtype in ("float16", "bfloat16"):
        raise TypeError(
            f"module: {name}: expected dtype float32 or float64, got {dtype}; try module.float()"
        )
    return as_floats(f"module: {name}", tensor)


def _linear(module: Any, arrays: Mapping[str, Array]) -> Linear:
    width = as_size("in_features", module.in_features, 1, MOST_SIZE)
    rows = as_size("out_features", module.out_features, 1, MOST_SIZE)
    dtype, shapes = _dtype(arrays), Linear._shapes(width, rows, module.bias is not None)
    return Linear._of(dtype, width, rows, _copies(arrays, shapes, dtype))


def _recurrent_of(module: Any, kind: str, arrays: Mapping[str, Array]) -> Recurrent[Any]:
    name = kind.removesuffix("Cell")
    cell = name.lower()
    if name == "RNN":
        cell += f"_{as_choice('nonlinearity', module.nonlinearity, ('tanh', 'relu'))}"
    options = _OPTIONS if kind != name else {key: getattr(module, key) for key in _OPTIONS}
    spec = checked_spec(
        cell,
        _dtype(arrays),
        module.input_size,
        module.hidden_size,
        options["num_layers"],
        module.bias,
        options["bidirectional"],
        options["proj_size"],
    )
    batch_first = as_flag("batch_first", options["batch_first"])
    dropout = as_real("dropout", options["dropout"], 0.0, 1.0)
    weights = _copies(arrays, spec.shapes(), spec.dtype)
    return _LAYERS[name]._of(spec, batch_first, dropout, weights)


def _dtype(arrays: Mapping[str, Array]) -> np.dtype[Any]:
    return next((array.dtype for array in arrays.values()), np.dtype(np.float32))


def _copies(
    arrays: Mapping[str, Array], shapes: Mapping[str, Shape], dtype: np.dtype[Any]
) -> dict[str, Array]:
    """Return copies of a module's arrays, which must have these names and shapes."""
    found = as_weights("module", arrays, {name: (shape, dtype) for name, shape in shapes.items()})
    return {name: array.copy() for name, array in found.items()}


def from_onnx(cell: str, W: Any, R: Any, B: Any = None, *, layer: int = 0) -> dict[str, Array]:
    """Return the weights of an ONNX RNN, LSTM or GRU node as those of one of our layers.

    D is 1, or 2 for ``direction="bidirectional"``; G the number of gates: 1, 4 or 3. The node's
    attributes are not seen here, and some have no counterpart: ``clip``, ``input_forget``, other
    ``activations``, peepholes (P). With ``layout=0`` x and the states have our shapes, and Y
    [T, D, B, H] is our y [T, B, D * H]. For ``direction="reverse"`` turn x and y round in time.

    Args:
        cell: "rnn", "lstm" or "gru".
        W: float32 or float64 [D, G * H, I].
        R: [D, G * H, H].
        B: [D, 2 * G * H], or None: zeros, as in ONNX.
        layer: the number of the layer within a stack.

    Raises:
        TypeError: an array that is neither float32 nor float64, or not W's dtype.
        ValueError: a shape that does not fit, an unknown cell.

    Source: https://onnx.ai/onnx/operators/ (RNN, LSTM, GRU; since version 7).
    """
    order = _ONNX[as_choice("cell", cell, _CELLS)]
    layer = as_size("layer", layer, 0, MOST_SIZE - 1)
    W = as_floats("W", W)
    R = as_array("R", R, W.dtype)
    if R.ndim != 3 or R.shape[0] not in (1, 2) or not _recurrent(R.shape[1], R.shape[2], order):
        raise shape_error("R", f"[1 or 2, {_rows(order)}, H], {_LIMIT}", R.shape)
    rows: Shape = R.shape[:2]
    if W.ndim != 3 or W.shape[:2] != rows or not 1 <= W.shape[2] <= MOST_SIZE:
        raise shape_error("W", f"[{rows[0]}, {rows[1]}, I], {_LIMIT}", W.shape)
    B = np.zeros((rows[0], 2 * rows[1]), W.dtype) if B is None else as_array("B", B, W.dtype)
    if B.shape != (rows[0], 2 * rows[1]):
        raise shape_error("B", f"[{rows[0]}, {2 * rows[1]}]", B.shape)
    found: dict[str, Array] = {}
    for direction, (w, r, b) in enumerate(zip(W, R, B, strict=True)):
        found |= _named(layer, direction, order, w, r, *np.split(b, 2))
    return found


def from_keras(cell: str, weights: Sequence[Any], *, layer: int = 0) -> dict[str, Array]:
    """Return the weights of a Keras SimpleRNN, LSTM or GRU layer as those of one of our layers.

    Keras is batch-first, gives only the last output unless ``return_sequences``, and hands back
    states one by one. Its one bias of RNN and LSTM becomes bias_ih, beside a bias_hh of zeros. A
    GRU without a bias does not show whether its ``reset_after`` is True: it must be.

    Args:
        cell: "rnn", "lstm" or "gru".
        weights: what ``layer.get_weights()`` returns: kernel [I, G * H], recurrent_kernel
            [H, G * H] and, unless ``use_bias=False``, bias [G * H], of the GRU [2, G * H]. Those
            of ``Bidirectional(layer)`` are the same once more. (Those of a model with two layers of
            one shape look alike: ask each layer for its own.)
        layer: the number of the layer within a stack.

    Raises:
        TypeError: an array that is neither float32 nor float64, or not the first one's dtype.
        ValueError: another number of arrays, a shape that does not fit, an unknown cell.

    Source: https://keras.io/api/layers/recurrent_layers/ (Keras 3).
    """
    order = _KERAS[as_choice("cell", cell, _CELLS)]
    layer = as_size("layer", layer, 0, MOST_SIZE - 1)
    arrays = _as_keras(weights)
    each = 3 if len(arrays) % 3 == 0 else 2
    found: dict[str, Array] = {}
    for first in range(0, len(arrays), each):
        _check_keras(cell, order, first, arrays[first : first + each], arrays)
        w, r, *biases = arrays[first : first + each]
        if biases and cell != "gru":
            biases = [biases[0], np.zeros_like(biases[0])]
        elif biases:
            biases = list(biases[0])
        found |= _named(layer, first // each, order, w.T, r.T, *biases)
    return found


def _as_keras(weights: Sequence[Any]) -> list[Array]:
    """Return what `get_weights` gave as arrays of one dtype, or raise."""
    if not isinstance(weights, (list, tuple)):
        got = type(weights).__name__
        raise TypeError(f"weights: expected the list that get_weights() returns, got {got}")
    if len(weights) not in (2, 3, 4, 6):
        raise ValueError(
            "weights: expected kernel, recurrent_kernel and maybe bias, once or twice, "
            f"got {len(weights)} arrays"
        )
    dtype = as_floats("weights[0]", weights[0]).dtype
    return [as_array(f"weights[{i}]", w, dtype) for i, w in enumerate(weights)]


def _rows(order: Sequence[int]) -> str:
    return "H" if len(order) == 1 else f"{len(order)} * H"


def _recurrent(rows: int, size: int, order: Sequence[int]) -> bool:
    return 1 <= size <= MOST_SIZE and rows == len(order) * size


def _check_keras(
    cell: str, order: Sequence[int], first: int, arrays: list[Array], forward: list[Array]
) -> None:
    """Raise ValueError unless the arrays of one direction, from number `first` on, fit."""
    names = [f"weights[{first + i}]" for i in range(3)]
    kernel, recurrent = arrays[:2]
    if recurrent.ndim != 2 or not _recurrent(recurrent.shape[1], recurrent.shape[0], order):
        raise shape_error(names[1], f"[H, {_rows(order)}], {_LIMIT}", recurrent.shape)
    width = recurrent.shape[1]
    if kernel.ndim != 2 or kernel.shape[1] != width or not 1 <= kernel.shape[0] <= MOST_SIZE:
        raise shape_error(names[0], f"[I, {width}], {_LIMIT}", kernel.shape)
    bias: Shape = (2, width) if cell == "gru" else (width,)
    if len(arrays) > 2 and arrays[2].shape != bias:
        hint = "a GRU with reset_after=False computes something else" if cell == "gru" else ""
        raise shape_error(names[2], show_shape(bias), arrays[2].shape, hint)
    for name, array, before in zip(names, arrays, forward, strict=False):
        if array.shape != before.shape:  # the other direction
            raise shape_error(name, f"{show_shape(before.shape)}, as the first time", array.shape)


def _named(layer: int, direction: int, order: Sequence[int], *arrays: Array) -> dict[str, Array]:
    """Return W, R and the biases, if any, under their names, their gates in torch's order."""
    end = f"_l{layer}" + ("_reverse" if direction else "")
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    found = {}
    for name, array in zip(names, arrays, strict=False):
        gates = np.split(array, len(order))
        # In C order: who writes them into a file himself may not look at strides.
        found[name + end] = np.ascontiguousarray(np.concatenate([gates[i] for i in order]))
    return found


def to_bfloat16(weights: Mapping[str, Any]) -> dict[str, Array]:
    """Return weights whose matrices hold only values of bfloat16, still as float32.

    ::

        layer.load_state_dict(convert.to_bfloat16(layer.state_dict()))

    A layer finds such weights by itself and reads them in half the bytes where it computes one row:
    faster by what it waited for them, with the bits that float32 has of the same values. Saved with
    ``compact=True`` they take half a file. bfloat16 has float32's range and 8 bits of precision:
    a weight changes by 2^-8 of itself at most (below 2^-126 by more; beyond 3.39e38 it becomes
    infinite). Arrays of one axis, the biases, stay as they are.

    Args:
        weights: a dict of float32 arrays by name, such as a `state_dict`.

    Returns:
        New arrays under the same names: matrices [outputs, inputs], or of more axes, rounded to
        the nearest bfloat16, to the even one of two; others copied.

    Raises:
        TypeError: `weights` is no dict of float32 arrays by name.

    Source: Kalamkar et al., A Study of BFLOAT16 for Deep Learning Training, 2019 (arXiv 1905.12322)
    """
    if not isinstance(weights, Mapping):
        got = type(weights).__name__
        hint = "; state_dict() is one" if hasattr(weights, "state_dict") else ""
        raise TypeError(f"weights: expected a dict of arrays by name, got {got}{hint}")
    found: dict[str, Array] = {}
    for name, value in weights.items():
        array = as_array(f"weights[{name!r}]", value, np.dtype(np.float32))
        found[name] = rounded(array) if array.ndim > 1 else array.copy()
    return found
