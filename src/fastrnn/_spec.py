"""What a recurrent network looks like: cell, sizes, and the names and shapes of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import _core
from ._arguments import MOST_SIZE, Shape, as_dtype, as_flag, as_size


class Cell(NamedTuple):
    """What the core's file of a cell says of it."""

    gates: int  # of the weights
    saved: int  # vectors per unit on a tape
    has_c: bool  # whether the state is a pair (h, c)


CELLS = {name: Cell(*facts) for name, facts in _core.cells().items()}


@dataclass(frozen=True)
class Spec:
    """The immutable shape of a stack of recurrent layers, weights under torch's names."""

    cell: str  # one of CELLS
    dtype: np.dtype[Any]
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    bidirectional: bool = False
    proj_size: int = 0

    @property
    def has_c(self) -> bool:
        """Whether the state is a pair (h, c)."""
        return CELLS[self.cell].has_c

    @property
    def directions(self) -> int:
        """1, or 2 when bidirectional."""
        return 2 if self.bidirectional else 1

    @property
    def rows(self) -> int:
        """First axis of every state: num_layers * directions."""
        return self.num_layers * self.directions

    @property
    def output_size(self) -> int:
        """P: the size of h, proj_size where there is a projection."""
        return self.proj_size or self.hidden_size

    def shapes(self) -> dict[str, Shape]:
        """Return every weight's name and shape in torch's order, which is the order of packing."""
        gates, size = CELLS[self.cell].gates * self.hidden_size, self.output_size
        shapes: dict[str, Shape] = {}
        for layer in range(self.num_layers):
            width = self.input_size if layer == 0 else self.directions * size
            for direction in ("", "_reverse")[: self.directions]:
                end = f"_l{layer}{direction}"
                shapes[f"weight_ih{end}"] = (gates, width)
                shapes[f"weight_hh{end}"] = (gates, size)
                if self.bias:
                    shapes[f"bias_ih{end}"] = shapes[f"bias_hh{end}"] = (gates,)
                if self.proj_size:
                    shapes[f"weight_hr{end}"] = (size, self.hidden_size)
        return shapes

    def network(self) -> _core.Network:
        """Make a native network of this shape, without weights yet."""
        return _core.Network(
            self.cell,
            self.dtype.name,
            self.input_size,
            self.hidden_size,
            self.num_layers,
            self.bias,
            self.bidirectional,
            self.proj_size,
        )


def checked_spec(
    cell: str,
    dtype: Any,
    input_size: Any,
    hidden_size: Any,
    num_layers: Any,
    bias: Any,
    bidirectional: Any,
    proj_size: Any,
) -> Spec:
    """Make a `Spec` of a caller's options, or raise TypeError or ValueError."""
    spec = Spec(
        cell,
        as_dtype(dtype),
        as_size("input_size", input_size, 1, MOST_SIZE),
        as_size("hidden_size", hidden_size, 1, MOST_SIZE),
        as_size("num_layers", num_layers, 1, MOST_SIZE),
        as_flag("bias", bias),
        as_flag("bidirectional", bidirectional),
        as_size("proj_size", proj_size, 0, MOST_SIZE),
    )
    if spec.proj_size >= spec.hidden_size:
        raise ValueError(
            f"proj_size: expected an integer < hidden_size = {spec.hidden_size} (0: none), "
            f"got {spec.proj_size}"
        )
    return spec
