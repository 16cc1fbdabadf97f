"""What `forward` keeps and what `backward` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import numpy as np

from ._arguments import Array, show_shape
from ._packing import Lease

S = TypeVar("S")  # one array, a pair of them for LSTM, None for Linear


@dataclass(frozen=True, eq=False)  # arrays make neither one truth value nor a hash
class Gradients(Generic[S]):
    """Gradients of a loss. Two are equal if they are the same object.

    Attributes:
        input: with respect to x, in x's shape; None where `backward` had `input_grad=False`.
        state: with respect to the initial state: one array, a pair for LSTM, None for Linear.
        weights: with respect to every weight, a dict by torch's names.
        step_norms: how large the gradient is at each layer, step and row, float64 [L * D, T, B]
            with the time and the batch as x has them, by `backward` with `step_norms=True`; else
            None.
    """

    input: Array | None
    state: S
    weights: dict[str, Array]
    step_norms: Array | None = None

    def __repr__(self) -> str:
        """Names and shapes, not values."""
        weights = ", ".join(f"{name}={_shapes(w)}" for name, w in self.weights.items())
        norms = "" if self.step_norms is None else f", step_norms={_shapes(self.step_norms)}"
        return (
            f"Gradients(input={_shapes(self.input)}, state={_shapes(self.state)}, "
            f"weights={{{weights}}}{norms})"
        )


def _shapes(value: Any) -> str:
    """Return the shape of an array, those of a pair, or None."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_shapes, value))})"
    return "None" if value is None else show_shape(np.shape(value))


class Tape:
    """What one `forward` keeps for BPTT; good for any number of `backward` calls.

    It refers to x and y instead of copying them (change neither before `backward`) and belongs to
    the layer that made it, as long as that layer's weights stand still.
    """

    __slots__ = ("lease", "native", "owner")

    def __init__(self, native: Any, owner: object, lease: Lease[Any]) -> None:
        self.native = native
        self.owner = owner
        self.lease = lease  # the weights it was made with

    @property
    def nbytes(self) -> int:
        """Bytes kept beyond x and y."""
        return int(self.native.nbytes)

    def check(self, owner: object, version: int) -> None:
        """Raise ValueError unless this tape belongs to `owner` with weights of `version`.

        To be asked before `backward` and after it, with the edits that have begun: one that began
        meanwhile may have written to weights that were being read.
        """
        if self.owner is not owner:
            raise ValueError("tape: expected a tape of this layer, got one of another layer")
        if self.lease.version != version:
            raise ValueError(
                "tape: expected a tape of the present weights, got one made before they changed; "
                "call forward again"
            )

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Tape can be neither copied nor pickled; call forward again")
