"""RNN, LSTM and GRU as modules of PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from ._call import BATCH, PACKED, TIME, UNBATCHED, Call
from ._modules import IrregularCallError, cast, compute, dtype_of, states_of, weights_of

_CELLS = {"RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu", "LSTM": "lstm", "GRU": "gru"}

_NONE = (None, None)


class _Layer(torch.nn.RNNBase):
    """A layer of torch.nn with another forward.

    RNNBase is its base, not torch.nn.LSTM: torch.compile refuses whatever is one of those.
    """

    _torch: Any  # the class in torch.nn

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run over whole sequences; see torch.nn for arguments, results and errors."""
        try:
            return self._run(input, hx)
        except IrregularCallError:
            pass  # left first, so that torch's error comes without ours as its context
        return self._torch.forward(self, input, hx)

    def _run(self, input: Any, hx: Any) -> Any:
        packed = isinstance(input, PackedSequence)
        x = input.data if packed else input
        names = self._flat_weights_names
        weights = weights_of(self, names)
        dtype = dtype_of(self, names, weights, x)
        if torch.is_autocast_enabled("cpu"):
            x, hx = cast(x, dtype), cast(hx, dtype)
        shape = x.shape
        dims = len(shape)
        batch_sizes = order = back = None
        batch = steps = 1
        if packed:
            layout = PACKED
            _, batch_sizes, order, back = input
            batch = int(batch_sizes[0])
        elif dims == 2:
            layout, steps = UNBATCHED, shape[0]
        elif dims != 3:
            raise IrregularCallError
        elif self.batch_first:
            layout, batch, steps = BATCH, shape[0], shape[1]
        else:
            layout, steps, batch = TIME, shape[0], shape[1]
        if (packed and dims != 2) or shape[-1] != self.input_size or x.dtype is not dtype:
            raise IrregularCallError
        if steps == 0 or x.layout is not torch.strided:
            raise IrregularCallError
        if order is not None and hx is not None:
            hx = self.permute_hidden(hx, order)
        is_lstm = self.mode == "LSTM"
        parts = self.num_layers * (2 if self.bidirectional else 1)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)
        states = _NONE
        if hx is not None:
            states = states_of(hx, is_lstm, parts, batch, layout, sizes, dtype)
        config = (
            _CELLS[self.mode], self.input_size, self.hidden_size, self.num_layers,
            self.bias, self.bidirectional, self.proj_size,
        )  # fmt: skip
        dropout = self.dropout if self.training and self.num_layers > 1 else 0.0
        # seed: the key of the masks, from torch's default generator
        seed = torch.randint(0, 2**63 - 1, (1,), device="cpu") if dropout > 0 else None
        call = Call(layout, batch, dropout, batch_sizes, seed)
        y, hn, cn = compute(self, config, x, states, names, weights, call)
        state = (hn, cn) if is_lstm else hn
        if not packed:
            return y, state
        return PackedSequence(y, batch_sizes, order, back), self.permute_hidden(state, back)


class RNN(_Layer):
    """`torch.nn.RNN` on fastrnn's kernels: its constructor, parameters, results and errors."""

    _torch = torch.nn.RNN

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See torch.nn.RNN."""
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if len(args) > 3:
            self.nonlinearity = args[3]
            args = args[:3] + args[4:]
        else:
            self.nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if self.nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"Unknown nonlinearity '{self.nonlinearity}'. Select from 'tanh' or 'relu'."
            )
        super().__init__(f"RNN_{self.nonlinearity.upper()}", *args, **kwargs)


class LSTM(_Layer):
    """`torch.nn.LSTM` on fastrnn's kernels: its constructor, parameters, results and errors."""

    _torch = torch.nn.LSTM
    get_expected_cell_size = torch.nn.LSTM.get_expected_cell_size
    check_forward_args = torch.nn.LSTM.check_forward_args
    permute_hidden = torch.nn.LSTM.permute_hidden

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See torch.nn.LSTM."""
        super().__init__("LSTM", *args, **kwargs)


class GRU(_Layer):
    """`torch.nn.GRU` on fastrnn's kernels: its constructor, parameters, results and errors."""

    _torch = torch.nn.GRU

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See torch.nn.GRU."""
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        super().__init__("GRU", *args, **kwargs)
