"""When to repack: the native, packed form of a module's weights and who is using it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

N = TypeVar("N")
G = TypeVar("G")


# Passes that read the weights where they lie before these are packed: to pack them takes as long as
# some five of them (LSTM H512 on Zen 4, forward, one thread: 1 ms and 0.2).
_MOST_TAKEN = 4


class Lease(Generic[N]):
    """One native form of a version of the weights, packed or taken, and its present users.

    Later leases of the same form share the list of users.
    """

    __slots__ = ("kept", "native", "taken", "users", "version")

    def __init__(self, native: N, version: int, taken: int, users: list[None]) -> None:
        self.native = native
        self.version = version
        self.taken = taken  # how many passes have read the weights where they lie; 0: packed
        self.kept = False  # a stream holds these weights for as long as it lives
        # One entry per running call. append and pop are atomic, where `count += 1` is not.
        self.users = users


class Packing(Generic[N]):
    """Packs lazily when the version moved on, in place when nobody computes with the old weights.

    In-place matters: training repacks each step, and fresh memory for the packed weights would
    cost its page faults each time. Calls from any number of threads go through `acquire`, which
    takes no lock while the weights stand still.
    """

    __slots__ = ("_fill", "_freeze", "_lease", "_make", "_take", "begun", "lock", "version")

    def __init__(
        self,
        make: Callable[[], N],
        fill: Callable[..., None],
        freeze: Callable[[N], None] = lambda _: None,
        take: Callable[..., bool] = lambda *_: False,
    ) -> None:
        self._make = make
        self._fill = fill  # called with the packed form and what `acquire` was told
        self._freeze = freeze  # copies the weights that a packed form was made of
        self._take = take  # as _fill, for a pass that needs nothing packed; False where it does
        self._lease: Lease[N] | None = None
        self.version = 0  # how many edits have ended
        self.begun = 0  # how many have begun: `version` while the weights stand still
        self.lock = threading.RLock()  # held while the weights are edited or packed

    def acquire(
        self, threads: int = 1, x: Any = None, batch_first: bool = False, once: bool = False
    ) -> Lease[N]:
        """Return the packed form of the present weights, in use until `lease.users.pop()`.

        (A method for that would take 30 ns a call.)

        The arguments, of the call to come, are for who packs them anew where they have changed.
        (Not `*use`: that takes 40 ns a call.) With `once` the lease may be `taken`, for the first
        calls since they changed, where that takes less time. They may change while it is used: if
        `begun` is another than the lease's version then, the results are void, and the caller asks
        once more, without `once`.
        """
        lease = self._lease
        if lease is not None:
            lease.users.append(None)
            # Registered first, checked second: the version moves on first, and whoever repacks
            # counts users second, so one of the two sees the other.
            if lease.version == self.version and not lease.taken:
                return lease
            lease.users.pop()
        return self._renew(threads, x, batch_first, once)

    def keep(self) -> N:
        """Return the packed form of the present weights, never to be repacked in place."""
        with self.lock:
            if self.begun != self.version:  # as in this moment of an edit: it will not come again
                native = self._make()
                self._fill(native)
                self._freeze(native)
                return native
            lease = self.acquire()
            lease.kept = True
            lease.users.pop()
            return lease.native

    def editing(self, given: G) -> Editing[G]:
        """The weights change inside this block, and every packed form is void afterwards.

        Packed forms that were given away for good first copy the weights they were made of. Calls
        inside go on with the packed form that there is, which `backward` cannot: it reads or packs
        the weights themselves.

        Args:
            given: what the block is to have, `with editing(given) as given`.
        """
        return Editing(self, given)

    def _renew(self, threads: int, x: Any, batch_first: bool, once: bool) -> Lease[N]:
        with self.lock:
            last, version = self._lease, self.version
            taken = 0  # passes that have taken the present weights
            if last is not None and last.version == version:
                taken = last.taken
                if not taken:
                    last.users.append(None)
                    return last
            self._lease = None
            native, users = self._reusable(last, taken) or (self._make(), [])
            again = once and taken < _MOST_TAKEN and self.begun == version
            if again and self._take(native, x, batch_first):
                taken += 1
            else:
                self._fill(native, threads, x, batch_first)
                taken = 0
            self._lease = lease = Lease(native, version, taken, users)
            lease.users.append(None)
            return lease

    @staticmethod
    def _reusable(last: Lease[N] | None, taken: int) -> tuple[N, list[None]] | None:
        """Return a form that may be filled anew, and its users: who has taken the present weights
        is not disturbed."""
        if last is None or (not taken and (last.kept or last.users)):
            return None
        return last.native, last.users


class Editing(Generic[G]):
    """A block of `Packing.editing`. (Written as a generator it takes an optimizer 1 us a step.)"""

    __slots__ = ("_given", "_packing")

    def __init__(self, packing: Packing[Any], given: G) -> None:
        self._packing = packing
        self._given = given

    def __enter__(self) -> G:
        packing = self._packing
        packing.lock.acquire()
        try:
            lease = packing._lease
            if packing.begun == packing.version and lease is not None and lease.kept:
                packing._freeze(lease.native)
        except BaseException:
            packing.lock.release()
            raise
        packing.begun += 1
        return self._given

    def __exit__(self, *_: object) -> None:
        self._packing.version += 1
        self._packing.lock.release()


class Together(Generic[G]):
    """Several blocks as one: `with Together(edits) as given`. (By ExitStack: 4 us more a step.)"""

    __slots__ = ("_blocks", "_entered")

    def __init__(self, blocks: Sequence[AbstractContextManager[G]]) -> None:
        self._blocks = blocks
        self._entered = 0

    def __enter__(self) -> list[G]:
        given = []
        try:
            for block in self._blocks:
                given.append(block.__enter__())
                self._entered += 1
        except BaseException:
            self.__exit__()
            raise
        return given

    def __exit__(self, *_: object) -> None:
        for block in reversed(self._blocks[: self._entered]):
            block.__exit__(None, None, None)


class Holding:
    """A block that holds all of some locks, having waited for none while holding another.

    Whoever edits one of several modules may need another one inside: a thread that took their
    locks in a fixed order would wait for it for ever, and it for that thread.
    """

    __slots__ = ("_locks",)

    def __init__(self, wanted: Iterable[threading.RLock]) -> None:
        self._locks = list(wanted)

    def __enter__(self) -> None:
        while busy := self._busy():
            self._locks.sort(key=lambda lock: lock is not busy)  # to be waited for, first next time

    def _busy(self) -> threading.RLock | None:
        """Take all of them and return None; or none, and return one that another thread holds."""
        held: list[threading.RLock] = []
        try:
            for lock in self._locks:
                if not lock.acquire(blocking=not held):
                    return lock
                held.append(lock)
            held = []
            return None
        finally:
            for lock in reversed(held):
                lock.release()

    def __exit__(self, *_: object) -> None:
        for lock in reversed(self._locks):
            lock.release()
