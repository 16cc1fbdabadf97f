"""The layers' equations in torch's own operators, for derivatives that the kernels do not have.

Some ten operators a step: slow, but differentiable any number of times, and under vmap. Backward
uses them for gradients that are to be differentiated again, and for many gradients at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.nn.functional import linear
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from .. import _core
from .._spec import CELLS
from ._call import BATCH, PACKED, STEP, UNBATCHED, Call, Tensor

# W x + b of a step, h, c, [weight_hh, bias_hh] -> h, c; each a row for each of the batch
_Step: TypeAlias = Callable[[Tensor, Tensor, Tensor, Sequence[Tensor]], tuple[Tensor, Tensor]]


def gradients(
    config: tuple[Any, ...],
    call: Call,
    inputs: Sequence[Tensor | None],
    upstream: Sequence[Tensor | None],
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """Return the gradients of x, h0, c0 and the weights, differentiable where grad mode is on.

    Args:
        config: a Kernel's.
        inputs: x, h0, c0 and the weights of the pass forward, with their history.
        upstream: the gradients of y, hn and cn, or None.
        needs: which of the inputs' gradients are wanted; the others are None.
    """
    create_graph = torch.is_grad_enabled()
    with torch.autocast("cpu", enabled=False):  # the caller's; forward has none either
        with torch.enable_grad():
            # Views: h0 may come from x, whose gradient must not have a part that went through h0.
            views = [None if t is None else t.view_as(t) for t in inputs]
            x, h0, c0, *weights = views
            results = _forward(config, call, x, h0, c0, weights)
        pairs = [
            (result, dy)
            for result, dy in zip(results, upstream, strict=True)
            if result is not None and dy is not None
        ]
        found = iter(
            torch.autograd.grad(
                [result for result, _ in pairs],
                [view for view, need in zip(views, needs, strict=True) if need],
                [dy for _, dy in pairs],
                create_graph=create_graph,
                materialize_grads=True,
            )
        )
    return [next(found) if need else None for need in needs]


def _forward(
    config: tuple[Any, ...],
    call: Call,
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: list[Tensor],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """y, hn and cn as Kernel.forward returns them."""
    cell, _, hidden, layers, bias, bidirectional, proj = config
    x, alive = _time_major(x, call)
    batch = x.shape[1]
    sweeps, each = layers * (1 + bidirectional), 2 + 2 * bias + (proj > 0)
    h = _by_sweep(h0, x, (sweeps, batch, proj or hidden))
    c = _by_sweep(c0, x, (sweeps, batch, hidden))
    for layer in range(layers):
        if layer and call.dropout > 0:
            x = x * _mask(x, call, layer - 1)
        outputs = []
        for i in range(layer * sweeps // layers, (layer + 1) * sweeps // layers):
            cell_weights = _CellWeights(bias, proj > 0, weights[i * each : (i + 1) * each])
            reverse = bidirectional and i % 2 == 1
            y, h[i], c[i] = _sweep(_STEPS[cell], x, alive, h[i], c[i], cell_weights, reverse)
            outputs.append(y)
        x = torch.cat(outputs, -1)
    hn, cn = _stacked(h, call), _stacked(c, call) if CELLS[cell].has_c else None
    return _laid_out(x, call), None if call.layout == STEP else hn, cn


class _CellWeights:
    """Those of one direction of one layer."""

    def __init__(self, bias: bool, projects: bool, weights: list[Tensor]) -> None:
        biases: list[Any] = weights[2:4] if bias else [None, None]
        self.weight_ih, self.weight_hh = weights[:2]
        self.bias_ih, self.bias_hh = biases
        self.weight_hr = weights[-1] if projects else None


def _sweep(
    step: _Step,
    x: Tensor,
    alive: Tensor | None,
    h: Tensor,
    c: Tensor,
    w: _CellWeights,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction of one layer: y [T, B, P], and the last h and c of each row."""
    # All steps at once by unbind: the gradient of gates[t] would be T times as large as itself.
    gates = linear(x, w.weight_ih, w.bias_ih).unbind()
    y: list[Any] = [None] * len(gates)
    for t in range(len(gates))[:: -1 if reverse else 1]:
        # A row that has ended steps from zeros: its overflow would reach gradients as 0 * NaN.
        old_h = h if alive is None else torch.where(alive[t], h, 0)
        old_c = c if alive is None else torch.where(alive[t], c, 0)
        new_h, new_c = step(gates[t], old_h, old_c, (w.weight_hh, w.bias_hh))
        if w.weight_hr is not None:
            new_h = linear(new_h, w.weight_hr)
        if alive is None:
            y[t], h, c = new_h, new_h, new_c
        else:
            y[t] = torch.where(alive[t], new_h, 0)
            h, c = torch.where(alive[t], new_h, h), torch.where(alive[t], new_c, c)
    return torch.stack(y), h, c


def _lstm(a: Tensor, h: Tensor, c: Tensor, u: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    i, f, g, o = (a + linear(h, *u)).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru(a: Tensor, h: Tensor, c: Tensor, u: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    a_r, a_z, a_n = a.chunk(3, -1)
    b_r, b_z, b_n = linear(h, *u).chunk(3, -1)
    r, z = (a_r + b_r).sigmoid(), (a_z + b_z).sigmoid()
    n = (a_n + r * b_n).tanh()
    return n + z * (h - n), c


def _rnn_tanh(a: Tensor, h: Tensor, c: Tensor, u: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    return (a + linear(h, *u)).tanh(), c


def _rnn_relu(a: Tensor, h: Tensor, c: Tensor, u: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    return (a + linear(h, *u)).relu(), c


_STEPS: dict[str, _Step] = {
    "lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn_tanh, "rnn_relu": _rnn_relu
}  # fmt: skip


def _time_major(x: Tensor, call: Call) -> tuple[Tensor, Tensor | None]:
    """The input as [T, B, I], and [T, B, 1], which of its rows are alive; None: all are."""
    layout, lengths = call.layout, call.lengths
    if layout == PACKED:
        x, lengths = pad_packed_sequence(PackedSequence(x, call.batch_sizes))
    elif layout == BATCH:
        x = x.transpose(0, 1)
    elif layout == UNBATCHED:
        x = x[:, None]
    elif layout == STEP:
        x = x[None]
    if lengths is None:
        return x, None
    times = torch.arange(x.shape[0], device=lengths.device)
    alive = (times[:, None] < lengths)[..., None]
    return torch.where(alive, x, 0), alive  # NaN behind an end would reach gradients as 0 * NaN


def _laid_out(y: Tensor, call: Call) -> Tensor:
    """The output [T, B, D * P] as the input lay."""
    layout = call.layout
    if layout == PACKED:
        assert call.batch_sizes is not None
        sizes = call.batch_sizes.tolist()
        return torch.cat([rows[:n] for rows, n in zip(y.unbind(), sizes, strict=True)])
    if layout == BATCH:
        return y.transpose(0, 1)
    if layout == UNBATCHED:
        return y[:, 0]
    return y[0] if layout == STEP else y


def _by_sweep(state: Tensor | None, x: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
    """A state, however it lies, as [B, size] for each direction of each layer."""
    return list((x.new_zeros(shape) if state is None else state.reshape(shape)).unbind())


def _stacked(states: list[Tensor], call: Call) -> Tensor:
    """The reverse of that."""
    if call.layout == STEP:
        return states[0]
    return torch.cat(states) if call.layout == UNBATCHED else torch.stack(states)


def _mask(x: Tensor, call: Call, layer: int) -> Tensor:
    """What dropout multiplies the outputs [T, B, D * P] of a layer with."""
    assert call.seed is not None
    dtype = np.dtype(np.float64 if x.dtype is torch.float64 else np.float32)
    key = call.seed.item() % 2**64
    return torch.from_numpy(_core.dropout_mask(x.numel(), dtype, call.dropout, key, layer)).view(
        x.shape
    )
