"""What all optimizers have in common."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np

from ._arguments import Array, as_real, as_size, as_weights, refuse_masked, show_shape
from ._arrays import Arrays
from ._clipping import Grads, as_dicts
from ._memory import dense, owned, sharing
from ._packing import Holding, Together
from ._trainable import Trainable

O = TypeVar("O", bound="Optimizer")  # typing.Self, which Python 3.10 has not
ModuleOrArrays: TypeAlias = Trainable | Mapping[str, Array]  # Mapping: arrays of the caller's own
_Memory: TypeAlias = dict[str, list[Array]]  # of a module: none or all parts, by weight
# Of a weight, for the core: its values where they lie, or a copy, the gradient, what the rule
# remembers, and whether that has no values yet.
Change: TypeAlias = tuple[Array, Array, list[Array], bool]
_MOST_STEPS = 2**53  # a double counts no further


class Optimizer(ABC):
    """Modules, and for each weight a place for the rule's memory.

    The options may be assigned between steps; each step checks them as the constructor does.
    """

    lr: float
    weight_decay: float
    _parts: ClassVar[tuple[str, ...]]  # what the rule remembers of a weight
    _always: ClassVar[bool]  # whether every step leaves it, whatever the options are

    def __init__(self, modules: ModuleOrArrays | Iterable[ModuleOrArrays], **options: Any) -> None:
        self._modules = _trainables(modules)
        self._own = tuple(module for module in self._modules if isinstance(module, Arrays))
        checked = self._options(options)
        vars(self).update(checked)
        self._names = tuple(name for name in options if name in checked)
        self._memory: list[_Memory] = [{name: [] for name in m.parameters()} for m in self.modules]
        self._steps = 0
        self._lock = threading.RLock()  # held while options, memory and steps change or are copied

    @property
    def modules(self) -> tuple[Trainable, ...]:
        """The modules whose weights a step changes, in the order of its gradients.

        A dict of arrays stands among them as what it has in common with a module: `parameters`,
        `edit`, `state_dict` and `load_state_dict`.
        """
        return self._modules

    def step(self, grads: Grads | Iterable[Grads]) -> None:
        """Change every weight once.

        Args:
            grads: one `Gradients` or weights dict a module, in the order of the modules; of a dict
                of arrays a dict, too.

        Raises:
            TypeError: something else; a gradient of another dtype than its weight's, or masked.
            ValueError: a wrong number of them; names or shapes that differ from the module's; an
                array of one's own that is read-only by now, or another one under its name.

        An option that the constructor would refuse by now is its error too. Nothing has changed
        after any of these, nor where there is no memory. All modules are edited together, as in
        nested `edit` blocks; while another thread edits one of them it waits, holding none up.
        """
        dicts = as_dicts(grads)
        if len(dicts) != len(self.modules):
            raise ValueError(
                f"grads: expected {len(self.modules)} (one a module), got {len(dicts)}"
            )
        hint = "; they are in the order of the modules" if len(dicts) > 1 else ""
        dicts = [_checked(m, given, hint) for m, given in zip(self.modules, dicts, strict=True)]
        for own in self._own:
            dicts = [own.apart(gradients) for gradients in dicts]
        # The optimizer's own behind those of the modules: who holds it waits for nobody. A copy of
        # the state takes it alone, and is safe inside an edit block, too.
        with Holding([module._lock for module in self.modules]), self._lock:
            options = self._options(vars(self))  # as they are now, after all that waiting
            edits = [module._changing() for module in self.modules]  # the last that may be refused
            with Together(edits) as edited:
                vars(self).update(options)  # an np.float64 would turn float32 updates into float64
                self._change_all(edited, dicts)

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of all that the next step depends on, but for modules and gradients.

        It is of one moment, between two steps: it waits while another thread makes one.

        Returns:
            The options by name; "steps": how many there were; "memory": for each module a dict of
            arrays, such as "weight_ih_l0.mean", where steps have left some.

        Raises:
            TypeError, ValueError: an option that `step` would refuse, too.
        """
        with self._lock:
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
        steps = as_size("steps", state_dict["steps"], 0, _MOST_STEPS)
        given = state_dict["memory"]
        if not isinstance(given, (list, tuple)) or len(given) != len(self.modules):
            got = len(given) if isinstance(given, (list, tuple)) else type(given).__name__
            raise ValueError(f"memory: expected {len(self.modules)} dicts, one a module, got {got}")
        memory = [
            self._read_memory(f"memory[{i}]", module, given[i], steps)
            for i, module in enumerate(self.modules)
        ]
        with self._lock:
            vars(self).update(options, _steps=steps, _memory=memory)

    def _read_memory(self, what: str, module: Trainable, given: Any, steps: int) -> _Memory:
        """Return a copy of what `state_dict` tells of a module's memory, or raise."""
        weights = module.parameters()
        none = isinstance(given, Mapping) and not given and not (steps and self._always)
        parts = () if none else self._parts
        forms = {
            f"{name}.{part}": (np.atleast_1d(w).shape, w.dtype)
            for name, w in weights.items()
            for part in parts
        }
        arrays = as_weights(what, given, forms)
        return {name: [arrays[f"{name}.{part}"].copy() for part in parts] for name in weights}

    def __getstate__(self) -> dict[str, Any]:
        """Modules, options, steps and a copy of the memory, of one moment but for the modules."""
        with self._lock:
            state = {name: value for name, value in vars(self).items() if name != "_lock"}
            memory = [{k: [a.copy() for a in v] for k, v in each.items()} for each in self._memory]
        return state | {"_memory": memory}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.RLock()
        self._memory = [{k: [owned(a) for a in v] for k, v in m.items()} for m in self._memory]

    def __copy__(self: O) -> O:
        """Make another one for the same modules, with a memory of its own."""
        twin = type(self).__new__(type(self))
        twin.__setstate__(self.__getstate__())
        return twin

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._names)
        return f"{type(self).__name__}({options})"

    @classmethod
    def _options(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options among these values, as plain Python's numbers, or raise."""
        return {name: as_real(name, given[name], 0.0) for name in ("lr", "weight_decay")}

    def _change_all(
        self, edited: list[Mapping[str, Array]], dicts: list[Mapping[str, Array]]
    ) -> None:
        """Change every weight by its gradient. Where there is no memory, nothing has changed."""
        places = [
            (weight, gradients[name], memory[name])
            for weights, gradients, memory in zip(edited, dicts, self._memory, strict=True)
            for name, weight in weights.items()
        ]
        changes = [self._change(*place) for place in places]
        steps = min(self._steps + 1, _MOST_STEPS)
        self._update(changes, steps)
        self._steps = steps
        for place, change in zip(places, changes, strict=True):
            (weight, _, memory), (values, _, parts, first) = place, change
            if first:
                memory[:] = parts
            if values is not weight:
                weight[...] = values

    def _change(self, weight: Array, grad: Array, memory: list[Array]) -> Change:
        """Return the change of a weight; `memory` holds what its earlier steps left."""
        first = not memory
        if first and self._remembers():
            memory = [np.zeros(np.atleast_1d(weight).shape, weight.dtype) for _ in self._parts]
        return dense(weight), dense(grad), memory, first

    def _remembers(self) -> bool:
        """Whether a step leaves something for the next."""
        return self._always

    @abstractmethod
    def _update(self, changes: list[Change], steps: int) -> None:
        """Change the values of all weights, or raise before any; `steps` counts this one."""


def _trainables(modules: Any) -> tuple[Trainable, ...]:
    """Return what an optimizer is to train, its arrays apart from each other, or raise."""
    expected = "modules: expected fastrnn layers or dicts of arrays by name"
    alone = isinstance(modules, (Trainable, Mapping))
    if not alone and (isinstance(modules, np.ndarray) or not isinstance(modules, Iterable)):
        raise TypeError(f"{expected}, got {type(modules).__name__}")
    found: dict[str, Trainable] = {}
    for k, given in enumerate([modules] if alone else modules):
        name = "modules" if alone else f"modules[{k}]"
        if not isinstance(given, (Trainable, Mapping)):
            raise TypeError(f"{expected}, got {type(given).__name__}")
        found[name] = Arrays(name, given) if isinstance(given, Mapping) else given
    if not found:  # as a generator that somebody has used
        raise ValueError("modules: expected at least one, got none")
    if len(set(map(id, found.values()))) < len(found):
        raise ValueError("modules: expected each once, got one of them twice")
    weights = [(f"{m}[{n!r}]", w) for m in found for n, w in found[m].parameters().items()]
    if pair := sharing([weight for _, weight in weights]):
        name, other = (weights[place][0] for place in pair)
        raise ValueError(f"modules: expected arrays that share no memory, got {name} and {other}")
    return tuple(found.values())


def _checked(module: Trainable, gradients: Mapping[str, Array], hint: str = "") -> dict[str, Array]:
    """Return a module's gradients as plain arrays that a step leaves as they are, or raise.

    `hint` is for those that another module's would look like.
    With a subclass's own idea of arithmetic a step might end half-way. What is read-only may be a
    view from `parameters` of a module that the step changes.
    """
    weights = module._present()
    if weights.keys() != gradients.keys():
        wrong = ", ".join(sorted(map(str, weights.keys() ^ gradients.keys())))
        raise ValueError(f"grads: expected the names of {module!r}, differing in {wrong}{hint}")
    plain: dict[str, Array] = {}
    for name, weight in weights.items():
        plain[name] = grad = gradients[name]
        if type(grad) is np.ndarray and grad.dtype == weight.dtype and grad.shape == weight.shape:
            continue
        refuse_masked(f"grads: {name}", grad)
        got = getattr(grad, "dtype", None)
        if got is None or got != weight.dtype:  # None == np.dtype(np.float64)
            got = type(grad).__name__ if got is None else got
            raise TypeError(f"grads: expected dtype {weight.dtype} for {name}, got {got}")
        if np.shape(grad) != weight.shape:
            raise ValueError(
                f"grads: expected shape {show_shape(weight.shape)} for {name}, "
                f"got {show_shape(np.shape(grad))}{hint}"
            )
        plain[name] = np.asarray(grad)
    return {name: a if a.flags.writeable else a.copy() for name, a in plain.items()}
