"""The layers' computations without an object: weights go in as a dict by torch's names.

Sizes, number of layers, directions, biases and projection follow from the names and shapes, the
dtype from weight_ih_l0. Each call packs the weights anew, so a loop over many short sequences is
better off with a layer.

::

    y, (h, c) = fastrnn.functional.lstm(x, weights)
    y, state, tape = fastrnn.functional.lstm_forward(x, weights, state)
    g = fastrnn.functional.backward(tape, dy)

Shapes, `lengths`, results and errors are those of the layers' methods (`help(fastrnn.LSTM)`).
`dropout` acts between layers whenever it is positive; its masks follow from `seed`, and None draws
a fresh one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import _threads
from ._arguments import (
    Array,
    as_choice,
    as_flag,
    as_floats,
    as_real,
    as_seed,
    as_threads,
    as_weights,
    show_shape,
)
from ._engine import Engine, Masks, warn_of_dropout
from ._spec import CELLS, Spec
from ._tape import Gradients, Tape

__all__ = ["backward", "gru", "gru_forward", "lstm", "lstm_forward", "rnn", "rnn_forward"]

Pair = tuple[Array, Array]


def rnn(
    x: Any,
    weights: Mapping[str, Any],
    state: Any = None,
    *,
    nonlinearity: str = "tanh",
    lengths: Any = None,
    batch_first: bool = False,
    dropout: float = 0.0,
    seed: int | None = None,
    num_threads: int | None = None,
) -> tuple[Array, Array]:
    """Return y and the final h of `fastrnn.RNN` with these weights.

    T steps, B rows, I inputs, H units, L layers, D directions (1 or 2).

    Args:
        x: [T, B, I], with batch_first [B, T, I], or unbatched [T, I], of the weights' dtype.
        weights: float32 or float64 by torch's names: weight_ih_lk [H, I or D * H], weight_hh_lk
            [H, H] and, unless there are no biases, bias_ih_lk and bias_hh_lk [H]; the same with
            the suffix _reverse for both directions.
        state: h0 [L * D, B, H], without the batch axis when x has none; None for zeros.
        nonlinearity: "tanh" or "relu".
        lengths: integers [B] in 0..T: row b ends after lengths[b] steps.
        batch_first: whether x and y are [B, T, ...].
        dropout: probability in 0..1 between layers; with one layer a UserWarning says that it does
            nothing.
        seed: integer >= 0 for the masks of dropout; None draws a fresh one.
        num_threads: threads to use at most, 1 to 1,024; None: `fastrnn.get_num_threads()`.

    Returns:
        y [T, B, D * H] (in x's layout) and the final h, shaped like `state`.

    Raises:
        TypeError: an argument of another dtype than weight_ih_l0's, or of another kind.
        ValueError: a weight that is missing, unexpected, or of another shape or dtype than the rest
            asks for; a wrong shape of another argument; a value out of its range.
    """
    cell = _rnn_cell(nonlinearity)
    options = _options(batch_first, dropout, seed, num_threads)
    return _engine(cell, weights, dropout).run(x, state, lengths, *options)


def rnn_forward(
    x: Any,
    weights: Mapping[str, Any],
    state: Any = None,
    *,
    nonlinearity: str = "tanh",
    lengths: Any = None,
    batch_first: bool = False,
    dropout: float = 0.0,
    seed: int | None = None,
    num_threads: int | None = None,
) -> tuple[Array, Array, Tape]:
    """Return y (read-only), the final h and a tape for `backward`.

    Arguments and errors are those of `rnn`. The weights are copied; x must not change before
    `backward`.
    """
    cell = _rnn_cell(nonlinearity)
    options = _options(batch_first, dropout, seed, num_threads)
    return _engine(cell, weights, dropout, keep=True).forward(x, state, lengths, *options)


def lstm(
    x: Any,
    weights: Mapping[str, Any],
    state: Any = None,
    *,
    lengths: Any = None,
    batch_first: bool = False,
    dropout: float = 0.0,
    seed: int | None = None,
    num_threads: int | None = None,
) -> tuple[Array, Pair]:
    """Return y and the final (h, c) of `fastrnn.LSTM` with these weights.

    Arguments and errors are those of `rnn` without `nonlinearity`, with P = H, or less with a
    projection, but for:

    Args:
        weights: weight_ih_lk [4H, I or D * P], weight_hh_lk [4H, P], bias_ih_lk and bias_hh_lk
            [4H], gates in the order i, f, g, o; with projection weight_hr_lk [P, H].
        state: (h0 [L * D, B, P], c0 [L * D, B, H]), each maybe None for zeros.

    Returns:
        y [T, B, D * P] and (h, c), shaped like `state`.
    """
    options = _options(batch_first, dropout, seed, num_threads)
    return _engine("lstm", weights, dropout).run(x, state, lengths, *options)


def lstm_forward(
    x: Any,
    weights: Mapping[str, Any],
    state: Any = None,
    *,
    lengths: Any = None,
    batch_first: bool = False,
    dropout: float = 0.0,
    seed: int | None = None,
    num_threads: int | None = None,
) -> tuple[Array, Pair, Tape]:
    """Return y (read-only), the final (h, c) and a tape for `backward`.

    Arguments and errors are those of `lstm`. The weights are copied; x must not change before
    `backward`.
    """
    options = _options(batch_first, dropout, seed, num_threads)
    return _engine("lstm", weights, dropout, keep=True).forward(x, state, lengths, *options)


def gru(
    x: Any,
    weights: Mapping[str, Any],
    state: Any = None,
    *,
    lengths: Any = None,
    batch_first: bool = False,
    dropout: float = 0.0,
    seed: int | None = None,
    num_threads: int | None = None,
) -> tuple[Array, Array]:
    """Return y and the final h of `fastrnn.GRU` with these weights.

    Arguments, results and errors are those of `rnn` without `nonlinearity`, but for:

    Args:
        weights: weight_ih_lk [3H, I or D * H], weight_hh_lk [3H, H], bias_ih_lk and bias_hh_lk
            [3H], gates in the order r, z, n.
    """
    options = _options(batch_first, dropout, seed, num_threads)
    return _engine("gru", weights, dropout).run(x, state, lengths, *options)


def gru_forward(
    x: Any,
    weights: Mapping[str, Any],
    state: Any = None,
    *,
    lengths: Any = None,
    batch_first: bool = False,
    dropout: float = 0.0,
    seed: int | None = None,
    num_threads: int | None = None,
) -> tuple[Array, Array, Tape]:
    """Return y (read-only), the final h and a tape for `backward`.

    Arguments and errors are those of `gru`. The weights are copied; x must not change before
    `backward`.
    """
    options = _options(batch_first, dropout, seed, num_threads)
    return _engine("gru", weights, dropout, keep=True).forward(x, state, lengths, *options)


def backward(
    tape: Tape,
    dy: Any = None,
    dstate: Any = None,
    *,
    input_grad: bool = True,
    step_norms: bool = False,
    num_threads: int | None = None,
) -> Gradients[Any]:
    """Return the gradients for a tape of one of the `*_forward` functions.

    Args:
        tape: from `rnn_forward`, `lstm_forward` or `gru_forward`, or from a layer's `forward`.
        dy: in y's shape, or None.
        dstate: in the final state's shape, or None; for LSTM (dh, dc). At least one gradient.
        input_grad: whether to compute the gradient of x; False where x is data, which saves time.
        step_norms: whether to tell how large the gradient is at each step, float64 [L * D, T, B],
            as the layers' `backward` does.
        num_threads: threads to use at most, 1 to 1,024; None: `fastrnn.get_num_threads()`.

    Raises:
        TypeError: a wrong dtype; a tape that is none of these; an `input_grad` or `step_norms` that
            is no bool.
        ValueError: a wrong shape; no gradient at all.
    """
    engine = getattr(tape, "owner", None)
    if not isinstance(engine, Engine):
        got = type(tape).__name__ + (f" of {engine!r}" if isinstance(tape, Tape) else "")
        raise TypeError(f"tape: expected a Tape of an RNN, LSTM or GRU, got {got}")
    threads = _thread_count(num_threads)
    return engine.backward(tape, dy, dstate, input_grad, step_norms, threads)


def _rnn_cell(nonlinearity: str) -> str:
    return "rnn_" + as_choice("nonlinearity", nonlinearity, ("tanh", "relu"))


def _thread_count(num_threads: int | None) -> int:
    return as_threads("num_threads", num_threads) or _threads.default


def _options(
    batch_first: bool, dropout: float, seed: int | None, num_threads: int | None
) -> tuple[bool, Masks | None, int]:
    """Check what every function takes: batch_first, the masks of dropout, threads."""
    batch_first = as_flag("batch_first", batch_first)
    dropout = as_real("dropout", dropout, 0.0, 1.0)
    seed = as_seed(seed)
    threads = _thread_count(num_threads)
    if dropout == 0.0:
        return batch_first, None, threads
    key = int(np.random.default_rng(seed).bit_generator.random_raw())
    return batch_first, lambda: (dropout, key), threads


def _layers(weights: Mapping[str, Any]) -> int:
    """Return the number of layers that the names tell of, at most one for each of them."""
    found = (re.search(r"_l(\d{1,9})(_reverse)?$", str(name)) for name in weights)
    last = max(int(name[1]) for name in found if name)
    return min(last + 1, len(weights))


def _engine(cell: str, weights: Mapping[str, Any], dropout: float, keep: bool = False) -> Engine:
    """Infer the network's shape from names and shapes, then check all of them against it.

    `dropout`: with one layer the caller of the public function is warned of it.
    `keep`: for a tape, whose backward reads the weights again. They are copied, so that what the
    caller does to them in between cannot mix old weights with new ones.
    """
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights: expected a dict of arrays by name, got {type(weights).__name__}")
    gates, first = CELLS[cell].gates, {}
    for name, form in (
        ("weight_ih_l0", f"[{gates} * hidden_size, input_size]"),
        ("weight_hh_l0", f"[{gates} * hidden_size, size of h]"),
        ("weight_hr_l0", "[proj_size, hidden_size]"),
    ):
        if name in weights:
            first[name] = as_floats(name, weights[name])
            if first[name].ndim != 2:
                got = show_shape(first[name].shape)
                raise ValueError(f"{name}: expected a matrix {form}, got shape {got}")
        elif name != "weight_hr_l0":
            raise ValueError(f"weights: missing {name}")
    rows, input_size = first["weight_ih_l0"].shape
    if rows == 0 or input_size == 0 or rows % gates:
        raise ValueError(
            f"weight_ih_l0: expected shape [{gates} * hidden_size, input_size] for {cell}, "
            f"got [{rows}, {input_size}]"
        )
    projected = cell == "lstm" and "weight_hr_l0" in first
    spec = Spec(
        cell,
        first["weight_ih_l0"].dtype,
        input_size,
        rows // gates,
        _layers(weights),  # by any name, so that the error tells what lacks beside it
        bias=any(str(name).startswith("bias_") for name in weights),
        bidirectional=any(str(name).endswith("_reverse") for name in weights),
        proj_size=first["weight_hr_l0"].shape[0] if projected else 0,
    )
    expected = {name: (shape, spec.dtype) for name, shape in spec.shapes().items()}
    arrays = as_weights("weights", weights, expected).values()
    warn_of_dropout(float(dropout), spec.num_layers, stacklevel=3)
    return Engine(spec, [w.copy() for w in arrays] if keep else list(arrays))
