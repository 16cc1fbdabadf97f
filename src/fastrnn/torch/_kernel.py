"""From tensors to the native core and back: allocates results, passes addresses, copies nothing."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from .. import _core, _threads
from .._spec import GATES

Tensor: TypeAlias = Any  # torch.Tensor; torch's types are not at hand where this is checked
Shape: TypeAlias = tuple[int, ...]

# How the axes of an input lie: [T, B, I]; [B, T, I]; [T, I]; [B, I], a single step; [rows, I] of a
# PackedSequence.
TIME, BATCH, UNBATCHED, STEP, PACKED = range(5)

_SAVED = {"rnn_tanh": 0, "rnn_relu": 0, "lstm": 4, "gru": 4}  # vectors per unit on a tape
_PAD = 16  # kPad of tasks.h
_ALIGN = 64  # kAlign of memory.h
_NO_VIEW = (0, 0, 0)
_making = threading.Lock()


def state_shape(parts: int, batch: Any, layout: int, size: int) -> tuple[Any, ...]:
    """The shape of h or c of `size` features, with `parts` = L * D."""
    if layout == STEP:
        return batch, size
    return (parts, size) if layout == UNBATCHED else (parts, batch, size)


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

    def check(
        self,
        x: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        batch_sizes: Tensor | None,
        batch: int,
        layout: int,
        dropout: float,
        seed: Tensor | None,
        weights: Sequence[Tensor],
    ) -> None:
        """Raise ValueError or TypeError, naming the argument, where `forward` could go wrong."""
        dims = {TIME: 3, BATCH: 3, UNBATCHED: 2, STEP: 2, PACKED: 2}.get(layout)
        if dims is None:
            raise ValueError(f"layout: expected 0 to 4, got {layout}")
        if x.dim() != dims or x.shape[-1] != self.config[1]:
            got = list(x.shape)
            raise ValueError(f"input: expected {dims} axes, the last {self.config[1]}, got {got}")
        if x.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"input: expected torch.float32 or torch.float64, got {x.dtype}")
        if (layout == PACKED) != (batch_sizes is not None):
            raise ValueError("batch_sizes: expected with layout 4 (packed), and only then")
        if batch_sizes is not None:
            _check("batch_sizes", batch_sizes, (batch_sizes.numel(),), torch.int64)
            if not batch_sizes.is_contiguous() or batch < 1:
                raise ValueError("batch_sizes: expected a contiguous tensor, and batch >= 1")
        _, rows = self.sizes(x, layout, batch_sizes, batch)
        if h0 is not None:
            _check("h0", h0, self.state_shape(rows, layout, self.output_size), x.dtype)
        if c0 is not None:
            _check("c0", c0, self.state_shape(rows, layout, self.hidden_size), x.dtype)
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout: expected a number from 0 to 1, got {dropout}")
        if dropout > 0:
            if seed is None:
                raise ValueError("seed: expected an int64 tensor with dropout > 0, got None")
            _check("seed", seed, (1,), torch.int64)
        if len(weights) != len(self.shapes):
            raise ValueError(f"weights: expected {len(self.shapes)}, got {len(weights)}")
        for i, (weight, shape) in enumerate(zip(weights, self.shapes, strict=True)):
            _check(f"weights[{i}]", weight, shape, x.dtype)

    def check_gradients(
        self,
        x: Tensor,
        y: Tensor,
        batch_sizes: Tensor | None,
        batch: int,
        layout: int,
        dy: Tensor | None,
        dh: Tensor | None,
        dc: Tensor | None,
    ) -> None:
        """Raise ValueError or TypeError, naming the argument, where `backward` could go wrong."""
        _, rows = self.sizes(x, layout, batch_sizes, batch)
        state = self.state_shape(rows, layout, self.output_size)
        cell = self.state_shape(rows, layout, self.hidden_size)
        outputs = (*x.shape[:-1], self.width)
        _check("output", y, outputs, x.dtype)
        if y.numel() and not (y.is_contiguous()):
            raise ValueError(
                "output: expected the contiguous tensor that the forward operator gave"
            )
        for name, tensor, shape in (("dy", dy, outputs), ("dh", dh, state), ("dc", dc, cell)):
            if tensor is not None:
                _check(name, tensor, shape, x.dtype)

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

    def sizes(
        self, x: Tensor, layout: int, batch_sizes: Tensor | None, batch: Any
    ) -> tuple[Any, Any]:
        """T and B of an input; `batch` is the B of a packed one."""
        if layout == TIME:
            return x.shape[0], x.shape[1]
        if layout == BATCH:
            return x.shape[1], x.shape[0]
        if layout == UNBATCHED:
            return x.shape[0], 1
        if layout == STEP:
            return 1, x.shape[0]
        assert batch_sizes is not None
        return batch_sizes.shape[0], batch

    def state_shape(self, batch: Any, layout: int, size: int) -> tuple[Any, ...]:
        """The shape of h or c, of `size` features."""
        return state_shape(self.parts, batch, layout, size)

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
        batch_sizes: Tensor | None,
        batch: int,
        layout: int,
        dropout: float,
        seed: Tensor | None,
        weights: Sequence[Tensor],
        keep: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, _core.Lease | None]:
        """Return y, hn, cn, the tape and a lease of the packed weights for one pass back.

        hn is None for a single step (it is y), cn but for LSTM.
        """
        x = _dense(x, layout)
        steps, batch = self.sizes(x, layout, batch_sizes, batch)
        y = x.new_empty(*x.shape[:-1], self.width)
        hn = cn = reserve = None
        if layout != STEP:
            hn = x.new_empty(*self.state_shape(batch, layout, self.output_size))
        if self.is_lstm:
            cn = x.new_empty(*self.state_shape(batch, layout, self.hidden_size))
        address, size = 0, 0
        if keep:
            rows = x.shape[0] if layout == PACKED else steps * batch
            size = self.reserve_bytes(steps, batch, rows, dropout, x.element_size())
            reserve = x.new_empty(size, dtype=torch.uint8)
            address = reserve.data_ptr()
        h0 = None if h0 is None else h0.contiguous()
        c0 = None if c0 is None else c0.contiguous()
        weights = _contiguous(weights)
        call = _call(x, y, batch_sizes, layout, steps, batch, dropout, seed, weights)
        states = (
            0 if h0 is None else h0.data_ptr(),
            0 if c0 is None else c0.data_ptr(),
            (y if hn is None else hn).data_ptr(),
            0 if cn is None else cn.data_ptr(),
        )
        lease = self.native.forward(call, states, address, size)
        return y, hn, cn, reserve, lease

    def backward(
        self,
        x: Tensor,
        y: Tensor,
        reserve: Tensor,
        batch_sizes: Tensor | None,
        batch: int,
        layout: int,
        dropout: float,
        seed: Tensor | None,
        weights: Sequence[Tensor],
        dy: Tensor | None,
        dh: Tensor | None,
        dc: Tensor | None,
        wanted: Sequence[bool],
        lease: _core.Lease | None = None,
    ) -> list[Tensor | None]:
        """Return the gradients of x, h0, c0 and every weight; None where not wanted.

        Without the lease of the pass forward, the weights are fingerprinted again.
        """
        x = _dense(x, layout)
        steps, batch = self.sizes(x, layout, batch_sizes, batch)
        dx = torch.empty_like(x, memory_format=torch.contiguous_format) if wanted[0] else None
        dh0 = dc0 = None
        if wanted[1]:
            dh0 = x.new_empty(*self.state_shape(batch, layout, self.output_size))
        if wanted[2]:
            dc0 = x.new_empty(*self.state_shape(batch, layout, self.hidden_size))
        grads = [x.new_empty(*shape) for shape in self.shapes] if wanted[3] else []
        dy = None if dy is None else _dense(dy, layout)
        dh = None if dh is None else dh.contiguous()
        dc = None if dc is None else dc.contiguous()
        read = () if lease else _contiguous(weights)
        call = _call(x, y, batch_sizes, layout, steps, batch, dropout, seed, read)
        upstream = (
            _NO_VIEW if dy is None else _view(dy, layout),
            0 if dh is None else dh.data_ptr(),
            0 if dc is None else dc.data_ptr(),
        )
        results = (
            _NO_VIEW if dx is None else _view(dx, layout),
            0 if dh0 is None else dh0.data_ptr(),
            0 if dc0 is None else dc0.data_ptr(),
            tuple([g.data_ptr() for g in grads]),
        )
        self.native.backward(call, upstream, results, reserve.data_ptr(), reserve.shape[0], lease)
        return [dx, dh0, dc0, *(grads or [None] * len(weights))]


def _check(name: str, tensor: Tensor, shape: Shape, dtype: Any) -> None:
    if tensor.dtype != dtype:
        raise TypeError(f"{name}: expected dtype {dtype}, got {tensor.dtype}")
    if tensor.shape != shape:
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(tensor.shape)}")
    if not tensor.is_cpu:
        raise ValueError(f"{name}: expected a tensor of the CPU, got one on {tensor.device}")


def _call(
    x: Tensor,
    y: Tensor,
    batch_sizes: Tensor | None,
    layout: int,
    steps: int,
    batch: int,
    dropout: float,
    seed: Tensor | None,
    weights: Sequence[Tensor],
) -> tuple[Any, ...]:
    return (
        x.dtype is torch.float64,
        tuple([w.data_ptr() for w in weights]),
        steps,
        batch,
        0 if batch_sizes is None else batch_sizes.data_ptr(),
        _view(x, layout),
        _view(y, layout),
        dropout,
        0 if seed is None else int(seed),
        _threads.default or torch.get_num_threads(),
    )


def _view(x: Tensor, layout: int) -> tuple[int, int, int]:
    """Address, elements from step to step, from row to row; of packed rows, how many there are."""
    strides = x.stride()
    if layout == TIME:
        return x.data_ptr(), strides[0], strides[1]
    if layout == BATCH:
        return x.data_ptr(), strides[1], strides[0]
    if layout == UNBATCHED:
        return x.data_ptr(), strides[0], 0
    if layout == STEP:
        return x.data_ptr(), 0, strides[0]
    return x.data_ptr(), x.shape[0], 0


def _dense(x: Tensor, layout: int) -> Tensor:
    """The same values where the core can read them: dense features, packed rows without gaps."""
    if layout == PACKED or (x.stride(-1) != 1 and x.shape[-1] != 1):
        return x.contiguous()
    return x


def _contiguous(weights: Sequence[Tensor]) -> Sequence[Tensor]:
    for w in weights:
        if not w.is_contiguous():
            return [w.contiguous() for w in weights]
    return weights
