"""`accelerate` makes the recurrent layers of an existing model ours, `restore` makes them torch's.

A module is not replaced by another one; it changes its class. It stays the same object with the
same Parameters, buffers, hooks, mode and attributes, so whatever refers to it (its parent under
one or several names, a plain list, a wrapper such as DistributedDataParallel, an optimizer)
goes on working, also in the middle of training, and names and order of a state_dict cannot change.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.modules.rnn import RNNBase, RNNCellBase
from torch.nn.utils.parametrize import is_parametrized

from .._arguments import as_flag
from ._kernel import is_exact
from ._modules import FLOATS, names_of
from .cells import GRUCell, LSTMCell, RNNCell
from .layers import GRU, LSTM, RNN

__all__ = ["Entry", "Report", "accelerate", "restore"]

_OURS = {getattr(torch.nn, c.__name__): c for c in (RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell)}
_TORCHS = {ours: torchs for torchs, ours in _OURS.items()}
_NAME = re.compile(r"(RNN|LSTM|GRU)(Base|Cell|CellBase)?")
_MARK = "_accelerated"  # an attribute only of the modules that `restore` changes back


@dataclass(frozen=True)
class Entry:
    """A recurrent module of a model: where it is, what it was, and what happened to it.

    Attributes:
        path: its name in the model, as in `named_modules()`; "" is the model itself.
        cls: its class before the call, such as "torch.nn.LSTM".
        reason: what it is now, or why it was left as it is.
        also: other names of the same module, where it is shared.
    """

    path: str
    cls: str
    reason: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Report:
    """What `accelerate` or `restore` did to the recurrent modules of a model, in its order.

    Attributes:
        action: "accelerate" or "restore".
        replaced: modules whose class changed.
        left: modules left as they were.
    """

    action: str
    replaced: tuple[Entry, ...]
    left: tuple[Entry, ...]

    def __repr__(self) -> str:
        """Return a line of totals, then a line for each module."""
        rows = [("replaced", e) for e in self.replaced] + [("left", e) for e in self.left]
        names = [", ".join(path or "(the model)" for path in (e.path, *e.also)) for _, e in rows]
        wide = max(map(len, names), default=0)
        wide_cls = max((len(e.cls) for _, e in rows), default=0)
        lines = [f"{self.action}: {len(self.replaced)} replaced, {len(self.left)} left"]
        for (verdict, entry), name in zip(rows, names, strict=True):
            lines.append(f"  {verdict:8}  {name:{wide}}  {entry.cls:{wide_cls}}  {entry.reason}")
        return "\n".join(lines)


def accelerate(model: torch.nn.Module) -> Report:
    """Make the recurrent layers and cells of a model ours, in place.

    Every torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell and GRUCell in `model` (which may be one
    itself) turns into the class of the same name of `fastrnn.torch`. It remains the same object
    with the same Parameters: optimizers, hooks, parametrizations, the training mode, shared modules
    and state_dicts are not touched, and it may be done at any time, also between two steps of
    training. A second call finds nothing to do. Results differ from torch's by rounding; the masks
    of dropout between layers come from another generator. A layer is a torch.nn.RNNBase as before,
    but not an instance of torch.nn.LSTM any more, because torch.compile refuses those.

    Left as they are, with the reason in the report: subclasses and modules whose `forward` was
    replaced (they may compute something else), quantized and scripted ones, and those with a
    weight that is not a plain dense float32 or float64 tensor on the CPU.

    Call `restore` before using what expects torch's own classes: `torch.jit.script`, quantization,
    and exporters that do not support our operators, except torch's to ONNX. Loading a pickled model
    needs fastrnn.

    Returns:
        A report; printed, it has a line for each module.

    Raises:
        TypeError: `model` is not a torch.nn.Module.
    """
    replaced: list[Entry] = []
    left: list[Entry] = []
    for module, path, also in _recurrent(model):
        cls = _base(module)
        reason = _reason_to_leave(module, cls)
        entry = Entry(path, _name(module), reason or f"now {_public(_OURS[cls])}", also)
        if reason is None:
            _change(module, _OURS[cls])
            setattr(module, _MARK, True)
        (left if reason else replaced).append(entry)
    return Report("accelerate", tuple(replaced), tuple(left))


def restore(model: torch.nn.Module, *, made: bool = False) -> Report:
    """Make the modules that `accelerate` changed torch's again, in place.

    They keep their present values, hooks, modes and attributes. Layers that were created as
    `fastrnn.torch` ones stay so, and are listed as left; with `made` they turn into torch's too,
    with the same Parameters. Modules whose `forward` was wrapped in the meantime are left as well,
    because the wrapper calls ours: remove it, and call `restore` again. Copies and pickles of an
    accelerated model can be restored as well.

    Returns:
        A report; printed, it has a line for each module.

    Raises:
        TypeError: `model` is not a torch.nn.Module, or `made` not True or False.
    """
    made = as_flag("made", made)
    replaced: list[Entry] = []
    left: list[Entry] = []
    for module, path, also in _recurrent(model):
        cls, name = _base(module), _name(module)
        if cls not in _TORCHS:
            if issubclass(cls, tuple(_TORCHS)):
                left.append(Entry(path, name, "a subclass: torch has no class for it", also))
            continue
        reason = None
        if not made and _MARK not in vars(module):
            reason = "was created so, not accelerated"
        elif "forward" in vars(module):
            reason = "its forward was replaced, and may call ours"
        else:
            _change(module, _TORCHS[cls])
            for ours in (_MARK, "_kernel"):  # the kernel is made by the first call
                vars(module).pop(ours, None)
        entry = Entry(path, name, reason or f"now {_public(_TORCHS[cls])}", also)
        (left if reason else replaced).append(entry)
    return Report("restore", tuple(replaced), tuple(left))


def _recurrent(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, tuple[str, ...]]]:
    """Each recurrent module of a model once: itself, its first name, its other names."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    modules: dict[int, tuple[torch.nn.Module, list[str]]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        known = isinstance(module, (RNNBase, RNNCellBase))
        if known or _is_scripted(module) or _is_quantized(module):
            modules.setdefault(id(module), (module, []))[1].append(path)
    for module, (first, *also) in modules.values():
        yield module, first, tuple(also)


def _base(module: torch.nn.Module) -> type[torch.nn.Module]:
    """Return the class of a module, below what torch.nn.utils.parametrize derives from it."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def _change(module: torch.nn.Module, cls: type[torch.nn.Module]) -> None:
    """Give a module another class, under the properties of its parametrizations if it has any.

    These live in a class between, which copies of the module share: it is made again over `cls`.
    """
    if is_parametrized(module):
        own = type(module)
        cls = type(own.__name__, (cls,), dict(vars(own)))
    module.__class__ = cls


def _reason_to_leave(module: torch.nn.Module, cls: type[torch.nn.Module]) -> str | None:
    """Say why a recurrent module cannot be ours, or None if it can."""
    if _is_scripted(module):
        return "TorchScript: accelerate the model before it is scripted"
    if _is_quantized(module):
        return "quantized"
    if cls in _TORCHS:
        return f"is {_public(cls)} already"
    if cls not in _OURS:
        for base in cls.__mro__:
            if base in _TORCHS:
                return f"a subclass of {_public(base)}, which computes with fastrnn already"
        return "a subclass: it may compute something else"
    if "forward" in vars(module) or cls.forward.__module__ != RNNBase.__module__:
        return "its forward was replaced"
    return _unsupported_weight(module)


def _unsupported_weight(module: torch.nn.Module) -> str | None:
    """Name the first weight that our kernels cannot use, and why; None if all are fine."""
    dtypes = {}
    for name, tensor in _weights(module):
        if tensor is None:
            return f"{name} is None"
        if tensor.device.type != "cpu":
            return f"{name} is on {tensor.device}, fastrnn computes on the CPU"
        if not is_exact(tensor):
            return f"{name} is a {type(tensor).__name__}, not a plain tensor"
        if tensor.layout is not torch.strided:
            return f"{name} has the layout {tensor.layout}, not torch.strided"
        if tensor.dtype not in FLOATS:
            return f"{name} is {tensor.dtype}, not torch.float32 or torch.float64"
        dtypes[tensor.dtype] = name
    if len(dtypes) > 1:
        return "dtypes differ: " + ", ".join(f"{name} is {t}" for t, name in dtypes.items())
    return None


def _weights(module: Any) -> Iterator[tuple[str, torch.Tensor | None]]:
    """The tensors that the layer itself computes with, and no others that it happens to have.

    Hooks such as pruning keep a weight as a plain attribute. A parametrized one is seen through its
    originals: computing it may change a buffer (spectral_norm) or draw random numbers.
    """
    for name in names_of(module):
        if is_parametrized(module, name):
            originals = module.parametrizations[name]
            for part, tensor in (*originals._parameters.items(), *originals._buffers.items()):
                yield f"parametrizations.{name}.{part}", tensor
        else:
            yield name, ChainMap(module._parameters, module._buffers, vars(module)).get(name)


def _is_scripted(module: torch.nn.Module) -> bool:
    scripted = isinstance(module, torch.jit.ScriptModule)
    return scripted and _NAME.fullmatch(module.original_name) is not None


def _is_quantized(module: torch.nn.Module) -> bool:
    cls = type(module)
    return cls.__module__.startswith("torch.ao.") and _NAME.fullmatch(cls.__name__) is not None


def _name(module: torch.nn.Module) -> str:
    """Return the public name of a module's class, without what parametrizations add."""
    return f"scripted {module.original_name}" if _is_scripted(module) else _public(_base(module))


def _public(cls: type[torch.nn.Module]) -> str:
    if cls in _OURS:
        return f"torch.nn.{cls.__name__}"
    if cls in _TORCHS:
        return f"fastrnn.torch.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"
