"""Runs the native network: shared by the layers and `fastrnn.functional`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from . import _core
from ._arguments import Array, Shape, as_flag
from ._binding import Binding
from ._packing import Packing
from ._spec import Spec
from ._tape import Gradients, Tape

# Gives the dropout of a call and the 64-bit key of its masks, once the arguments have been checked:
# a call that is refused leaves the generator where it was.
Masks: TypeAlias = Callable[[], tuple[float, int]]
_NO_MASKS = (0.0, 0)


def warn_of_dropout(dropout: float, num_layers: int, stacklevel: int) -> None:
    """Warn of a dropout that has nothing to act on; `stacklevel` 2 is the caller's line."""
    if dropout > 0.0 and num_layers == 1:
        warnings.warn(
            f"dropout acts between layers: dropout={dropout:g} does nothing with num_layers=1",
            stacklevel=stacklevel + 1,
        )


class Engine:
    """A network's shape, its weights and their packed form."""

    def __init__(self, spec: Spec, weights: Sequence[Array]) -> None:
        self.spec = spec
        arrays = list(weights)
        self.packing = Packing(
            spec.network,
            partial(_pack, arrays),
            lambda network: network.freeze(),
            partial(_take, arrays),
        )
        self._names = tuple(spec.shapes())
        self._binding = Binding(spec)

    def run(
        self,
        x: Any,
        state: Any,
        lengths: Any,
        batch_first: bool,
        masks: Masks | None,
        threads: int,
    ) -> tuple[Array, Any]:
        """Return y and the final state."""
        plain = once = lengths is None and masks is None
        while True:
            lease = self.packing.acquire(threads, x, batch_first, once)
            try:
                results = None
                if plain:
                    results = lease.native.plain_call(x, state, batch_first, threads)
                if results is None:
                    call = x, state, lengths, batch_first, masks, threads
                    results = self._run(lease.native, *call)
            finally:
                lease.users.pop()
            if not lease.taken or self.packing.begun == lease.version:
                return results
            once = False  # the weights have changed meanwhile

    def _run(
        self,
        native: _core.Network,
        x: Any,
        state: Any,
        lengths: Any,
        batch_first: bool,
        masks: Masks | None,
        threads: int,
    ) -> tuple[Array, Any]:
        """Check and allocate here: y, the final state."""
        y, final, arrays = self._binding.forward(x, state, lengths, batch_first)
        dropout, key = masks() if masks else _NO_MASKS
        native.run(*arrays, dropout, key, threads)
        return y, final

    def forward(
        self,
        x: Any,
        state: Any,
        lengths: Any,
        batch_first: bool,
        masks: Masks | None,
        threads: int,
    ) -> tuple[Array, Any, Tape]:
        """Return y (read-only: the tape refers to it), the final state and the tape."""
        plain = once = lengths is None and masks is None
        while True:
            lease = self.packing.acquire(threads, x, batch_first, once)
            try:
                results = None
                if plain:
                    results = lease.native.plain_forward(x, state, batch_first, threads)
                if results is None:
                    call = x, state, lengths, batch_first, masks, threads
                    results = self._forward(lease.native, *call)
            finally:
                lease.users.pop()
            if not lease.taken or self.packing.begun == lease.version:
                y, final, record = results
                return y, final, Tape(record, self, lease)
            once = False  # the weights have changed meanwhile

    def _forward(
        self,
        native: _core.Network,
        x: Any,
        state: Any,
        lengths: Any,
        batch_first: bool,
        masks: Masks | None,
        threads: int,
    ) -> tuple[Array, Any, _core.Tape]:
        """Check and allocate here: y, the final state, the native tape."""
        y, final, arrays = self._binding.forward(x, state, lengths, batch_first)
        dropout, key = masks() if masks else _NO_MASKS
        record = native.forward(*arrays, dropout, key, threads, y.ndim == 3, batch_first)
        for array in (arrays[4], y):  # what is a view, too
            array.flags.writeable = False
        return y, final, record

    def backward(
        self,
        tape: Tape,
        dy: Any,
        dstate: Any,
        input_grad: bool,
        step_norms: bool,
        threads: int,
    ) -> Gradients[Any]:
        """Return the gradients for those of the output, of the final state, or both."""
        if not isinstance(tape, Tape):
            raise TypeError(f"tape: expected a Tape from forward, got {type(tape).__name__}")
        if input_grad is not True:
            input_grad = as_flag("input_grad", input_grad)
        step_norms = step_norms is not False and as_flag("step_norms", step_norms)
        native, norms = tape.native, None
        lease = tape.lease
        lease.users.append(None)  # first, as in Packing.acquire
        try:
            tape.check(self, self.packing.begun)
            if step_norms:
                norms = np.empty((self.spec.rows, native.steps, native.batch))
            call = native, dy, dstate, threads, input_grad, norms
            results = lease.native.plain_backward(*call) or self._backward(lease.native, *call)
        finally:
            lease.users.pop()
        tape.check(self, self.packing.begun)
        dx, state, grads = results
        if norms is not None and not native.batched:
            norms = norms[:, :, 0]
        elif norms is not None and native.batch_first:
            norms = norms.transpose(0, 2, 1)
        return Gradients(dx, state, dict(zip(self._names, grads, strict=True)), norms)

    def _backward(
        self,
        native: _core.Network,
        tape: _core.Tape,
        dy: Any,
        dstate: Any,
        threads: int,
        input_grad: bool,
        norms: Array | None,
    ) -> tuple[Array | None, Any, list[Array]]:
        """Check and allocate here: dx, the gradient of the initial state, those of the weights."""
        results, arrays = self._binding.backward(tape, dy, dstate, input_grad)
        native.backward(tape, *arrays, threads, norms)
        return results


def _pack(
    weights: list[Array], network: Any, threads: int = 1, x: Any = None, batch_first: bool = False
) -> None:
    """Pack by the threads that a pass over x takes, which nobody has looked at yet."""
    network.pack(weights, threads, *_sizes(x, batch_first))


def _take(weights: list[Array], network: Any, x: Any, batch_first: bool) -> bool:
    """Let a pass over x read the weights where they lie, if it is a single step."""
    return isinstance(x, np.ndarray) and bool(network.take(weights, *_sizes(x, batch_first)))


def _sizes(x: Any, batch_first: bool) -> tuple[int, int]:
    """T and B, as far as the shape tells."""
    shape: Shape = x.shape if isinstance(x, np.ndarray) else ()
    if len(shape) == 3:
        return (shape[1], shape[0]) if batch_first else (shape[0], shape[1])
    return (shape[0] if len(shape) == 2 else 1), 1
