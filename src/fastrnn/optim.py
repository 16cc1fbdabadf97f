"""Optimizers with torch's argument names and update rules, and gradient-norm clipping.

::

    opt = fastrnn.optim.Adam([lstm, head], lr=1e-3)
    ...
    fastrnn.optim.clip_grad_norm_([g_lstm, g_head], 1.0)
    opt.step([g_lstm, g_head])          # in the order of the modules

Gradients come as `Gradients`, or as dicts of weights by name; for one module, alone or in a list.
Options such as `lr` are plain attributes: assign to them for a schedule. To resume training, pickle
an optimizer together with its modules, or keep its `state_dict` beside theirs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from ._arguments import Array, as_flag, as_real, as_size, as_weights, show_shape
from ._clipping import Grads, as_dicts, clip_grad_norm_
from ._module import Module

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "clip_grad_norm_"]

_Memory: TypeAlias = dict[str, list[Array]]  # of a module: none or all parts, by weight


class Optimizer(ABC):
    """What all have in common: modules, and for each weight a place for the rule's memory.

    The options may be assigned between steps; each step checks them as the constructor does.
    """

    lr: float
    weight_decay: float
    _parts: ClassVar[tuple[str, ...]]  # what the rule remembers of a weight
    _always: ClassVar[bool]  # whether every step leaves it, whatever the options are

    def __init__(self, modules: Module | Iterable[Module], **options: Any) -> None:
        if not isinstance(modules, (Module, Iterable)):
            raise TypeError(f"modules: expected fastrnn layers, got {type(modules).__name__}")
        self.modules = [modules] if isinstance(modules, Module) else list(modules)
        for module in self.modules:
            if not isinstance(module, Module):
                raise TypeError(f"modules: expected fastrnn layers, got {type(module).__name__}")
        if len(set(map(id, self.modules))) < len(self.modules):
            raise ValueError("modules: expected each once, got one of them twice")
        checked = self._options(options)
        vars(self).update(checked)
        self._names = tuple(name for name in options if name in checked)
        self._memory: list[_Memory] = [{name: [] for name in m.parameters()} for m in self.modules]
        self._steps = 0

    def step(self, grads: Grads | Sequence[Grads]) -> None:
        """Change every weight once.

        Args:
            grads: one `Gradients` or weights dict a module, in the order of the modules.

        Raises:
            TypeError: something else; a gradient of another dtype than its weight's.
            ValueError: a wrong number of them; names or shapes that differ from the module's.

        An option that the constructor would refuse by now is its error too. Nothing has changed
        after any of these.
        """
        options = self._options(vars(self))
        dicts = as_dicts(grads)
        if len(dicts) != len(self.modules):
            raise ValueError(
                f"grads: expected {len(self.modules)} (one a module), got {len(dicts)}"
            )
        for module, gradients in zip(self.modules, dicts, strict=True):
            _check(module, gradients)
        vars(self).update(options)  # an np.float64 would turn float32 updates into float64 ones
        self._steps += 1
        for module, gradients, memory in zip(self.modules, dicts, self._memory, strict=True):
            with module.edit() as weights:
                for name, weight in weights.items():
                    self._update(weight, gradients[name], memory[name])

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of all that the next step depends on, but for modules and gradients.

        Returns:
            The options by name; "steps": how many there were; "memory": for each module a dict of
            arrays, such as "weight_ih_l0.mean", where steps have left some.

        Raises:
            TypeError, ValueError: an option that `step` would refuse, too.
        """
        memory = [
            {
                f"{name}.{part}": array.copy()
                for name, arrays in weights.items()
                for part, array in zip(self._parts, arrays, strict=False)
            }
            for weights in self._memory
        ]
        return {**self._options(vars(self)), "steps": self._steps, "memory": memory}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the optimizer was that `state_dict` is of, with modules of the same weights.

        Raises:
            TypeError, ValueError: an entry that is missing, unexpected or wrong; the message names
                it, and nothing has been loaded.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict: expected a dict, got {type(state_dict).__name__}")
        wrong = state_dict.keys() ^ {*self._names, "steps", "memory"}
        if wrong:
            names = ", ".join(sorted(map(str, wrong)))
            raise ValueError(
                f"state_dict: expected the names of {type(self).__name__}, differing in {names}"
            )
        options = self._options(state_dict)
        steps = as_size("steps", state_dict["steps"], 0, None)
        given = state_dict["memory"]
        if not isinstance(given, (list, tuple)) or len(given) != len(self.modules):
            got = len(given) if isinstance(given, (list, tuple)) else type(given).__name__
            raise ValueError(f"memory: expected {len(self.modules)} dicts, one a module, got {got}")
        memory = [
            self._read_memory(f"memory[{i}]", module, given[i], steps)
            for i, module in enumerate(self.modules)
        ]
        vars(self).update(options, _steps=steps, _memory=memory)

    def _read_memory(self, what: str, module: Module, given: Any, steps: int) -> _Memory:
        """Return a copy of what `state_dict` tells of a module's memory, or raise."""
        weights = module.parameters()
        none = isinstance(given, Mapping) and not given and not (steps and self._always)
        parts = () if none else self._parts
        shapes = {f"{name}.{part}": w.shape for name, w in weights.items() for part in parts}
        arrays = as_weights(what, given, shapes, module.dtype)
        return {name: [arrays[f"{name}.{part}"].copy() for part in parts] for name in weights}

    def __copy__(self) -> Self:
        """Make another one for the same modules, with a memory of its own."""
        twin = type(self).__new__(type(self))
        memory = [{k: [a.copy() for a in v] for k, v in each.items()} for each in self._memory]
        vars(twin).update(vars(self), modules=list(self.modules), _memory=memory)
        return twin

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._names)
        return f"{type(self).__name__}({options})"

    @classmethod
    def _options(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options among these values, as plain Python's numbers, or raise."""
        return {name: as_real(name, given[name], 0.0) for name in ("lr", "weight_decay")}

    @abstractmethod
    def _update(self, weight: Array, grad: Array, memory: list[Array]) -> None:
        """Change one weight in place; `memory` holds what its earlier steps left."""


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (torch.optim.SGD).

    g += weight_decay w; v = momentum v + (1 - dampening) g (the first v is g itself); then
    w -= lr v, with `nesterov` w -= lr (g + momentum v).
    """

    momentum: float
    dampening: float
    nesterov: bool
    _parts = ("velocity",)
    _always = False

    def __init__(
        self,
        modules: Module | Iterable[Module],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            modules,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
        )

    @classmethod
    def _options(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        momentum = as_real("momentum", given["momentum"], 0.0)
        dampening = as_real("dampening", given["dampening"])
        nesterov = as_flag("nesterov", given["nesterov"])
        if nesterov and (momentum == 0.0 or dampening != 0.0):
            raise ValueError(
                "nesterov: expected momentum > 0 and dampening = 0 with it, "
                f"got momentum = {momentum:g}, dampening = {dampening:g}"
            )
        own = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov}
        return super()._options(given) | own

    def _update(self, weight: Array, grad: Array, memory: list[Array]) -> None:
        if self.weight_decay:
            grad = grad + self.weight_decay * weight
        if self.momentum:
            if memory:
                memory[0] *= self.momentum
                memory[0] += (1.0 - self.dampening) * grad
            else:
                memory.append(grad.copy())
            grad = grad + self.momentum * memory[0] if self.nesterov else memory[0]
        weight -= self.lr * grad


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980; torch.optim.Adam).

    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
    w -= lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps), t counting the steps from 1.
    `weight_decay` times w is added to g.
    """

    betas: tuple[float, float]
    eps: float
    _parts = ("mean", "square")
    _always = True

    def __init__(
        self,
        modules: Module | Iterable[Module],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(modules, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    @classmethod
    def _options(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        try:
            first, second = given["betas"]
        except (TypeError, ValueError):
            message = f"betas: expected a pair of numbers, got {given['betas']!r}"
            raise TypeError(message) from None
        betas = (
            as_real("betas[0]", first, 0.0, 1.0, open_high=True),
            as_real("betas[1]", second, 0.0, 1.0, open_high=True),
        )
        own = {"betas": betas, "eps": as_real("eps", given["eps"], 0.0)}
        return super()._options(given) | own

    def _decay(self, weight: Array, grad: Array) -> Array:
        return grad + self.weight_decay * weight if self.weight_decay else grad

    def _update(self, weight: Array, grad: Array, memory: list[Array]) -> None:
        grad = self._decay(weight, grad)
        if not memory:
            memory += [np.zeros_like(weight), np.zeros_like(weight)]
        (mean, square), (first, second) = memory, self.betas
        scratch = np.multiply(grad, 1.0 - first)
        mean *= first
        mean += scratch
        np.multiply(grad, grad, out=scratch)
        scratch *= 1.0 - second
        square *= second
        square += scratch
        np.sqrt(square, out=scratch)
        scratch /= math.sqrt(1.0 - second**self._steps)
        scratch += self.eps
        np.divide(mean, scratch, out=scratch)
        scratch *= self.lr / (1.0 - first**self._steps)
        weight -= scratch


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101).

    w shrinks by the factor 1 - lr weight_decay before Adam's step (torch.optim.AdamW).
    """

    def __init__(
        self,
        modules: Module | Iterable[Module],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(modules, lr, betas, eps, weight_decay)

    def _decay(self, weight: Array, grad: Array) -> Array:
        weight *= 1.0 - self.lr * self.weight_decay
        return grad


def _check(module: Module, gradients: Mapping[str, Array]) -> None:
    weights = module.parameters()
    if weights.keys() != gradients.keys():
        wrong = ", ".join(sorted(map(str, weights.keys() ^ gradients.keys())))
        raise ValueError(f"grads: expected the names of {module!r}, differing in {wrong}")
    for name, weight in weights.items():
        grad = gradients[name]
        if np.shape(grad) != weight.shape:
            raise ValueError(
                f"grads: expected shape {show_shape(weight.shape)} for {name}, "
                f"got {show_shape(np.shape(grad))}"
            )
        if getattr(grad, "dtype", None) != weight.dtype:
            got = getattr(grad, "dtype", type(grad).__name__)
            raise TypeError(f"grads: expected dtype {weight.dtype} for {name}, got {got}")
