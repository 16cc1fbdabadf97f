"""How the tensors of a call lie: layouts, sizes, addresses."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

Tensor: TypeAlias = Any  # torch.Tensor; torch's types are not at hand where this is checked
Shape: TypeAlias = tuple[int, ...]

# How the axes of an input lie: [T, B, I]; [B, T, I]; [T, I]; [B, I], a single step; [rows, I] of a
# PackedSequence.
TIME, BATCH, UNBATCHED, STEP, PACKED = range(5)

NO_VIEW = (0, 0, 0)


class Call(NamedTuple):
    """What a pass forward and the one back have in common, but for differentiable tensors."""

    layout: int
    batch: Any  # B of a packed input; the shape of others says it
    dropout: float = 0.0
    batch_sizes: Tensor | None = None  # int64 [T] of a packed input
    seed: Tensor | None = None  # int64 [1], from which the masks of dropout follow

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


def state_shape(parts: int, batch: Any, layout: int, size: int) -> tuple[Any, ...]:
    """The shape of h or c of `size` features, with `parts` = L * D."""
    if layout == STEP:
        return batch, size
    return (parts, size) if layout == UNBATCHED else (parts, batch, size)


def new_like(x: Tensor, width: int) -> Tensor:
    """A dense tensor laid out like a sequence, of `width` features."""
    shape = x.shape
    if len(shape) == 3:  # sizes one by one: a tuple of them takes half a microsecond more
        return x.new_empty(shape[0], shape[1], width)
    return x.new_empty(shape[0], width)


def view(x: Tensor, layout: int) -> tuple[int, int, int]:
    """Address, elements from step to step, from row to row; of packed rows, how many there are."""
    if layout == PACKED:
        return x.data_ptr(), x.shape[0], 0
    strides = x.stride()
    if layout == TIME:
        return x.data_ptr(), strides[0], strides[1]
    if layout == BATCH:
        return x.data_ptr(), strides[1], strides[0]
    if layout == UNBATCHED:
        return x.data_ptr(), strides[0], 0
    return x.data_ptr(), 0, strides[0]


def address(x: Tensor | None) -> int:
    """Where a tensor's numbers lie; 0 of None."""
    return 0 if x is None else x.data_ptr()


def dense(x: Tensor, layout: int) -> Tensor:
    """The same values where the core can read them: dense features, packed rows without gaps."""
    if layout == PACKED or (x.stride(-1) != 1 and x.shape[-1] != 1):
        return x.contiguous()
    return x


def contiguous(tensors: Any) -> Any:
    """The same tensors, each of them contiguous."""
    for t in tensors:
        if not t.is_contiguous():
            return [t.contiguous() for t in tensors]
    return tensors
