"""What every module with weights has: names, copies, views, editing, pickling, threads."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from ._arguments import Array, as_flag, as_threads, as_weights, detached, owned
from ._packing import Packing
from ._replacing import Target
from ._safetensors import FORMAT, write

M = TypeVar("M", bound="Module")  # typing.Self, which Python 3.10 has not

_DERIVED = ("_engine", "_packing")


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
            weight[...] = as_weights("edit", {name: value}, {name: weight.shape}, weight.dtype)[
                name
            ]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


class Module(ABC):
    """Weights under torch's names, and the packed form that computations use."""

    _weights: dict[str, Array]
    _packing: Packing[Any]
    _dtype: np.dtype[Any]
    _threads: int  # 0: the library's default
    _training: bool = True

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64: of weights, inputs and results alike."""
        return self._dtype

    @property
    def num_threads(self) -> int | None:
        """Threads a call may use at most; None: `fastrnn.get_num_threads()`. May be assigned."""
        return self._threads or None

    @num_threads.setter
    def num_threads(self, value: int | None) -> None:
        self._threads = as_threads("num_threads", value)

    @property
    def training(self) -> bool:
        """Whether dropout acts. May be assigned; see `train`."""
        return self._training

    @training.setter
    def training(self, value: bool) -> None:
        self._training = as_flag("training", value)

    def train(self: M, mode: bool = True) -> M:
        """Switch training mode on or off; return self. On at first.

        Dropout between recurrent layers acts in training mode alone; nothing else depends on it.
        """
        self._training = as_flag("mode", mode)
        return self

    def eval(self: M) -> M:
        """Switch training mode off; return self."""
        return self.train(False)

    def parameters(self) -> dict[str, Array]:
        """Return a read-only view of every weight, by torch's names; see `edit` for changing them.

        A view shows later changes of the weights. Writing to one raises NumPy's error: the packed
        weights that computations use would not notice.
        """
        views = {}
        for name, weight in self._weights.items():
            views[name] = view = weight.view()
            view.flags.writeable = False
        return views

    @contextmanager
    def edit(self) -> Iterator[Editable]:
        """Give writable arrays of all weights, by name, to be changed inside a with block.

        ::

            with layer.edit() as p:
                p["weight_hh_l0"] *= 0.5

        The layer computes with the new values once the block has ended, also when it ended in an
        exception. Streams keep the weights they had. Tapes made before the block or inside it are
        void from its beginning on: `backward` raises ValueError.

        Until the end a call computes with the weights from before the block. Where nothing has
        computed with those yet, one inside it takes the values of that moment instead, and one in
        another thread waits for the end.

        The arrays are read-only from then on. What the block has made of them, such as a slice or
        a reshaped view, NumPy leaves writable: a write through one after the block changes
        `parameters()`, and computations do not notice until the next edit. Keep none.
        """
        views = {name: weight.view() for name, weight in self._weights.items()}
        with self._packing.editing():
            try:
                yield Editable(views)
            finally:
                for view in views.values():  # one kept must not write unnoticed; its slices may
                    view.flags.writeable = False

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of every weight, by torch's names, all of the same moment.

        It waits while another thread edits the weights, a step of an optimizer among them, or packs
        them. Inside an `edit` block of one's own they are what the block has made of them so far.
        """
        with self._packing.lock:
            return {name: weight.copy() for name, weight in self._weights.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over all weights from a dict of arrays (torch tensors too) by torch's names.

        Raises:
            ValueError: names missing or unexpected, a wrong shape or dtype: all are listed in one
                message, and nothing has been loaded.
        """
        shapes = {name: weight.shape for name, weight in self._weights.items()}
        arrays = as_weights("state_dict", state_dict, shapes, self._dtype)
        # `parameters()` with names swapped: a later source would be an earlier target's new values.
        arrays = detached(arrays, self._weights.values())
        with self.edit() as weights:
            for name, array in arrays.items():
                weights[name][...] = array

    def save(self, path: Target) -> None:
        """Save weights and architecture as a safetensors file; `fastrnn.load` gives them back.

        The file appears whole or not at all. Its weights are those of one moment, as for
        `state_dict`. Dropout's generator, mode and threads are not kept: to move a module with
        all it knows, pickle it.

        Args:
            path: the file's name, or a writable binary file, which gets the bytes at its place:
                `buffer = io.BytesIO(); layer.save(buffer); fastrnn.load(buffer.getvalue())`.

        Raises:
            TypeError: `path` is neither of the two.
            ValueError: it is no name of a file, or a file that is not open for writing.
            OSError: writing failed. A file named by `path` is as it was before; a file object may
                have got a part.
        """
        # A copy: an edit waits for memory, not for a disk.
        write(path, self.state_dict(), FORMAT | self._architecture())

    @abstractmethod
    def _architecture(self) -> dict[str, str]:
        """Return what `load` makes the module from, as the metadata of a file holds it."""

    @abstractmethod
    def _build(self) -> None:
        """Make everything that is derived from the sizes and the weights."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in getattr(self, "_weights", ()):  # (a look at __dict__ would slow down calls)
            raise AttributeError(
                f"{name}: expected a change of this weight by `with layer.edit() as p: "
                f'p["{name}"] = ...` or by load_state_dict, got an assignment to an attribute'
            )
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """Weights, options, mode and the dropout generator, but no packed weights.

        The weights are copies: those who pickle read them later, when they may be edited again.
        """
        state = {name: value for name, value in self.__dict__.items() if name not in _DERIVED}
        return state | {"_weights": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # Those of a pickle with buffers of its own may be read-only, or somebody else's too.
        self._weights = {name: owned(weight) for name, weight in self._weights.items()}
        self._build()

    def __copy__(self: M) -> M:
        """Copy everything: of two layers sharing weights, one would not see the other's edits."""
        return copy.deepcopy(self)
