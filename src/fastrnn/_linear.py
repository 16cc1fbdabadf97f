"""The linear layer: a readout for the recurrent ones."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from . import _core, _threads
from ._arguments import (
    MOST_SIZE,
    Array,
    Shape,
    as_contiguous,
    as_dtype,
    as_flag,
    as_seed,
    as_size,
    as_threads,
    shape_error,
    show_shape,
)
from ._initial import uniform
from ._memory import in_large_pages
from ._module import Module
from ._packing import Lease, Packing
from ._tape import Gradients, Tape


class _Input(NamedTuple):
    """What backward needs: x as [N, I], and the leading axes it came with."""

    x: Array
    leading: Shape

    @property
    def nbytes(self) -> int:
        """Nothing beyond x is kept."""
        return 0


class Linear(Module):
    """y = x W^T + b, with the same promise of equal bits as the recurrent layers.

    One row gives the same bits whatever shares its batch, for any number of threads.

    Args:
        in_features, out_features: integers from 1 to 1,048,576.
        bias: whether there is a bias vector.
        dtype: np.float32 or np.float64, of weights, inputs and results alike.
        seed: integer >= 0 for the initial weights, U(-1/sqrt(I), 1/sqrt(I)) with I = in_features
            as in torch; None draws a fresh one.
        num_threads: threads a call may use at most, 1 to 1,024; None: `fastrnn.get_num_threads()`.

    Weights: weight [out_features, in_features], bias [out_features].

    Raises:
        TypeError: an option of a wrong type.
        ValueError: one with a wrong value.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: Any = np.float32,
        seed: int | None = None,
        num_threads: int | None = None,
    ) -> None:
        self._dtype = as_dtype(dtype)
        self._in = as_size("in_features", in_features, 1, MOST_SIZE)
        self._out = as_size("out_features", out_features, 1, MOST_SIZE)
        self._threads = as_threads("num_threads", num_threads)
        rng, bound = np.random.default_rng(as_seed(seed)), 1.0 / math.sqrt(self._in)
        self._weights = {"weight": uniform((self._out, self._in), bound, self._dtype, rng)}
        if as_flag("bias", bias):
            self._weights["bias"] = uniform((self._out,), bound, self._dtype, rng)
        self._build()

    @staticmethod
    def _shapes(in_features: int, out_features: int, bias: bool) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {"weight": (out_features, in_features)}
        return shapes | ({"bias": (out_features,)} if bias else {})

    @classmethod
    def _of(
        cls, dtype: np.dtype[Any], in_features: int, out_features: int, weights: dict[str, Array]
    ) -> Linear:
        """Make a layer that takes over these arrays as its weights; all is checked already."""
        layer = cls.__new__(cls)
        layer._dtype, layer._in, layer._out = dtype, in_features, out_features
        layer._threads = 0
        layer._weights = weights
        layer._build()
        return layer

    def _architecture(self) -> dict[str, str]:
        sizes = {"in_features": str(self._in), "out_features": str(self._out)}
        return {"cell": "linear", **sizes, "bias": str(self.bias).lower()}

    def _build(self) -> None:
        self._weights["weight"] = weight = in_large_pages(self._weights["weight"])
        bias = self._weights.get("bias")
        sizes = self._dtype.name, self._in, self._out, bias is not None
        self._packing: Packing[_core.Dense] = Packing(
            lambda: _core.Dense(*sizes),
            lambda dense, *_: dense.pack(weight, bias),
            take=lambda dense, x, _: dense.take(weight, bias, len(x)),
        )

    @property
    def in_features(self) -> int:
        """I: the last axis of x."""
        return self._in

    @property
    def out_features(self) -> int:
        """O: the last axis of y."""
        return self._out

    @property
    def bias(self) -> bool:
        """Whether there is a bias vector."""
        return "bias" in self._weights

    def __call__(self, x: Any, *, out: Array | None = None) -> Array:
        """Return y [..., out_features] of x [..., in_features], any number of leading axes.

        Args:
            x: of the layer's dtype: a NumPy array, or what has `__dlpack__` or `__array__`.
            out: the array that y is written into and that is returned: of y's shape, C-contiguous,
                writable, apart from x. For a C-contiguous NumPy array x nothing is allocated then.

        Raises:
            TypeError: another dtype than the layer's, or no array at all.
            ValueError: a wrong last axis; an `out` of another shape, or one that is read-only, has
                gaps or overlaps x.
        """
        lease = self._packing.acquire()
        try:
            return lease.native.call(x, self._threads or _threads.default, out)
        finally:
            lease.users.pop()

    def forward(self, x: Any) -> tuple[Array, Tape]:
        """Run like a call, and keep on a tape what `backward` needs.

        x and its errors are as in a call. The tape refers to x, which must not change
        before `backward`; where x has strides, to a copy.

        Returns:
            y [..., out_features], which may be written to, and the tape.
        """
        y, kept, lease = self._run(x)
        return y, Tape(kept, self, lease)

    def _run(self, x: Any) -> tuple[Array, _Input, Lease[_core.Dense]]:
        x = as_contiguous("x", x, self._dtype)
        if x.ndim == 0 or x.shape[-1] != self._in:
            raise shape_error("x", f"[..., {self._in}] (in_features={self._in})", x.shape)
        flat = x.reshape(-1, self._in)
        y = _core.empty((len(flat), self._out), self._dtype)
        once = True
        while True:
            lease = self._packing.acquire(1, flat, False, once)
            try:
                lease.native.run(flat, y, self._threads or _threads.default)
            finally:
                lease.users.pop()
            if not lease.taken or self._packing.begun == lease.version:
                break
            once = False  # the weights have changed meanwhile
        leading = x.shape[:-1]
        return y.reshape(*leading, self._out), _Input(flat, leading), lease

    def backward(self, tape: Tape, dy: Any, *, input_grad: bool = True) -> Gradients[None]:
        """Return the gradients of a loss, from that of its output.

        Args:
            tape: from `forward` of this layer, with the weights it has now.
            dy: in y's shape.
            input_grad: whether to compute the gradient of x. False for a layer that reads data.

        Returns:
            Gradients with respect to x (.input, None without `input_grad`) and the weights
            (.weights); .state is None.

        Raises:
            TypeError: a wrong dtype; a tape that is none; an `input_grad` that is no bool.
            ValueError: a wrong shape; a tape of another layer, or made before an edit of the
                weights began, be it during this call.
        """
        if not isinstance(tape, Tape):
            raise TypeError(f"tape: expected a Tape from forward, got {type(tape).__name__}")
        tape.check(self, self._packing.begun)
        kept: _Input = tape.native
        dy = as_contiguous("dy", dy, self._dtype)
        if dy.shape != (*kept.leading, self._out):
            expected = show_shape((*kept.leading, self._out))
            raise shape_error("dy", f"{expected} (the shape of y)", dy.shape)
        input_grad = as_flag("input_grad", input_grad)
        dx = _core.empty(kept.x.shape, self._dtype) if input_grad else None
        weights = {name: _core.empty(w.shape, self._dtype) for name, w in self._weights.items()}
        lease = tape.lease
        lease.users.append(None)  # first, as in Packing.acquire
        try:
            tape.check(self, self._packing.begun)
            lease.native.backward(
                kept.x,
                dy.reshape(-1, self._out),
                dx,
                weights["weight"],
                weights.get("bias"),
                self._threads or _threads.default,
            )
        finally:
            lease.users.pop()
        tape.check(self, self._packing.begun)
        if dx is not None:
            dx = dx.reshape(*kept.leading, self._in)
        return Gradients(dx, None, weights)

    def __repr__(self) -> str:
        bias = "" if self.bias else ", bias=False"
        dtype = "" if self._dtype == np.float32 else f", dtype={self._dtype.name!r}"
        threads = f", num_threads={self._threads}" if self._threads else ""
        return f"{type(self).__name__}({self._in}, {self._out}{bias}{dtype}{threads})"
