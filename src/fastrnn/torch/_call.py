"""How the tensors of a call lie: layouts and sizes."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

Tensor: TypeAlias = Any  # torch.Tensor; torch's types are not at hand where this is checked
Shape: TypeAlias = tuple[int, ...]

# How the axes of an input lie: [T, B, I]; [B, T, I]; [T, I]; [B, I], a single step; [rows, I] of a
# PackedSequence.
TIME, BATCH, UNBATCHED, STEP, PACKED = range(5)


class Call(NamedTuple):
    """What a forward pass and its backward pass share, except differentiable tensors."""

    layout: int
    batch: Any  # B of a packed input, -1: batch_sizes[0]; the shape of others says it
    dropout: float  # no default: torch.compile would take it for a symbol
    batch_sizes: Tensor | None = None  # int64 [T] of a packed input
    seed: Tensor | None = None  # int64 [1], from which the masks of dropout follow
    lengths: Tensor | None = None  # int64 [B] of a padded batch, each in 0..T; None: all T

    def with_seed(self, dropout: float, seed: Tensor) -> Call:
        """The same call with dropout. (torch.compile of 2.6 does not know _replace.)"""
        return Call(self.layout, self.batch, dropout, self.batch_sizes, seed, self.lengths)

    def sizes(self, x: Tensor) -> tuple[Any, Any]:
        """T and B of an input."""
        layout = self.layout
        if layout == TIME:
            steps, batch, _ = x.shape
        elif layout == BATCH:
            batch, steps, _ = x.shape
        elif layout == UNBATCHED:
            steps, batch = x.shape[0], 1
        elif layout == STEP:
            steps, batch = 1, x.shape[0]
        else:
            assert self.batch_sizes is not None
            steps, batch = self.batch_sizes.shape[0], self.batch
        return steps, batch


def axes_of(layout: int) -> int:
    """How many axes an input has."""
    return 3 if layout in (TIME, BATCH) else 2


def state_shape(sweeps: int, batch: Any, layout: int, size: int) -> tuple[Any, ...]:
    """The shape of h or c of `size` features, with `sweeps` = L * D."""
    if layout == STEP:
        return batch, size
    return (sweeps, size) if layout == UNBATCHED else (sweeps, batch, size)
