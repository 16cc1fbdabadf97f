"""RNNCell, LSTMCell and GRUCell as modules of PyTorch: a single step of the layers' kernels."""

from __future__ import annotations

from typing import Any

import torch

from ._autocast import entered, is_autocast_enabled, left
from ._call import STEP, Call
from ._modules import (
    CELL_BIASES,
    CELL_WEIGHTS,
    IrregularCallError,
    compute,
    dtype_of,
    leaf_of,
    refuse_script,
    renamed,
    states_of,
    tracer_of,
    weights_of,
    with_tensors,
    without_kernel,
)


class _Cell(torch.nn.RNNCellBase):
    """A cell of torch.nn with another forward.

    No ABC: libraries that derive from the classes of a model (Pyro, higher) have metaclasses and
    bases of their own, and expect the metaclass of torch's.
    """

    __prepare_scriptable__ = refuse_script

    def __getstate__(self) -> dict[str, Any]:
        return without_kernel(vars(self))

    def _load_from_state_dict(self, state_dict: Any, *args: Any, **named: Any) -> None:
        """As torch's, but values may be arrays."""
        with_tensors(state_dict)
        super()._load_from_state_dict(state_dict, *args, **named)

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run one step; see torch.nn for arguments, results and errors."""
        try:
            return self._run(input, hx)
        except IrregularCallError:
            pass  # left first, so that torch's error comes without ours as its context
        if tracer := tracer_of(self, input, hx):
            return leaf_of(self, tracer, input, hx)
        return super().forward(input, hx)

    def _kind(self) -> str:
        """Return the kernels' name of the cell; IrregularCallError where there is none."""
        raise IrregularCallError

    def _config(self) -> tuple[Any, ...]:
        """The arguments of the cell's Kernel."""
        return self._kind(), self.input_size, self.hidden_size, 1, self.bias, False, 0

    def _run(self, input: Any, hx: Any) -> Any:
        names = CELL_WEIGHTS + CELL_BIASES if self.bias else CELL_WEIGHTS
        weights = weights_of(self, names)
        x = input
        if not isinstance(x, torch.Tensor):
            raise IrregularCallError
        config = self._config()
        dtypes = None
        if is_autocast_enabled("cpu"):
            dtype = dtype_of(self, names, weights, x)
            x, hx, dtypes = entered(config, x, hx, dtype, False)
        is_lstm = config[0] == "lstm"
        h0, c0 = states_of(hx, is_lstm)
        flat = x.dim() == 1
        if flat:
            x, h0, c0 = (None if t is None else t.unsqueeze(0) for t in (x, h0, c0))
        h, _, c = compute(self, config, x, (h0, c0), names, weights, Call(STEP, 1, 0.0))
        if dtypes is not None:
            h, c = left(dtypes, h, c)
        if flat:
            h, c = h.squeeze(0), c.squeeze(0) if is_lstm else c
        return (h, c) if is_lstm else h


class RNNCell(_Cell, torch.nn.RNNCell):
    """`torch.nn.RNNCell` on fastrnn's kernels: its constructor, parameters, results and errors."""

    forward = renamed(_Cell.forward, "RNNCell")

    def _kind(self) -> str:
        if self.nonlinearity not in ("tanh", "relu"):
            raise IrregularCallError
        return f"rnn_{self.nonlinearity}"


class LSTMCell(_Cell, torch.nn.LSTMCell):
    """`torch.nn.LSTMCell` on fastrnn's kernels: its constructor, parameters, results and errors."""

    forward = renamed(_Cell.forward, "LSTMCell")

    def _kind(self) -> str:
        return "lstm"


class GRUCell(_Cell, torch.nn.GRUCell):
    """`torch.nn.GRUCell` on fastrnn's kernels: its constructor, parameters, results and errors."""

    forward = renamed(_Cell.forward, "GRUCell")

    def _kind(self) -> str:
        return "gru"
