"""What the operators check: whoever calls them brings any tensors. Modules have checked theirs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ._call import BATCH, PACKED, STEP, TIME, UNBATCHED, Call, Shape, Tensor
from ._kernel import Kernel

_DIMS = {TIME: 3, BATCH: 3, UNBATCHED: 2, STEP: 2, PACKED: 2}


def check_forward(
    kernel: Kernel,
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    call: Call,
) -> None:
    """Raise ValueError or TypeError, naming the argument, where `Kernel.forward` could go wrong."""
    layout, batch_sizes = call.layout, call.batch_sizes
    dims = _DIMS.get(layout)
    if dims is None:
        raise ValueError(f"layout: expected 0 to 4, got {layout}")
    input_size = kernel.config[1]
    if x.dim() != dims or x.shape[-1] != input_size:
        got = list(x.shape)
        raise ValueError(f"input: expected {dims} axes, the last {input_size}, got {got}")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"input: expected torch.float32 or torch.float64, got {x.dtype}")
    if (layout == PACKED) != (batch_sizes is not None):
        raise ValueError("batch_sizes: expected with layout 4 (packed), and only then")
    if batch_sizes is not None:
        _check("batch_sizes", batch_sizes, (batch_sizes.numel(),), torch.int64)
        if not batch_sizes.is_contiguous() or call.batch < 1:
            raise ValueError("batch_sizes: expected a contiguous tensor, and batch >= 1")
    _, rows = call.sizes(x)
    if h0 is not None:
        _check("h0", h0, kernel.state_shape(rows, layout, kernel.output_size), x.dtype)
    if c0 is not None:
        _check("c0", c0, kernel.state_shape(rows, layout, kernel.hidden_size), x.dtype)
    if not 0 <= call.dropout <= 1:
        raise ValueError(f"dropout: expected a number from 0 to 1, got {call.dropout}")
    if call.dropout > 0:
        if call.seed is None:
            raise ValueError("seed: expected an int64 tensor with dropout > 0, got None")
        _check("seed", call.seed, (1,), torch.int64)
    if len(weights) != len(kernel.shapes):
        raise ValueError(f"weights: expected {len(kernel.shapes)}, got {len(weights)}")
    for i, (weight, shape) in enumerate(zip(weights, kernel.shapes, strict=True)):
        _check(f"weights[{i}]", weight, shape, x.dtype)


def check_backward(
    kernel: Kernel,
    x: Tensor,
    y: Tensor,
    weights: Sequence[Tensor],
    call: Call,
    upstream: Sequence[Tensor | None],
) -> None:
    """Raise ValueError or TypeError, naming the argument, where `Kernel.backward` could."""
    check_forward(kernel, x, None, None, weights, call)
    _, rows = call.sizes(x)
    outputs = (*x.shape[:-1], kernel.width)
    _check("output", y, outputs, x.dtype)
    if y.numel() and not y.is_contiguous():
        raise ValueError("output: expected the contiguous tensor that the forward operator gave")
    shapes = (
        outputs,
        kernel.state_shape(rows, call.layout, kernel.output_size),
        kernel.state_shape(rows, call.layout, kernel.hidden_size),
    )
    for name, tensor, shape in zip(("dy", "dh", "dc"), upstream, shapes, strict=True):
        if tensor is not None:
            _check(name, tensor, shape, x.dtype)


def _check(name: str, tensor: Tensor, shape: Shape, dtype: torch.dtype) -> None:
    if tensor.dtype != dtype:
        raise TypeError(f"{name}: expected dtype {dtype}, got {tensor.dtype}")
    if tensor.shape != shape:
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(tensor.shape)}")
    if not tensor.is_cpu:
        raise ValueError(f"{name}: expected a tensor of the CPU, got one on {tensor.device}")
