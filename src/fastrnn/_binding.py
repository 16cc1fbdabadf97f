"""The arrays of a call, as a caller has them and as the native network takes them.

Only calls that take a closer look come here: the core itself reads those that are plain.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from . import _core
from ._arguments import (
    Array,
    Shape,
    as_array,
    as_contiguous,
    as_indices,
    as_lengths,
    shape_error,
    show_shape,
)
from ._spec import Spec

# x, h0, c0, lengths, y, hn, cn: what a native call forward takes
_Forward: TypeAlias = tuple[
    Array, Array | None, Array | None, Array | None, Array, Array, Array | None
]
# dy, dh, dc, dx, dh0, dc0, the gradients of the weights: what one back takes
_Backward: TypeAlias = tuple[
    Array | None, Array | None, Array | None, Array | None, Array, Array | None, list[Array]
]
# T, B, whether there is a batch axis, whether it is the first: how the arrays of a call lie. (Not a
# NamedTuple: making one takes 0.3 us.)
_Axes: TypeAlias = tuple[int, int, bool, bool]
_PARTS = {"state": ("h0", "c0"), "dstate": ("dh", "dc")}


class Binding:
    """Checks the arrays of calls of one network, and allocates those of their results."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        # Plain attributes: a property costs more than the check it feeds, on every call.
        self._dtype = spec.dtype
        self._has_c = spec.has_c
        self._input_size = spec.input_size
        self._rows = spec.rows
        self._h_size = spec.output_size
        self._c_size = spec.hidden_size
        self._y_size = spec.directions * spec.output_size

    def forward(
        self, x: Any, state: Any, lengths: Any, batch_first: bool
    ) -> tuple[Array, Any, _Forward]:
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

    def backward(
        self, tape: _core.Tape, dy: Any, dstate: Any, input_grad: bool
    ) -> tuple[tuple[Array | None, Any, list[Array]], _Backward]:
        """Check the arguments, allocate the results, which come first, then the native arrays.

        The results: dx, None without `input_grad`, the gradient of the initial state, those of the
        weights.
        """
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
        grads = [_core.empty(shape, self._dtype) for shape in self._spec.shapes().values()]
        return (dx, state, grads), (dy, dh, dc, dx_native, dh0, dc0, grads)

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


def _axes_hint(batch_first: bool) -> str:
    return f"did you mean batch_first={not batch_first}?"
