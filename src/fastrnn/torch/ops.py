"""The operators `torch.ops.fastrnn.*`, for what records a model: torch.compile, torch.export,
tracing, dispatch modes, functorch.

`recurrent` runs a stack of layers over whole sequences and can be differentiated; below autograd it
becomes `recurrent_train`, which keeps a tape, and `recurrent_backward`. Arguments:

* input, floating point: [T, B, I] (layout 0), [B, T, I] (1), [T, I] (2), one step
  [B, I] of one layer in one direction (3), or the data [rows, I] of a PackedSequence (4) with its
  batch_sizes [T], int64, and batch = B, the first of them, or only on the CPU -1: as they say.
* lengths, int64 [B], of a padded batch (layouts 0 and 1): row b has lengths[b] <= T steps, its
  output is zero after them. None: all have T.
* h0, c0: initial states [L * D, B, P] and [L * D, B, H], or None for zeros; without the batch axis
  in layout 2, without the first in layout 3.
* weights: in the order of `torch.nn.RNNBase`, of the input's dtype.
* cell: rnn_tanh, rnn_relu, lstm or gru; num_layers, bias, bidirectional as in torch.
* dropout, between layers, and seed, an int64 tensor of one element, from which its masks follow.

They return the output, in the input's layout, the final h and the final c, shaped like the initial
ones; empty where there is none (c without an LSTM, h of a single step, whose output it is).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from ._autograd import Recurrent, differentiable, for_onnx
from ._cache import config_of, kernel_for
from ._call import PACKED, STEP, Call, Tensor
from ._kernel import Kernel, exact_tensor, is_exact

_ARGUMENTS = (
    "Tensor input, Tensor? h0, Tensor? c0, Tensor? batch_sizes, SymInt batch, Tensor? lengths, "
    "int layout, float dropout, Tensor? seed, Tensor[] weights, str cell, int num_layers, "
    "bool bias, bool bidirectional"
)
_BACKWARD = (
    "Tensor input, Tensor output, Tensor reserve, Tensor? batch_sizes, SymInt batch, "
    "Tensor? lengths, int layout, float dropout, Tensor? seed, Tensor[] weights, Tensor? dy, "
    "Tensor? dh, Tensor? dc, bool[] wanted, str cell, int num_layers, bool bias, "
    "bool bidirectional"
)
_library = torch.library.Library("fastrnn", "DEF")
for _signature in (
    f"recurrent({_ARGUMENTS}) -> (Tensor, Tensor, Tensor)",
    f"recurrent_train({_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor)",
    f"recurrent_backward({_BACKWARD}) -> Tensor[]",
):
    _library.define(_signature, tags=(torch.Tag.pt2_compliant_tag,))


def _present(x: Tensor, value: Tensor | None) -> Tensor:
    """Operators cannot return None: an empty tensor in its place."""
    return x.new_empty(0) if value is None else value


def _absent(value: Tensor) -> Tensor | None:
    return None if value.dim() == 1 and value.shape[0] == 0 else value


def recurrent(
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: list[Tensor],
    call: Call,
    config: tuple[Any, ...],
) -> tuple[Tensor, ...]:
    """Call the operator with what a module has found; `config` is that of its Kernel."""
    cell, _, _, num_layers, bias, bidirectional, _ = config
    options = cell, num_layers, bias, bidirectional
    if call.layout == PACKED and torch._C._get_tracing_state() is not None:
        # torch.jit.trace would keep the number of this recording.
        call = Call(PACKED, -1, call.dropout, call.batch_sizes, call.seed)
    results: tuple[Tensor, ...] = torch.ops.fastrnn.recurrent.default(
        x, h0, c0, *_flat(call), weights, *options
    )
    return results


def _flat(call: Call) -> tuple[Any, ...]:
    """A call in the order of the operators' arguments."""
    return call.batch_sizes, call.batch, call.lengths, call.layout, call.dropout, call.seed


def _split(arguments: tuple[Any, ...]) -> tuple[Call, tuple[Any, ...]]:
    """A call from such arguments, and what follows them."""
    batch_sizes, batch, lengths, layout, dropout, seed, *rest = arguments
    return Call(layout, batch, dropout, batch_sizes, seed, lengths), tuple(rest)


def _of_each(wanted: Any, weights: Any) -> list[bool]:
    """Which gradients are wanted: of x, h0, c0 and each weight, for which `wanted` has one."""
    return [*wanted[:3], *[wanted[3]] * len(weights)]


# ---- on the CPU


def _forward(
    keep: bool, x: Tensor, h0: Tensor | None, c0: Tensor | None, *arguments: Any
) -> tuple[Tensor, ...]:
    call, (weights, *options) = _split(arguments)
    try:
        kernel = kernel_for(weights, *options)
        y, hn, cn, reserve, _ = kernel.forward(x, h0, c0, weights, call, keep)
    except TypeError:
        given = (x, h0, c0, *weights, *arguments)
        if all(map(is_exact, given)):
            raise
    else:
        results = y, _present(x, hn), _present(x, cn)
        return (*results, reserve) if keep else results
    x, h0, c0, *weights = map(exact_tensor, (x, h0, c0, *weights))
    return _forward(keep, x, h0, c0, *map(exact_tensor, _flat(call)), weights, *options)


def _backward(x: Tensor, y: Tensor, reserve: Tensor, *arguments: Any) -> list[Tensor]:
    call, (weights, dy, dh, dc, wanted, *options) = _split(arguments)
    kernel = kernel_for(weights, *options)
    grads = kernel.backward(x, y, reserve, weights, call, (dy, dh, dc), tuple(wanted))
    return [_present(x, g) for g in grads]


# ---- only shapes


def _sizes(call: Call, x: Tensor) -> tuple[Any, Any]:
    steps, batch = call.sizes(x)
    if call.layout == PACKED and isinstance(batch, int) and batch < 1:  # not a symbol
        raise ValueError(
            f"batch: expected batch_sizes[0], at least 1: their values are not known, got {batch}"
        )
    return steps, batch


def _fake_forward(
    keep: bool, x: Tensor, h0: Tensor | None, c0: Tensor | None, *arguments: Any
) -> tuple[Tensor, ...]:
    if for_onnx():
        raise NotImplementedError(
            "torch.onnx.export: expected a module, got what torch.export or torch.compile recorded "
            "of one; call fastrnn.torch.restore(model, made=True) before, or pass the module"
        )
    call, (weights, *options) = _split(arguments)
    kernel, layout = Kernel(*config_of(weights, *options)), call.layout
    steps, batch = _sizes(call, x)
    y = x.new_empty((*x.shape[:-1], kernel.width))
    hn = cn = None
    if layout != STEP:
        hn = x.new_empty(kernel.state_shape(batch, layout, kernel.output_size))
    if kernel.has_c:
        cn = x.new_empty(kernel.state_shape(batch, layout, kernel.hidden_size))
    results = y, _present(x, hn), _present(x, cn)
    if not keep:
        return results
    rows = x.shape[0] if layout == PACKED else steps * batch
    size = kernel.reserve_size(steps, batch, rows, call.dropout, x.element_size())
    return (*results, x.new_empty(size))


def _fake_backward(x: Tensor, y: Tensor, reserve: Tensor, *arguments: Any) -> list[Tensor]:
    call, (weights, _, _, _, wanted, *options) = _split(arguments)
    kernel = Kernel(*config_of(weights, *options))
    _, batch = _sizes(call, x)
    shapes = [
        x.shape,
        kernel.state_shape(batch, call.layout, kernel.output_size),
        kernel.state_shape(batch, call.layout, kernel.hidden_size),
        *kernel.shapes,
    ]
    wants = _of_each(wanted, weights)
    return [x.new_empty(shape if want else 0) for shape, want in zip(shapes, wants, strict=True)]


# ---- autograd


class _Operators:
    """A kernel's methods, through the operators."""

    reads_step = True  # the operator's schema wants an output in any case

    def __init__(self, *options: Any) -> None:
        self.options = options

    def config_for(self, weights: list[Tensor]) -> tuple[Any, ...]:
        return config_of(weights, *self.options)

    def forward(
        self, x: Tensor, h0: Any, c0: Any, weights: Any, call: Call, keep: bool
    ) -> tuple[Any, ...]:
        with torch._C._AutoDispatchBelowAutograd():
            y, hn, cn, reserve = torch.ops.fastrnn.recurrent_train.default(
                x, h0, c0, *_flat(call), list(weights), *self.options
            )
        return y, _absent(hn), _absent(cn), reserve, None

    def backward(
        self, x: Tensor, y: Tensor, reserve: Tensor, weights: Any, call: Call, upstream: Any,
        wanted: Any, lease: None,
    ) -> list[Tensor | None]:  # fmt: skip
        grads = torch.ops.fastrnn.recurrent_backward.default(
            x, y, reserve, *_flat(call), list(weights), *upstream, list(wanted), *self.options
        )
        wants = _of_each(wanted, weights)
        return [g if want else None for g, want in zip(grads, wants, strict=True)]


def _autograd(x: Tensor, h0: Tensor | None, c0: Tensor | None, *arguments: Any) -> Any:
    call, (weights, *options) = _split(arguments)
    # In forward mode autograd itself raises its error.
    if forward_ad._current_level >= 0 or differentiable(x, h0, c0, weights):
        y, hn, cn = Recurrent.apply(_Operators(*options), call, x, h0, c0, *weights)
        return y, _present(x, hn), _present(x, cn)
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.fastrnn.recurrent.default(x, h0, c0, *arguments)


_library.impl("recurrent", lambda *a: _forward(False, *a), "CPU")
_library.impl("recurrent_train", lambda *a: _forward(True, *a), "CPU")
_library.impl("recurrent_backward", _backward, "CPU")
_library.impl("recurrent", _autograd, "Autograd")
torch.library.register_fake("fastrnn::recurrent", lambda *a: _fake_forward(False, *a))
torch.library.register_fake("fastrnn::recurrent_train", lambda *a: _fake_forward(True, *a))
torch.library.register_fake("fastrnn::recurrent_backward", _fake_backward)


# ---- multiplications and additions, for FlopCounterMode


def _flops(x: Any, *arguments: Any, out_shape: Any = None) -> Any:
    """Those of the products with weights; all arguments are shapes. Rows count with all T steps."""
    _, (weights, *_) = _split(arguments[2:])
    return 2 * math.prod(x[:-1]) * sum(map(_elements, weights))


def _flops_backward(x: Any, y: Any, reserve: Any, *arguments: Any, out_shape: Any = None) -> Any:
    _, (weights, _, _, _, wanted, _, layers, _, bidirectional) = _split(arguments)
    directions = 2 if bidirectional else 1
    inner = whole = sum(map(_elements, weights))
    if not wanted[0]:  # then no gradient goes through weight_ih of the first layer
        first = weights[:: len(weights) // (layers * directions)][:directions]
        inner -= sum(map(_elements, first))
    return 2 * math.prod(x[:-1]) * (inner + whole * wanted[3])


def _elements(shape: Any) -> Any:
    """Those of a matrix; 0 for a bias."""
    return math.prod(shape) if len(shape) == 2 else 0


_operators = torch.ops.fastrnn
register_flop_formula([_operators.recurrent, _operators.recurrent_train])(_flops)
register_flop_formula(_operators.recurrent_backward)(_flops_backward)
