"""What every module with weights has: names, copies, views, editing, pickling, threads."""

from __future__ import annotations

import copy
import threading
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import numpy as np

from ._arguments import Array, as_flag, as_threads
from ._memory import owned
from ._packing import Packing
from ._replacing import Target
from ._safetensors_writer import FORMAT, write
from ._trainable import Editable, Trainable

M = TypeVar("M", bound="Module")  # typing.Self, which Python 3.10 has not

_DERIVED = ("_engine", "_packing")


class Module(Trainable):
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
        """Threads a call may use at most, 1 to 1,024, or None: `fastrnn.get_num_threads()`.

        May be assigned.
        """
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

    def _present(self) -> dict[str, Array]:
        return self._weights

    def _changing(self) -> AbstractContextManager[dict[str, Array]]:
        return self._packing.editing(self._weights)

    @property
    def _lock(self) -> threading.RLock:
        return self._packing.lock

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
        computed with those yet, or single steps alone, one inside it takes the values of that
        moment instead, and one in another thread waits for the end.

        The arrays are read-only from then on. What the block has made of them, such as a slice or
        a reshaped view, NumPy leaves writable: a write through one after the block changes
        `parameters()`, and computations do not notice until the next edit. Keep none.
        """
        views = {name: weight.view() for name, weight in self._weights.items()}
        with self._packing.editing(Editable(views)) as editable:
            try:
                yield editable
            finally:
                for view in views.values():  # one kept must not write unnoticed; its slices may
                    view.flags.writeable = False

    def save(self, path: Target, *, compact: bool = False) -> None:
        """Save weights and architecture as a safetensors file; `fastrnn.load` gives them back.

        The file appears whole or not at all. Its weights are those of one moment, as for
        `state_dict`. Dropout's generator, mode and threads are not kept: to move a module with
        all it knows, pickle it.

        Args:
            path: the file's name, or a writable binary file, which gets the bytes at its place:
                `buffer = io.BytesIO(); layer.save(buffer); fastrnn.load(buffer.getvalue())`.
            compact: float32 weights of which bfloat16 or float16 holds every value take half the
                bytes; they come back as float32, bit for bit.

        Raises:
            TypeError: `path` is neither of the two; `compact` is no bool.
            ValueError: it is no name of a file, or a file that is not open for writing.
            OSError: writing failed. A file named by `path` is as it was before; a file object may
                have got a part.
        """
        # A copy: an edit waits for memory, not for a disk.
        compact = as_flag("compact", compact)
        write(path, self.state_dict(), FORMAT | self._architecture(), compact=compact)

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
