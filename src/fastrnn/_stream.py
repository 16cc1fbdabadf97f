"""Streams: how they travel, and pools of them."""

from __future__ import annotations

import copy
import copyreg
import operator
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy.typing as npt

from . import _core
from ._arguments import MOST_SIZE, Array, as_size
from ._recurrent import Recurrent

P = TypeVar("P", bound="StreamPool")  # typing.Self, which Python 3.10 has not


class StreamPool(_core.StreamPool):
    """Many independent streams of one layer, any of them stepped together as one batch.

    ::

        pool = fastrnn.StreamPool(lstm, capacity=1000)
        a, b = pool.join(), pool.join()
        y = pool.step([b, a], x)         # x [2, I], y [2, P]: row 0 is b's, row 1 is a's
        y = pool.process([b, a], x)      # x [T, 2, I], y [T, 2, P]: T steps at once
        pool.leave(a)

    The bits of a stream are those of a `Stream` of its own, whoever shares its steps and in which
    order. It keeps the weights the layer has now; dropout does not act. A pool is used from one
    thread at a time: a call that meets another one is a RuntimeError. It can be copied and pickled.

    Args:
        layer: an RNN, LSTM or GRU, not bidirectional.
        capacity: how many streams it can hold, 1 to 1,048,576; their memory is taken now.
        num_threads: threads that a step may use at most, 1 to 1,024; small steps run on one. None:
            as many as a call of the layer.

    Raises:
        TypeError: `layer` is no recurrent layer.
        ValueError: it is bidirectional; `capacity` or `num_threads` out of range.
    """

    def __init__(
        self, layer: Recurrent[Any], capacity: int, *, num_threads: int | None = 1
    ) -> None:
        if not isinstance(layer, Recurrent):
            raise TypeError(f"layer: expected an RNN, LSTM or GRU, got {type(layer).__name__}")
        if layer.bidirectional:
            raise ValueError("layer: expected bidirectional=False, got True")
        capacity = as_size("capacity", capacity, 1, MOST_SIZE)
        super().__init__(layer._packing.keep(), capacity, layer._stream_threads(num_threads))

    def join(self, state: Any = None) -> int:
        """Add a stream and return its id, an integer that no other stream of this pool ever has.

        It starts from zeros, or from `state` as for `set_state`.

        Raises:
            RuntimeError: the pool is full, or another thread uses it.
            TypeError, ValueError: a wrong dtype or shape of `state`. Nobody has joined then.
        """
        return super().join(state)

    def leave(self, id: int) -> None:
        """Remove a stream. Its id is unknown from now on.

        Raises:
            ValueError: no stream of the pool has this id.
        """
        super().leave(_as_id(id))

    def reset(self, ids: int | Sequence[int] | npt.NDArray[Any]) -> None:
        """Set the state of one stream to zero, or of several; after an error, of none.

        Args:
            ids: an id, or integers [n] in any order, each once.

        Raises:
            TypeError: no integers.
            ValueError: no stream of the pool has this id; an id that comes twice.
        """
        super().reset([_as_id(ids, "ids")] if _is_one(ids) else ids)

    def get_state(self, id: int) -> Any:
        """Return a copy of a stream's state: h [L, P], for LSTM (h, c) with c [L, H].

        Raises:
            ValueError: no stream of the pool has this id.
        """
        return super().get_state(_as_id(id))

    def set_state(self, id: int, state: Any) -> None:
        """Set a stream's state: as `get_state` returns it, or a batch of one, [L, 1, P].

        The latter is what the `state` of a `Stream` of one row is.

        Raises:
            TypeError: a wrong dtype; no pair (h, c) for an LSTM.
            ValueError: a wrong shape; no stream of the pool has this id. Nothing has changed.
        """
        super().set_state(_as_id(id), state)

    def __contains__(self, id: object) -> bool:
        """Whether a stream has this id; False for what cannot be one."""
        try:
            number = _as_id(id)
        except (TypeError, ValueError):
            return False
        return super().__contains__(number)

    def _fill(
        self, network: _core.Network, capacity: int, num_threads: int, book: Any, states: Any
    ) -> None:
        """Initialise a new object as a pool with these ids and states."""
        super().__init__(network, capacity, num_threads)
        self._restore(*book)
        for id, state in states.items():
            super().set_state(id, state)

    def __reduce__(self) -> tuple[Any, ...]:
        states = {id: self.get_state(id) for id in self.ids.tolist()}
        threads = self.num_threads
        pool = (type(self), self._network, self.capacity, threads, self._book(), states)
        return _make_pool, pool, vars(self)  # what a subclass or its user has added

    def _twin(self: P) -> P:
        """Make another pool with the same ids at the same points; it shares the packed weights."""
        states = {id: self.get_state(id) for id in self.ids.tolist()}
        pool = type(self).__new__(type(self))
        pool._fill(self._network, self.capacity, self.num_threads, self._book(), states)
        return pool

    def __copy__(self: P) -> P:
        pool = self._twin()
        vars(pool).update(vars(self))
        return pool

    def __deepcopy__(self: P, memo: dict[int, Any]) -> P:
        memo[id(self)] = pool = self._twin()
        vars(pool).update(copy.deepcopy(vars(self), memo))
        return pool


def _as_id(value: Any, name: str = "id") -> int:
    return as_size(name, value, 0, (1 << 63) - 1)


def _is_one(ids: Any) -> bool:
    try:
        operator.index(ids)
    except TypeError:  # several; what is neither, the core refuses
        return False
    return True


def _make_network(config: tuple[Any, ...], weights: list[Array]) -> _core.Network:
    network = _core.Network(*config)
    network.pack(weights)
    return network


def _reduce_network(network: _core.Network) -> tuple[Any, ...]:
    return _make_network, (network.config, network.weights())


def _as_network(value: Any) -> _core.Network:
    if not isinstance(value, _core.Network):
        raise TypeError(f"network: expected the weights of a stream, got {type(value).__name__}")
    return value


def _make_pool(
    cls: type[P],
    network: _core.Network,
    capacity: int,
    num_threads: int,
    book: Any,
    states: Any,
) -> P:
    pool = cls.__new__(cls)
    pool._fill(_as_network(network), capacity, num_threads, book, states)
    return pool


def _make_stream(
    network: _core.Network, batch_size: int, num_threads: int, state: Any
) -> _core.Stream:
    stream = _core.Stream(_as_network(network), batch_size, num_threads)
    stream.state = state
    return stream


def _reduce_stream(stream: _core.Stream) -> tuple[Any, ...]:
    return _make_stream, (stream._network, stream.batch_size, stream.num_threads, stream.state)


# The network travels as an object of its own: pickle writes the weights once for all the streams
# and pools that share it, and they share it where they arrive.
copyreg.pickle(_core.Network, _reduce_network)
copyreg.pickle(_core.Stream, _reduce_stream)
