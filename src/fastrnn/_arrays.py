"""Arrays of the caller's own, with what an optimizer asks of a module."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import numpy as np

from ._arguments import Array, as_writable
from ._memory import detached, overlaps_itself
from ._trainable import Editable, Trainable

V = TypeVar("V")


class Arrays(Trainable):
    """Arrays by name that stay where they are and stay their caller's.

    Nothing is packed of them, so a change of theirs needs no announcing: `edit` only keeps steps of
    optimizers out. Pickles and deep copies get the dict and the arrays themselves, not copies made
    here as a module's weights are: what was one array, in the optimizer and beside it, has to come
    back as one.
    """

    def __init__(self, what: str, given: Mapping[str, Any]) -> None:
        self._what, self._given = what, given
        self._arrays: dict[str, Array] = {}
        if "params" in given and not isinstance(given["params"], np.ndarray):
            raise TypeError(
                f"{what}: expected a dict of arrays by name, got a group of torch's; an optimizer "
                "has one set of options: make one for each group, and step them all"
            )
        for name, value in given.items():
            if not isinstance(name, str):
                raise TypeError(f"{what}: expected names of text, got {name!r:.80}")
            if isinstance(value, (Trainable, Mapping)):
                raise TypeError(
                    f"{what}[{name!r}]: expected a float32 or float64 array, "
                    f"got {type(value).__name__}; modules stand in a list, as list(d.values())"
                )
            hint = "; of a layer give the layer itself, not its parameters, as Adam([layer])"
            self._arrays[name] = array = as_writable(f"{what}[{name!r}]", value, hint)
            if overlaps_itself(array):
                raise ValueError(
                    f"{what}[{name!r}]: expected an array whose elements lie apart, "
                    "got one that overlaps itself; try .copy()"
                )
        self._shapes = {name: array.shape for name, array in self._arrays.items()}
        self._own_lock = threading.RLock()

    @property
    def _lock(self) -> threading.RLock:
        return self._own_lock

    def edit(self) -> AbstractContextManager[Editable]:
        """Give writable views of all arrays, by name; no optimizer's step begins in the block.

        Raises:
            ValueError: the dict has other arrays by now, or one that has become read-only. This
                call raises it: entering the block cannot fail.
        """
        return self._editing(Editable(self._present()))

    def _changing(self) -> AbstractContextManager[Mapping[str, Array]]:
        return self._editing(self._present())

    @contextmanager
    def _editing(self, views: V) -> Iterator[V]:
        with self._lock:
            yield views

    def apart(self, gradients: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return gradients that do not change with these arrays: copies of those that would.

        The gradient of one factor may be the other factor itself.
        """
        return detached(gradients, self._arrays.values())

    def _present(self) -> dict[str, Array]:
        """Return plain views of what was given, or raise unless all of it is still there."""
        given, arrays, shapes = self._given, self._arrays, self._shapes
        moved = [n for n in given if n not in arrays]
        moved += [n for n, a in arrays.items() if given.get(n) is not a or a.shape != shapes[n]]
        if moved:
            raise ValueError(
                f"{self._what}: expected the arrays that the optimizer was made with, differing in "
                f"{', '.join(map(str, moved))}; change them in place, as array[...] = other"
            )
        return {
            name: as_writable(f"{self._what}[{name!r}]", array).view(np.ndarray)
            for name, array in arrays.items()
        }

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_own_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._own_lock = threading.RLock()

    def __repr__(self) -> str:
        return f"{self._what} ({', '.join(self._arrays)})"
