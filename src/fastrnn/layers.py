"""The recurrent layers: RNN, LSTM and GRU, with torch.nn's constructor arguments and weight names.

All three share their methods: calling a layer runs it, `forward` also keeps a tape, `backward`
walks back through time, `stream` carries the memory from sample to sample. Below, `s` is the
logistic sigmoid and `*` between vectors is elementwise; x is the layer's input at one step, h and c
its state from the step before, h' and c' its new state. With several layers, x of a layer above is
h' of the one below (of both directions, concatenated).

`help(fastrnn.LSTM)` lists the options.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import numpy as np

from ._arguments import Array, as_choice
from ._recurrent import Recurrent

__all__ = ["GRU", "LSTM", "RNN"]

C = TypeVar("C", bound="type[Recurrent[Any]]")

_OPTIONS = """
    input_size, hidden_size, num_layers: integers from 1 to 1,048,576: features of x, units of a
        layer in one direction, layers on top of each other.
    bias: whether there are bias vectors.
    batch_first: x and y are [B, T, ...] instead of [T, B, ...]; states are [L * D, B, ...] always.
    dropout: probability in 0..1 with which outputs of every layer but the last are zeroed (the
        others grow by 1 / (1 - dropout)); only in training mode, see `train`.
    bidirectional: a second set of weights runs from the end to the start; y has both.
    dtype: np.float32 or np.float64, of weights, inputs and results alike.
    seed: integer >= 0 for the initial weights and the dropout masks; None draws a fresh one.
    orthogonal: make each gate's block of weight_hh orthogonal (Saxe et al. 2014,
        arXiv:1312.6120) instead of torch's default U(-1/sqrt(H), 1/sqrt(H)), which all the rest
        keeps.
    num_threads: threads a call may use at most, 1 to 1,024; None: `fastrnn.get_num_threads()`.

Raises:
    TypeError: an option of a wrong type.
    ValueError: one with a wrong value.
"""


def _with_options(kind: C) -> C:
    """Add the options that all three have to a docstring that ends with its own."""
    if kind.__doc__:  # python -OO
        kind.__doc__ = inspect.cleandoc(kind.__doc__) + _OPTIONS
    return kind


@_with_options
class RNN(Recurrent[Array]):
    """Simple recurrent network (Elman 1990, doi:10.1207/s15516709cog1402_1).

    h' = act(W_ih x + b_ih + W_hh h + b_hh), act being tanh or relu.

    I is input_size, H hidden_size, D the number of directions, 1 or 2.
    Weights of layer k: weight_ih_lk [H, I or D*H], weight_hh_lk [H, H], bias_ih_lk and bias_hh_lk
    [H]; the same with the suffix _reverse when bidirectional.

    Args:
        nonlinearity: "tanh" or "relu".
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: Any = np.float32,
        seed: int | None = None,
        orthogonal: bool = False,
        num_threads: int | None = None,
    ) -> None:
        self._configure(
            "rnn_" + as_choice("nonlinearity", nonlinearity, ("tanh", "relu")),
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            proj_size=0,
            dtype=dtype,
            seed=seed,
            forget_bias=None,
            orthogonal=orthogonal,
            num_threads=num_threads,
        )

    @property
    def nonlinearity(self) -> str:
        """The activation: "tanh" or "relu"."""
        return self._spec.cell.removeprefix("rnn_")

    def _options(self) -> dict[str, Any]:
        return {} if self.nonlinearity == "tanh" else {"nonlinearity": self.nonlinearity}


@_with_options
class LSTM(Recurrent[tuple[Array, Array]]):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735),
    with the forget gate of Gers, Schmidhuber & Cummins (2000, doi:10.1162/089976600300015015)::

        i  = s(W_ii x + b_ii + W_hi h + b_hi)       input gate
        f  = s(W_if x + b_if + W_hf h + b_hf)       forget gate
        g  = tanh(W_ig x + b_ig + W_hg h + b_hg)    candidate
        o  = s(W_io x + b_io + W_ho h + b_ho)       output gate
        c' = f * c + i * g
        h' = o * tanh(c')                           with proj_size: W_hr (o * tanh(c'))

    s is the logistic sigmoid, * elementwise. I is input_size, H hidden_size, P proj_size (H without
    projection), L num_layers, D the number of directions, 1 or 2, B the rows of a batch.
    The state is a pair (h [L*D, B, P], c [L*D, B, H]).
    Weights of layer k, gates in the order i, f, g, o: weight_ih_lk [4H, I or D*P], weight_hh_lk
    [4H, P], bias_ih_lk and bias_hh_lk [4H], with projection weight_hr_lk [P, H]; the same with the
    suffix _reverse when bidirectional.

    Args:
        proj_size: 0, or the size P < hidden_size that h is projected to (LSTMP, Sak, Senior &
            Beaufays 2014, arXiv:1402.1128).
        forget_bias: the forget gate's whole bias at the start: written to bias_ih, with 0 in
            bias_hh. 1.0 is a good value where memory is long (Jozefowicz, Zaremba & Sutskever
            2015). None keeps torch's.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        dtype: Any = np.float32,
        seed: int | None = None,
        forget_bias: float | None = None,
        orthogonal: bool = False,
        num_threads: int | None = None,
    ) -> None:
        self._configure(
            "lstm",
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            proj_size=proj_size,
            dtype=dtype,
            seed=seed,
            forget_bias=forget_bias,
            orthogonal=orthogonal,
            num_threads=num_threads,
        )

    @property
    def proj_size(self) -> int:
        """P: the size h is projected to; 0 without projection."""
        return self._spec.proj_size

    def _options(self) -> dict[str, Any]:
        return {"proj_size": self.proj_size} if self.proj_size else {}


@_with_options
class GRU(Recurrent[Array]):
    """Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078), in the reset-after form of cuDNN and
    torch, in which the reset gate acts on the candidate's finished product::

        r  = s(W_ir x + b_ir + W_hr h + b_hr)             reset gate
        z  = s(W_iz x + b_iz + W_hz h + b_hz)             update gate
        n  = tanh(W_in x + b_in + r * (W_hn h + b_hn))    candidate
        h' = (1 - z) * n + z * h

    s is the logistic sigmoid, * elementwise. I is input_size, H hidden_size, D the number of
    directions, 1 or 2.
    Weights of layer k, gates in the order r, z, n: weight_ih_lk [3H, I or D*H], weight_hh_lk
    [3H, H], bias_ih_lk and bias_hh_lk [3H]; the same with the suffix _reverse when bidirectional.

    Args:
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: Any = np.float32,
        seed: int | None = None,
        orthogonal: bool = False,
        num_threads: int | None = None,
    ) -> None:
        self._configure(
            "gru",
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            proj_size=0,
            dtype=dtype,
            seed=seed,
            forget_bias=None,
            orthogonal=orthogonal,
            num_threads=num_threads,
        )
