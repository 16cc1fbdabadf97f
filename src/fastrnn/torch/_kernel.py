"""The native core for one shape of network, as tensors see it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from .. import _core, _threads
from .._spec import CELLS, Spec
from ._call import Call, Tensor, state_shape

_core.use_tensors(torch.Tensor, True)

_lock = threading.Lock()


def is_exact(value: Any) -> bool:
    """Whether this is not a tensor, or one that the core takes: it refuses other subclasses."""
    return not isinstance(value, torch.Tensor) or type(value) in (torch.Tensor, torch.nn.Parameter)


def exact_tensor(value: Any) -> Any:
    """The same tensor without a class of its own."""
    if is_exact(value):
        return value
    with torch._C.DisableTorchFunctionSubclass():
        return value.as_subclass(torch.Tensor)


def has_memory(value: Any) -> bool:
    """Whether this is not a tensor, or one with its own storage."""
    if is_exact(value):
        return True
    with torch._C.DisableTorchFunctionSubclass():
        try:
            return bool(value.numel() == 0 or value.data_ptr() != 0)
        except RuntimeError:
            return False


class Kernel:
    """The recurrent kernels for one shape of network, with a cache of its packed weights.

    The cache follows the contents of the weights it is called with. Copies start with an empty one.
    Threads may share a kernel.
    """

    native: _core.Follower

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
        # Whether backward reads h of a single step: cells that save their gates do not.
        self.reads_step = CELLS[cell].saved == 0
        dtype: Any = None  # that of the tensors
        spec = Spec(
            cell, dtype, input_size, hidden_size, num_layers, bias, bidirectional, proj_size
        )
        # Read from it once: a property costs a call at each use.
        self.has_c = spec.has_c
        self.sweeps = spec.rows
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = spec.output_size
        self.width = spec.directions * spec.output_size
        self.shapes = list(spec.shapes().values())
        self._fixed: tuple[_core.Fixed, ...] = ()  # the last one counts

    def __getattr__(self, name: str) -> Any:
        if name != "native":
            raise AttributeError(name)
        with _lock:  # at the first use: shapes may be symbolic where nothing is run
            return self.__dict__.setdefault("native", _core.Follower(*self.config))

    def __reduce__(self) -> tuple[Any, ...]:  # for copy.deepcopy of a parametrized module
        return type(self), self.config

    def config_for(self, weights: Sequence[Tensor]) -> tuple[Any, ...]:
        """The arguments that it was made of. (Operators find theirs from the weights.)"""
        return self.config

    @property
    def packings(self) -> int:
        """How often weights have been packed."""
        return int(self.native.packings)

    def fix(self, weights: Sequence[Tensor]) -> _core.Fixed:
        """Take these weights, in calls without a tape, to be what they are now, until `release`."""
        fixed = self.native.fix(weights, _num_threads())
        with _lock:
            self._fixed = (*self._fixed, fixed)
        return fixed

    def release(self, fixed: _core.Fixed) -> None:
        """End one `fix`, in any order."""
        with _lock:
            self._fixed = tuple(other for other in self._fixed if other is not fixed)

    def state_shape(self, batch: Any, layout: int, size: int) -> tuple[Any, ...]:
        """The shape of h or c, of `size` features."""
        return state_shape(self.sweeps, batch, layout, size)

    def reserve_size(self, steps: Any, batch: Any, rows: Any, dropout: float, item: int) -> Any:
        """Elements, of `item` bytes, of the tape of `rows` live rows; as the core lays it out."""
        cell, _, hidden, layers, _, _, proj = self.config
        pad, per_line = _core.pad, _core.align // item

        def lines(size: Any) -> Any:
            return (size + per_line - 1) // per_line * per_line

        pitch = (hidden + pad - 1) // pad * pad
        per_row = (CELLS[cell].saved + self.has_c + (proj > 0)) * pitch
        cells = batch * pitch if self.has_c else 0  # no product with a bool: may be symbolic
        per_sweep = rows * per_row + cells + lines(batch * self.output_size)
        inner = (layers - 1) * (2 if dropout > 0 else 1)
        return self.sweeps * per_sweep + inner * lines(steps * batch * self.width)

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

        hn is None for a single step (it is y), cn except for LSTM. The lease is for one backward
        pass; it is None where nothing was packed: both passes of a single step may read `weights`.

        Raises:
            TypeError, ValueError: a tensor is not what the kernels take; the message names it.
            RuntimeError: out of memory.
        """
        held = self._fixed
        fixed = held[-1] if held else None
        try:
            return self.native.forward(x, h0, c0, weights, call, _num_threads(), keep, fixed)
        except MemoryError as error:
            raise _out_of_memory(error) from None

    def backward(
        self,
        x: Tensor,
        y: Tensor | None,
        reserve: Tensor,
        weights: Sequence[Tensor],
        call: Call,
        upstream: tuple[Tensor | None, ...],
        wanted: tuple[bool, ...],
        lease: _core.Lease | None = None,
    ) -> list[Tensor | None]:
        """Return the gradients of x, h0, c0 and every weight.

        Args:
            x, weights, call: those of the forward pass; y, reserve, lease: what it returned.
                Without the lease the weights are read, or fingerprinted, again. y may be None for a
                single step, unless `reads_step`.
            upstream: the gradients of y, hn and cn, or None.
            wanted: of x, h0, c0, and of the weights together; the others are None.

        Raises:
            TypeError, ValueError, RuntimeError: as for forward.
        """
        try:
            return self.native.backward(
                x, y, reserve, weights, call, _num_threads(), upstream, wanted, lease
            )
        except MemoryError as error:
            raise _out_of_memory(error) from None
        except TypeError:
            given = (x, y, reserve, *weights, *upstream, *call)
            if all(map(is_exact, given)):
                raise
        # A gradient, or what a hook of saved tensors returned, may be a subclass.
        x, y, reserve = map(exact_tensor, (x, y, reserve))
        weights, upstream = list(map(exact_tensor, weights)), tuple(map(exact_tensor, upstream))
        call = Call(*map(exact_tensor, call))
        return self.backward(x, y, reserve, weights, call, upstream, wanted, lease)


def _out_of_memory(error: MemoryError) -> RuntimeError:
    """As torch says it: tools that look for the largest batch ask for its error by these words."""
    return RuntimeError(f"DefaultCPUAllocator: can't allocate memory: {error}")


def _num_threads() -> int:
    return _threads.default or torch.get_num_threads()
