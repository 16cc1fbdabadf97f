"""Binds checked arguments to the native network: shared by the layers and `fastrnn.functional`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from . import _core
from ._arguments import (
    Array,
    Shape,
    as_array,
    as_contiguous,
    as_flag,
    as_indices,
    as_lengths,
    shape_error,
    show_shape,
)
from ._packing import Packing
from ._spec import Spec
from ._tape import Gradients, Tape

# x, h0, c0, lengths, y, hn, cn: the arrays of a native call
_Native: TypeAlias = tuple[
    Array, Array | None, Array | None, Array | None, Array, Array, Array | None
]
# T, B, whether there is a batch axis, whether it is the first: how the arrays of a call lie. (Not a
# NamedTuple: making one takes 0.3 us.)
_Axes: TypeAlias = tuple[int, int, bool, bool]
_PARTS = {"state": ("h0", "c0"), "dstate": ("dh", "dc")}

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
        # Plain attributes: a property costs more than the check it feeds, on every call.
        self._names = tuple(spec.shapes())
        self._dtype = spec.dtype
        self._has_c = spec.has_c
        self._input_size = spec.input_size
        self._rows = spec.rows
        self._h_size = spec.output_size
        self._c_size = spec.hidden_size
        self._y_size = spec.directions * spec.output_size

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
        y, final, arrays = self._bind(x, state, lengths, batch_first)
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
        y, final, arrays = self._bind(x, state, lengths, batch_first)
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
                norms = np.empty((self._rows, native.steps, native.batch))
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
        axes = tape.steps, tape.batch, tape.batched, tape.batch_first
        steps, batch, batched, batch_first = axes
        if dy is not None:
            dy = self._time_major(as_array("dy", dy, self._dtype), axes)
        dh, dc = self._bind_state("dstate", dstate, axes)
        if dy is None and dh is None and dc is None:
            raise ValueError("dy, dstate: expected a gradient for at least one, got None for both")
        dx = dx_native = None
        if input_grad and batch_first:
            dx = _core.empty((batch, steps, self._input_size), self._dtype)
            dx_native = dx.transpose(1, 0, 2)
        elif input_grad:
            dx_native = _core.empty((steps, batch, self._input_size), self._dtype)
            dx = dx_native if batched else dx_native.reshape(steps, self._input_size)
        state, dh0, dc0 = self._new_state(batch, batched)
        grads = [_core.empty(shape, self._dtype) for shape in self.spec.shapes().values()]
        native.backward(tape, dy, dh, dc, dx_native, dh0, dc0, grads, threads, norms)
        return dx, state, grads

    def _bind(
        self, x: Any, state: Any, lengths: Any, batch_first: bool
    ) -> tuple[Array, Any, _Native]:
        """Check the arguments, allocate the results: y, final state, the native call's arrays."""
        x = as_array("x", x, self._dtype)
        shape = x.shape
        batched = len(shape) == 3
        if not (batched or len(shape) == 2) or shape[-1] != self._input_size:
            raise self._x_error(shape, batch_first)
        if not batched:
            x = x[:, None, :]
        elif batch_first:
            x = x.transpose(1, 0, 2)
        steps, batch, _ = x.shape
        rows_first = batched and batch_first
        axes = steps, batch, batched, rows_first
        h0 = c0 = None
        if state is not None:
            h0, c0 = self._bind_state("state", state, axes)
        if lengths is not None:
            lengths = self._bind_lengths(lengths, axes)
        if rows_first:
            y = _core.empty((batch, steps, self._y_size), self._dtype)
            y_native = y.transpose(1, 0, 2)
        else:
            y_native = _core.empty((steps, batch, self._y_size), self._dtype)
            y = y_native if batched else y_native.reshape(steps, self._y_size)
        final, hn, cn = self._new_state(batch, batched)
        return y, final, (x, h0, c0, lengths, y_native, hn, cn)

    def _new_state(self, batch: int, batched: bool) -> tuple[Any, Array, Array | None]:
        """Allocate a state: as the caller gets it, then the native h and c, [L*D, B, size] each."""
        h = _core.empty((self._rows, batch, self._h_size), self._dtype)
        if not self._has_c:
            return (h if batched else h.reshape(self._rows, self._h_size)), h, None
        c = _core.empty((self._rows, batch, self._c_size), self._dtype)
        if batched:
            return (h, c), h, c
        pair = h.reshape(self._rows, self._h_size), c.reshape(self._rows, self._c_size)
        return pair, h, c

    def _bind_state(self, what: str, value: Any, axes: _Axes) -> tuple[Array | None, Array | None]:
        """Check a state (or its gradient) and return the native h and c; parts may be None."""
        if value is None:
            return None, None
        names = _PARTS[what]
        if not self._has_c:
            if isinstance(value, (tuple, list)):
                got = type(value).__name__
                raise TypeError(f"{names[0]}: expected one array, got {got}; only LSTM has a pair")
            return self._bind_part(names[0], value, self._h_size, axes), None
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            got = type(value).__name__
            if isinstance(value, (tuple, list)):
                got += f" of {len(value)}"
            raise TypeError(f"{what}: expected a pair ({', '.join(names)}), got {got}")
        h, c = value
        return (
            self._bind_part(names[0], h, self._h_size, axes),
            self._bind_part(names[1], c, self._c_size, axes),
        )

    def _bind_part(self, name: str, value: Any, size: int, axes: _Axes) -> Array | None:
        """Check one array of a state and return it as [L*D, B, size]."""
        if value is None:
            return None
        part = as_contiguous(name, value, self._dtype)
        _, batch, batched, _ = axes
        if batched:
            if part.shape == (self._rows, batch, size):
                return part
        elif part.shape == (self._rows, size):
            return part.reshape(self._rows, 1, size)
        raise self._state_error(name, part.shape, size, axes)

    def _bind_lengths(self, value: Any, axes: _Axes) -> Array:
        steps, batch, batched, batch_first = axes
        lengths = as_indices("lengths", value)
        if not batched and lengths.ndim == 0:
            lengths = lengths.reshape(1)
        swapped = batched and steps != batch and lengths.shape == (steps,)
        return as_lengths(lengths, steps, batch, _axes_hint(batch_first) if swapped else "")

    def _time_major(self, dy: Array, axes: _Axes) -> Array:
        """Check dy against y's shape and return it as [T, B, D*P]."""
        steps, batch, batched, batch_first = axes
        expected: Shape = (steps, batch, self._y_size)
        if not batched:
            expected = (steps, self._y_size)
        elif batch_first:
            expected = (batch, steps, self._y_size)
        if dy.shape != expected:
            raise shape_error("dy", f"{show_shape(expected)} (the shape of y)", dy.shape)
        if not batched:
            return dy[:, None, :]
        return dy.transpose(1, 0, 2) if batch_first else dy

    def _state_error(self, name: str, shape: Shape, size: int, axes: _Axes) -> ValueError:
        rows, (steps, batch, batched, batch_first) = self._rows, axes
        hint = ""
        if batched and shape == (rows, size):
            hint = f"x has a batch axis: try {name}[:, None, :]"
        elif batched and shape == (batch, rows, size):
            hint = "the batch axis of a state is its second, with batch_first=True too"
        elif batched and shape == (rows, steps, size):
            hint = _axes_hint(batch_first)
        elif not batched and shape == (rows, 1, size):
            hint = f"x has no batch axis: try {name}[:, 0]"
        expected = show_shape((rows, batch, size) if batched else (rows, size))
        kind = "proj_size" if size < self._c_size else "hidden_size"
        sizes = f"(num_layers * directions = {rows}" + (f", B = {batch}" if batched else "")
        return shape_error(name, f"{expected} {sizes}, {kind} = {size})", shape, hint)

    def _x_error(self, shape: Shape, batch_first: bool) -> ValueError:
        size = self._input_size
        axes = "B, T" if batch_first else "T, B"
        hint = ""
        if len(shape) == 1 and shape[0] == size:
            hint = "a single step is x[None, :]; to carry memory along, see stream()"
        elif len(shape) in (2, 3) and size in shape[:-1]:
            hint = "features are the last axis"
        elif len(shape) > 3:
            hint = "more than one batch axis: reshape to one"
        forms = {2: f"[T, {size}]", 3: f"[{axes}, {size}]"}
        expected = forms.get(len(shape), f"{forms[3]} or {forms[2]}")
        return shape_error("x", f"{expected} (input_size={size})", shape, hint)


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


def _axes_hint(batch_first: bool) -> str:
    return f"did you mean batch_first={not batch_first}?"
