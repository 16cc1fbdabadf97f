"""Weights by name, and the ways to read and change them: of modules, and of a caller's arrays."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from ._arguments import Array, as_weights, forms
from ._memory import detached, read_only


class Editable(Mapping[str, Array]):
    """Writable weights: `p[name] = array` writes the values, as `p[name] *= 2` does.

    The arrays are the weights themselves, not copies. As with NumPy's views, `p["a"], p["b"] =
    p["b"], p["a"]` does not swap, since the second reads what the first has written: copy one.
    """

    def __init__(self, weights: dict[str, Array]) -> None:
        self._weights = weights

    def __getitem__(self, name: str) -> Array:
        try:
            return self._weights[name]
        except KeyError:
            expected = ", ".join(self._weights)
            raise KeyError(f"edit: expected one of {expected}, got {name!r:.80}") from None

    def __setitem__(self, name: str, value: Any) -> None:
        weight = self[name]
        if value is not weight:  # `p[name] *= 2` ends with p[name] = p[name]
            weight[...] = as_weights("edit", {name: value}, forms({name: weight}))[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


class Trainable(ABC):
    """What an optimizer trains: weights by name, changed by one thread at a time."""

    @property
    @abstractmethod
    def _lock(self) -> threading.RLock:
        """Held while the weights are edited or copied."""

    def parameters(self) -> dict[str, Array]:
        """Return a read-only view of every weight, by name (torch's); see `edit` for changing them.

        A view shows later changes of the weights. Writing to one raises NumPy's error: the packed
        weights that computations use would not notice.

        Raises:
            ValueError: as `edit`, of arrays of one's own.
        """
        return read_only(self._present())

    @abstractmethod
    def _present(self) -> dict[str, Array]:
        """Return the weights themselves, by name; raises as `edit`."""

    @abstractmethod
    def _changing(self) -> AbstractContextManager[Mapping[str, Array]]:
        """Give the weights themselves for one change of all, which ends with the block."""

    @abstractmethod
    def edit(self) -> AbstractContextManager[Editable]:
        """Give writable arrays of all weights, by name, to be changed inside a with block."""

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of every weight, by name (torch's), all of the same moment.

        It waits while another thread edits the weights, a step of an optimizer among them, or packs
        them. Inside an `edit` block of one's own they are what the block has made of them so far.
        """
        with self._lock:
            return {name: weight.copy() for name, weight in self.parameters().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over all weights from a dict of arrays (torch tensors too) by their names (torch's).

        Raises:
            ValueError: names missing or unexpected, a wrong shape or dtype: all are listed in one
                message, and nothing has been loaded.
        """
        weights = self.parameters()
        arrays = as_weights("state_dict", state_dict, forms(weights))
        # `parameters()` with names swapped: a later source would be an earlier target's new values.
        arrays = detached(arrays, weights.values())
        with self.edit() as edited:
            for name, array in arrays.items():
                edited[name][...] = array
