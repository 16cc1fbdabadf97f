"""`fixed_weights`: a caller's promise that spares inference the look at the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from ._kernel import is_exact
from ._modules import FLOATS, IrregularCallError, kernel_of, names_of
from .cells import _Cell
from .layers import _Layer

__all__ = ["fixed_weights"]


@contextmanager
def fixed_weights(model: torch.nn.Module) -> Iterator[None]:
    """Promise that the weights of a model's recurrent layers stay what they are, for a while.

    ::

        with torch.inference_mode(), fastrnn.torch.fixed_weights(model):
            for frame in frames:
                y, state = model(frame, state)

    Each call of a layer or cell of `fastrnn.torch` finds out whether its weights have changed, or
    multiplies with them where they lie, so that it never computes with old ones. Within this
    context calls without gradients take the copy that was packed when it began, and look at nothing
    but where the weights lie. Results have the same bits. What is spared is most of a single step
    of a large cell; docs/torch.md has figures. It may be nested, entered in several threads, and
    used as a decorator.

    The promise covers contents alone. Other tensors in the weights' place (`functional_call`,
    `load_state_dict(assign=True)`, weights that a parametrization computes anew) are seen, and
    treated as outside. Calls that keep a tape, and operators (`torch.compile`), look as ever.

    Raises:
        TypeError: `model` is not a torch.nn.Module.
        ValueError: it has no layer or cell of `fastrnn.torch` whose weights the kernels take as
            they lie: dense float32 or float64 on the CPU, without gaps. Others are left out.
        RuntimeError: at the end, where nothing else was raised: weights are not what they were. The
            message names them; results since they changed may be those of the old ones.
    """
    modules = list(_modules(model))
    if not modules:
        raise ValueError(
            "model: expected layers or cells of fastrnn.torch, with dense float32 or float64 "
            "weights on the CPU, got none; call fastrnn.torch.accelerate(model) before"
        )
    with ExitStack() as stack:
        held = [_Held(path, module, stack) for path, module in modules]
        yield
    changed = [name for layer in held for name in layer.changed()]
    if changed:
        raise RuntimeError(
            f"fixed_weights: {', '.join(changed)} changed inside; "
            "results since then may be those of the weights before"
        )


class _Held:
    """A layer whose weights are held."""

    def __init__(self, path: str, module: Any, stack: ExitStack) -> None:
        self.path, self.names = path, names_of(module)
        kernel = kernel_of(module, module._config())
        self.fixed = kernel.fix(_parameters(module))
        stack.callback(kernel.release, self.fixed)

    def changed(self) -> Iterator[str]:
        for i in self.fixed.changed():
            yield f"{self.path}.{self.names[i]}" if self.path else self.names[i]


def _modules(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers and cells of ours whose calls the kernels take."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    for path, module in model.named_modules():
        if isinstance(module, (_Layer, _Cell)) and _is_supported(module):
            yield path, module


def _parameters(module: Any) -> list[Any]:
    return list(map(module._parameters.get, names_of(module)))


def _is_supported(module: Any) -> bool:
    """Whether the weights are parameters that the kernels take, and not computed for each call."""
    weights = _parameters(module)
    if not all(isinstance(w, torch.Tensor) and is_exact(w) for w in weights):
        return False
    try:
        shapes = kernel_of(module, module._config()).shapes
    except IrregularCallError:
        return False
    dtype = weights[0].dtype
    return [w.shape for w in weights] == shapes and all(
        w.dtype is dtype in FLOATS and w.is_cpu and w.layout is torch.strided and w.is_contiguous()
        for w in weights
    )
