"""The one autograd function above both ways into the core, and the choice between them."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.autograd import forward_ad

from . import _composed
from ._call import STEP, Call, Tensor
from ._kernel import Kernel, has_memory

_keeps_graph = torch._C._autograd._get_current_graph_task_keep_graph
_is_executed = torch._C._will_engine_execute_node
_FUNCTIONALIZE = torch._C._functorch.TransformType.Functionalize
_is_batched = torch._C._functorch.is_batchedtensor
_is_batched_once = torch._C._functorch.is_legacy_batchedtensor


# Multiplications of a weight_hh from which on a pass back asks whether anybody wants gradients of
# weights: they take half a millisecond then. torch throws where autograd.grad wants that of a leaf,
# which takes 30 us (Zen 4); backward() is answered in one.
_LONG = 1 << 24


class Recurrent(torch.autograd.Function):
    """Autograd of whole sequences: forward keeps a tape in a tensor, backward walks it back.

    `kernel` is a Kernel, or calls one through the operators.
    """

    @staticmethod
    def forward(
        ctx: Any,
        kernel: Any,
        call: Call,
        x: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        *weights: Tensor,
    ) -> tuple[Tensor | None, ...]:
        """Return y, hn, cn; None as in Kernel.forward."""
        y, hn, cn, reserve, lease = kernel.forward(x, h0, c0, weights, call, True)
        ctx.set_materialize_grads(False)
        # The caller may overwrite a cell's h, unless backward reads it; second derivatives read h0
        # and c0. Saving the last three makes a change of them an error, too.
        read = y if kernel.reads_step or call.layout != STEP else None
        ctx.save_for_backward(
            x, read, reserve, h0, c0, *weights, call.batch_sizes, call.seed, call.lengths
        )
        ctx.call = kernel, call, lease
        return y, hn, cn

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        """Return the gradients in the order of forward's arguments, for those of its results."""
        if upstream[0] is None and upstream[1] is None and upstream[2] is None:
            return (None,) * len(ctx.needs_input_grad)  # as torch's layers
        kernel, call, lease = ctx.call
        if lease and not _keeps_graph():
            # y may outlive its graph, and the next forward is to pack in place.
            ctx.call = kernel, call, None
        x, y, reserve, h0, c0, *weights, batch_sizes, seed, lengths = ctx.saved_tensors
        if batch_sizes is not None or seed is not None or lengths is not None:
            # Checkpointing may have computed forward again, with another seed.
            call = Call(call.layout, call.batch, call.dropout, batch_sizes, seed, lengths)
        needs = ctx.needs_input_grad
        if torch.is_grad_enabled() or _beyond(kernel, upstream):  # the first: with create_graph
            inputs = (x, h0, c0, *weights)
            config = kernel.config_for(weights)
            grads = _composed.gradients(config, call, inputs, upstream, needs[2:])
        else:
            states = needs[2:5]
            wanted = (*states, True in needs[5:])
            # (Operators are recorded with shapes that may be symbols.)
            if wanted[3] and True in states and isinstance(kernel, Kernel) and _is_long(x, weights):
                wanted = (*states, _wants_weights(ctx, len(weights)))
            grads = kernel.backward(x, y, reserve, weights, call, upstream, wanted, lease)
        return (None, None, *grads)


def _is_long(x: Tensor, weights: Any) -> bool:
    """Whether the gradients of weights take longer than to ask who wants them."""
    rows = x.numel() // x.shape[-1]
    return bool(rows * weights[1].numel() >= _LONG)


def _wants_weights(ctx: Any, count: int) -> bool:
    """Whether this backward pass is to reach a weight: `needs_input_grad` does not know.

    torch.autograd.grad may ask for the gradient of the input alone (attributions, attacks).
    """
    for node, _ in ctx.next_functions[-count:]:
        try:
            if node is not None and _is_executed(node):
                return True
        except RuntimeError:  # a leaf of which autograd.grad wants the gradient itself
            return True
    return False


# Function.apply without its look for functorch, which costs 3 us and which `observed` has done.
_apply = super(torch.autograd.Function, Recurrent).apply


def _beyond(kernel: Any, upstream: tuple[Tensor | None, ...]) -> bool:
    """Whether one of these is many gradients, as vmap and is_grads_batched pass them, or of a class
    without its own storage; where operators run, they have to support that."""
    for dy in upstream:
        if dy is None:
            continue
        if _is_batched(dy) or _is_batched_once(dy):
            return True
        if type(dy) is not torch.Tensor and isinstance(kernel, Kernel) and not has_memory(dy):
            return True
    return False


def differentiable(x: Tensor, h0: Tensor | None, c0: Tensor | None, weights: Any) -> bool:
    """Whether a gradient may be asked for, so that a tape has to be kept."""
    if not torch.is_grad_enabled():
        return False
    if x.requires_grad or (h0 is not None and h0.requires_grad):
        return True
    if c0 is not None and c0.requires_grad:
        return True
    for w in weights:  # noqa: SIM110 (a generator takes twice the time)
        if w.requires_grad:
            return True
    return False


def observed(x: Tensor) -> bool:
    """Whether operations on x are recorded: then only operators may touch it."""
    return recording() or (type(x) is not torch.Tensor and type(x) is not torch.nn.Parameter)


def recording() -> bool:
    """Whether operations are recorded, whatever the class of the tensors."""
    return bool(
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
        or forward_ad._current_level >= 0
    )


def transformed() -> bool:
    """Whether torch.func (but for functionalize) or forward mode looks into what is computed.

    Neither can look into our kernels. (Inside torch.compile the operators refuse.)
    """
    if torch.compiler.is_compiling():
        return False
    if forward_ad._current_level >= 0:
        return True
    levels = torch._C._functorch.get_interpreter_stack() or ()
    return any(level.key() != _FUNCTIONALIZE for level in levels)


def for_onnx() -> bool:
    """Whether an export to ONNX runs, which knows no operators but torch's."""
    return "torch.onnx" in sys.modules and bool(torch.onnx.is_in_onnx_export())


def exporting() -> bool:
    """Whether an export to ONNX records this. (What torch.compile records cannot ask.)"""
    return recording() and not torch.compiler.is_dynamo_compiling() and for_onnx()


def taken_apart() -> bool:
    """Whether only torch's own code will do, because what it computes is looked into."""
    return recording() and (transformed() or exporting())


def direct(
    kernel: Kernel,
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: list[Tensor],
    call: Call,
) -> Any:
    """y, hn, cn of checked arguments that are not observed, directly from the core."""
    if not differentiable(x, h0, c0, weights):
        return kernel.forward(x, h0, c0, weights, call, False)[:3]
    try:
        return _apply(kernel, call, x, h0, c0, *weights)
    except RuntimeError:
        if not any(t is not None and t.is_inference() for t in (x, h0, c0)):
            raise
    # Autograd cannot save what was made in inference mode. torch's layers copy some of it, too.
    given = (t if t is None or not t.is_inference() else t.clone() for t in (x, h0, c0))
    return _apply(kernel, call, *given, *weights)
