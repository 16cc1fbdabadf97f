"""From tensors to the native core and back: allocates results, passes addresses, copies nothing."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from .. import _core, _threads
from .._spec import GATES
from ._call import (
    NO_VIEW,
    PACKED,
    STEP,
    Call,
    Shape,
    Tensor,
    address,
    contiguous,
    dense,
    new_like,
    state_shape,
    view,
)

_SAVED = {"rnn_tanh": 0, "rnn_relu": 0, "lstm": 4, "gru": 4}  # vectors per unit on a tape
_PAD = 16  # kPad of tasks.h
_ALIGN = 64  # kAlign of memory.h
_making = threading.Lock()


class Kernel:
    """The recurrent kernels for one shape of network, with a cache of its packed weights.

    The cache follows the contents of the weights it is called with. Copies and pickles start with
    an empty one. Threads may share a kernel.
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        bidirectional: bool,
        proj_size: int,
    ) -> None:
        self.config = (cell, input_size, hidden_size, num_layers, bias, bidirectional, proj_size)
        self.is_lstm = cell == "lstm"
        directions = 2 if bidirectional else 1
        self.parts = num_layers * directions
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = proj_size or hidden_size
        self.width = directions * self.output_size
        self.shapes = self._weight_shapes()
        self._native: _core.Follower | None = None

    @property
    def native(self) -> _core.Follower:
        """The core's part, made at the first use: shapes may be symbolic where nothing is run."""
        if self._native is None:
            with _making:
                if self._native is None:
                    self._native = _core.Follower(*self.config)
        return self._native

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.config

    def __deepcopy__(self, memo: Any) -> Kernel:
        return type(self)(*self.config)

    @property
    def packings(self) -> int:
        """How often weights have been packed."""
        return int(self.native.packings)

    def _weight_shapes(self) -> list[Shape]:
        cell, inputs, hidden, layers, bias, _, proj = self.config
        rows = GATES[cell] * hidden
        shapes: list[Shape] = []
        for layer in range(layers):
            one: list[Shape] = [(rows, self.width if layer else inputs), (rows, self.output_size)]
            one += [(rows,), (rows,)] if bias else []
            one += [(proj, hidden)] if proj else []
            shapes += one * (self.parts // layers)
        return shapes

    def state_shape(self, batch: Any, layout: int, size: int) -> tuple[Any, ...]:
        """The shape of h or c, of `size` features."""
        return state_shape(self.parts, batch, layout, size)

    def new_state(self, x: Tensor, batch: int, layout: int, size: int) -> Tensor:
        """Memory for h or c, of `size` features."""
        return x.new_empty(*state_shape(self.parts, batch, layout, size))

    def reserve_bytes(self, steps: Any, batch: Any, rows: Any, dropout: float, item: int) -> Any:
        """Bytes of a tape of `rows` live rows: at least those that the core lays out."""
        cell, _, hidden, layers, _, _, proj = self.config
        pitch = (hidden + _PAD - 1) // _PAD * _PAD
        per_row = (_SAVED[cell] + self.is_lstm + (proj > 0)) * pitch
        per_batch = self.output_size + self.is_lstm * pitch
        inner = (layers - 1) * (2 if dropout > 0 else 1)
        values = self.parts * (rows * per_row + batch * per_batch)
        values += inner * steps * batch * self.width
        return values * item + _ALIGN * (5 * self.parts + inner)

    def forward(
        self,
        x: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        weights: Sequence[Tensor],
        call: Call,
        keep: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, _core.Lease | None]:
        """Return y, hn, cn, and with `keep` the tape and a lease of the packed weights.

        hn is None for a single step (it is y), cn but for LSTM. The lease is for one pass back.
        """
        layout = call.layout
        x = dense(x, layout)
        steps, batch = call.sizes(x)
        y = new_like(x, self.width)
        hn = None if layout == STEP else self.new_state(x, batch, layout, self.output_size)
        cn = self.new_state(x, batch, layout, self.hidden_size) if self.is_lstm else None
        reserve, size = None, 0
        if keep:
            rows = x.shape[0] if layout == PACKED else steps * batch
            size = self.reserve_bytes(steps, batch, rows, call.dropout, x.element_size())
            reserve = x.new_empty(size, dtype=torch.uint8)
        h0 = None if h0 is None else h0.contiguous()
        c0 = None if c0 is None else c0.contiguous()
        weights = contiguous(weights)
        states = address(h0), address(c0), address(y if hn is None else hn), address(cn)
        arguments = _native_call(x, y, steps, batch, weights, call)
        lease = self.native.forward(arguments, states, address(reserve), size)
        return y, hn, cn, reserve, lease

    def backward(
        self,
        x: Tensor,
        y: Tensor,
        reserve: Tensor,
        weights: Sequence[Tensor],
        call: Call,
        upstream: Sequence[Tensor | None],
        wanted: Sequence[bool],
        lease: _core.Lease | None = None,
    ) -> list[Tensor | None]:
        """Return the gradients of x, h0, c0 and every weight.

        Args:
            x, weights, call: those of the pass forward; y, reserve, lease: what it returned.
                Without the lease the weights are fingerprinted again.
            upstream: the gradients of y, hn and cn, or None.
            wanted: of x, h0, c0, and of the weights together; the others are None.
        """
        layout = call.layout
        x = dense(x, layout)
        steps, batch = call.sizes(x)
        dx = new_like(x, self.input_size) if wanted[0] else None
        dh0 = self.new_state(x, batch, layout, self.output_size) if wanted[1] else None
        dc0 = self.new_state(x, batch, layout, self.hidden_size) if wanted[2] else None
        grads = [x.new_empty(*shape) for shape in self.shapes] if wanted[3] else []
        dy, dh, dc = upstream
        dy = None if dy is None else dense(dy, layout)
        dh = None if dh is None else dh.contiguous()
        dc = None if dc is None else dc.contiguous()
        read = () if lease else contiguous(weights)
        given = NO_VIEW if dy is None else view(dy, layout), address(dh), address(dc)
        results = (
            NO_VIEW if dx is None else view(dx, layout),
            address(dh0),
            address(dc0),
            tuple([g.data_ptr() for g in grads]),
        )
        arguments = _native_call(x, y, steps, batch, read, call)
        self.native.backward(arguments, given, results, reserve.data_ptr(), reserve.shape[0], lease)
        return [dx, dh0, dc0, *(grads or [None] * len(weights))]


def _native_call(
    x: Tensor, y: Tensor, steps: int, batch: int, weights: Sequence[Tensor], call: Call
) -> tuple[Any, ...]:
    """The call that `_core.Follower` describes."""
    layout, _, dropout, batch_sizes, seed = call
    return (
        x.dtype is torch.float64,
        tuple([w.data_ptr() for w in weights]),
        steps,
        batch,
        0 if batch_sizes is None else batch_sizes.data_ptr(),
        view(x, layout),
        view(y, layout),
        dropout,
        0 if seed is None else int(seed),
        _threads.default or torch.get_num_threads(),
    )
