"""What layers and cells share: when the kernels take a call, and when torch's own code does."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any, TypeVar

import numpy as np
import torch
from torch._subclasses import FakeTensor
from torch.fx import Proxy

from .._arguments import as_lengths, refuse_masked, shape_error
from ._autograd import direct, observed, recording, taken_apart
from ._call import Call, Tensor, axes_of, state_shape
from ._kernel import Kernel, exact_tensor, has_memory, is_exact
from .ops import recurrent

Forward = TypeVar("Forward", bound=Any)
FLOATS = (torch.float32, torch.float64)
_warned: set[str] = set()

# torch.jit.trace warns of every number of a tensor or its shape that Python looks at. What is
# looked at here leaves a trace right for other shapes; torch ignores its own modules' so, too.
warnings.filterwarnings("ignore", category=torch.jit.TracerWarning, module=r"fastrnn\.torch\.")

CELL_WEIGHTS = ("weight_ih", "weight_hh")
CELL_BIASES = ("bias_ih", "bias_hh")


class IrregularCallError(Exception):
    """A call for torch's own code, which raises its error or computes what the kernels cannot."""


class ForeignTensorsError(IrregularCallError):
    """One with a dtype, device or class of tensors, or in a mode, that the kernels do not know."""


def without_kernel(state: Mapping[str, Any]) -> dict[str, Any]:
    """What is copied and pickled of a module: not the kernel of its first call."""
    return {name: value for name, value in state.items() if name != "_kernel"}


def refuse_script(module: Any) -> Any:
    """What torch.jit.script asks a module for: another one, that it can compile.

    One that shares the parameters would do, but torch puts it into the caller's model, for good.
    """
    raise RuntimeError(
        "torch.jit.script: expected torch's own layers and cells, got "
        f"fastrnn.torch.{type(module).__name__}; call fastrnn.torch.restore(model, made=True) "
        "before, or use torch.jit.trace"
    )


def tracer_of(module: Any, input: Any, hx: Any) -> Any:
    """The torch.fx.Tracer of a model that calls this module, or None."""
    for value in (input, *(hx if isinstance(hx, (tuple, list)) else (hx,))):
        if isinstance(value, Proxy):
            tracer = value.tracer
            return None if getattr(tracer, "root", module) is module else tracer
    return None


def leaf_of(module: Any, tracer: Any, input: Any, hx: Any) -> Any:
    """The call as torch.fx records one of torch's own: it looks into all others.

    Raises:
        RuntimeError: the module has hooks, which have been recorded and would run once more.
    """
    path = tracer.path_of_module(module)
    if module._forward_hooks or module._forward_pre_hooks:
        raise RuntimeError(
            f"torch.fx: expected modules without forward hooks, got {path}, a "
            f"fastrnn.torch.{type(module).__name__} with some; "
            "call fastrnn.torch.restore(model, made=True) before"
        )
    given = (input,) if hx is None else (input, hx)
    return tracer.create_proxy("call_module", path, given, {})


def with_tensors(state_dict: dict[str, Any]) -> None:
    """Put tensors in the place of arrays, as a `state_dict` of fastrnn's own layers has them."""
    for name, value in state_dict.items():  # load_state_dict has made a copy of the caller's
        if isinstance(value, np.ndarray):
            refuse_masked(name, value)
            native = value.dtype.newbyteorder("=")
            try:
                state_dict[name] = torch.from_numpy(value.astype(native, order="C"))
            except TypeError as error:  # a dtype that torch has not
                raise TypeError(f"{name}: {error}") from None


def renamed(forward: Forward, cls: str) -> Forward:
    """A copy of a forward that several classes share, under the name that errors give it."""
    copied: Any = FunctionType(
        forward.__code__, forward.__globals__, "forward", forward.__defaults__, forward.__closure__
    )
    copied.__kwdefaults__, copied.__annotations__ = forward.__kwdefaults__, forward.__annotations__
    copied.__doc__, copied.__qualname__ = forward.__doc__, f"{cls}.forward"
    result: Forward = copied
    return result


def names_of(module: Any) -> Sequence[str]:
    """The names of the weights that a layer or cell computes with, in our order."""
    if isinstance(module, torch.nn.RNNBase):
        names: Sequence[str] = module._flat_weights_names
        return names
    return CELL_WEIGHTS + CELL_BIASES if module.bias else CELL_WEIGHTS


def weights_of(module: Any, names: Sequence[str]) -> list[Tensor]:
    """The tensors under these names, wherever parametrizations or weight_norm put them.

    Raises:
        IrregularCallError: one is None, as a bias may be in torch's cells.
    """
    found = list(map(module._parameters.get, names))
    for w in found:
        if w is None:
            break
    else:
        return found
    found = [getattr(module, name) for name in names]
    if any(w is None for w in found):
        raise IrregularCallError
    return found


def dtype_of(module: Any, names: Sequence[str], weights: list[Tensor], x: Any) -> Any:
    """The dtype of the weights.

    Raises:
        ValueError: weights of different dtypes or devices; the message names one.
        ForeignTensorsError: a dtype or device that the kernels do not support; the user is warned
            once.
    """
    first = weights[0]
    dtype = first.dtype
    for w in weights:
        if w.dtype is not dtype or not w.is_cpu:
            _one_kind(names, weights)
            break
    else:
        if dtype in FLOATS and isinstance(x, torch.Tensor) and x.is_cpu:
            return dtype
    _warn_once(module, first, x)
    raise ForeignTensorsError if isinstance(x, torch.Tensor) else IrregularCallError


def _one_kind(names: Sequence[str], weights: list[Tensor]) -> None:
    first = weights[0]
    for name, w in zip(names, weights, strict=True):
        for what in ("dtype", "device"):
            wanted, has = getattr(first, what), getattr(w, what)
            if has != wanted:
                raise ValueError(
                    f"{name}: expected {what} {wanted}, that of {names[0]}, got {has}; "
                    f"convert the whole module, e.g. module.to({names[0]}.{what})"
                )


def _warn_once(module: Any, weight: Tensor, x: Any) -> None:
    """Warn once for each reason to leave a call to torch that is not the caller's error."""
    devices = {t.device.type for t in (weight, x) if isinstance(t, torch.Tensor)} - {"cpu", "meta"}
    if devices:
        reason = f"tensors on {', '.join(sorted(devices))}, and fastrnn's kernels are for the CPU"
    elif weight.dtype not in FLOATS:
        reason = f"weights of {weight.dtype}, and fastrnn's kernels are for float32 and float64"
    else:
        return
    if reason not in _warned:
        _warned.add(reason)
        layer = f"torch.nn.{type(module).__name__}"
        warnings.warn(f"fastrnn.torch: {layer}'s own code runs: {reason}", stacklevel=4)


def states_of(hx: Any, is_lstm: bool) -> tuple[Any, Any]:
    """h0 and c0 of a call's hx, which may be None; IrregularCallError where it has another form."""
    if hx is None:
        return None, None
    if not is_lstm:
        return _tensor(hx), None
    if not isinstance(hx, (tuple, list)) or len(hx) != 2:
        raise IrregularCallError
    return _tensor(hx[0]), _tensor(hx[1])


def _tensor(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        raise IrregularCallError
    return value


def compute(
    module: Any,
    config: tuple[Any, ...],
    x: Tensor,
    states: tuple[Any, Any],
    names: Sequence[str],
    weights: list[Tensor],
    call: Call,
) -> Any:
    """y, hn, cn: by an operator where it is recorded, else directly from the core.

    The core refuses what it cannot compute; then, and for operators, `check` says why. It also
    refuses tensors whose class may handle operations itself.
    """
    if observed(x):
        if taken_apart():
            raise ForeignTensorsError
        check(module, config, x, states, names, weights, call)
        if is_exact(x):
            return recurrent(x, *states, weights, call, config)
        return _seen(x, states, weights, call, config)
    kernel: Kernel | None = module.__dict__.get("_kernel")
    if kernel is None or kernel.config != config:
        kernel = kernel_of(module, config)
    try:
        return direct(kernel, x, *states, weights, call)
    except (TypeError, ValueError) as error:
        refused = error
    check(module, config, x, states, names, weights, call)
    if all(map(is_exact, (*states, *weights, *call))):
        raise refused
    return _seen(x, states, weights, call, config)


def kernel_of(module: Any, config: tuple[Any, ...]) -> Kernel:
    """The module's kernel, made at its first call: a module needs nothing of ours but its class."""
    kernel: Kernel | None = module.__dict__.get("_kernel")
    if kernel is None or kernel.config != config:
        kernel = module.__dict__["_kernel"] = Kernel(*config)
    return kernel


def _seen(
    x: Tensor, states: tuple[Any, Any], weights: list[Tensor], call: Call, config: tuple[Any, ...]
) -> Any:
    """By an operator, which the tensors' class may handle; else as torch computes it."""
    try:
        return recurrent(x, *states, weights, call, config)
    except (TypeError, ValueError, NotImplementedError) as error:
        given = (x, *states, *weights, *call)
        if isinstance(error, ValueError) and all(map(has_memory, given)):
            raise
    raise ForeignTensorsError  # a class that does not support our operators


def check(
    module: Any,
    config: tuple[Any, ...],
    x: Tensor,
    states: tuple[Any, Any],
    names: Sequence[str],
    weights: list[Tensor],
    call: Call,
) -> None:
    """Look at everything a call brings.

    Raises:
        ValueError: weights that do not fit together, or not the module; lengths that are wrong.
        IrregularCallError: for all that torch's own code answers.
    """
    dtype = dtype_of(module, names, weights, x)
    kernel = Kernel(*config) if recording() else kernel_of(module, config)
    if x.dim() != axes_of(call.layout) or x.shape[-1] != kernel.input_size or x.dtype is not dtype:
        raise IrregularCallError
    if x.layout is not torch.strided:
        raise IrregularCallError
    steps, rows = call.sizes(x)
    if call.lengths is not None:
        check_lengths(call.lengths, steps, rows)
    for state, size in zip(states, (kernel.output_size, kernel.hidden_size), strict=True):
        if state is None:
            continue
        if state.dtype is not dtype or not state.is_cpu:
            raise IrregularCallError
        if state.shape != state_shape(kernel.sweeps, rows, call.layout, size):
            raise IrregularCallError
    if len(weights) != len(kernel.shapes):
        wanted = f"{len(kernel.shapes)} for num_layers={config[3]}"
        got = f"{len(weights)}, {names[0]} to {names[-1]}"
        raise ValueError(f"weights: expected {wanted}, got {got}")
    for name, w, shape in zip(names, weights, kernel.shapes, strict=True):
        if w.shape != shape:
            raise ValueError(f"{name}: expected shape {list(shape)}, got {list(w.shape)}")


def check_lengths(lengths: Tensor, steps: Any, rows: Any) -> None:
    """Raise ValueError unless there is one for each row, in 0..T.

    Where the call is recorded the operator looks at the values, when they are known.
    """
    if lengths.shape != (rows,):
        raise shape_error("lengths", f"[{rows}] (one length per batch row)", lengths.shape)
    if recording() or isinstance(lengths, FakeTensor):
        return
    if lengths.is_meta or not has_memory(lengths):
        kind = "on the device meta" if lengths.is_meta else f"of the class {type(lengths).__name__}"
        raise ValueError(f"lengths: expected values, got a tensor {kind}, which has none")
    as_lengths(exact_tensor(lengths).cpu().numpy(), steps, rows)
