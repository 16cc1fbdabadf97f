"""When to repack: the native, packed form of a module's weights and who is using it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

N = TypeVar("N")


class Lease(Generic[N]):
    """One packed form, the version of the weights it holds, and its present users."""

    __slots__ = ("kept", "native", "users", "version")

    def __init__(self, native: N, version: int) -> None:
        self.native = native
        self.version = version
        self.kept = False  # a stream holds these weights for as long as it lives
        # One entry per running call. append and pop are atomic, where `count += 1` is not.
        self.users: list[None] = []


class Packing(Generic[N]):
    """Packs lazily when the version moved on, in place when nobody computes with the old weights.

    In-place matters: training repacks each step, and fresh memory for the packed weights would
    cost its page faults each time. Calls from any number of threads go through `acquire` and
    `release`, which take no lock while the weights stand still.
    """

    __slots__ = ("_fill", "_lease", "_make", "lock", "version")

    def __init__(self, make: Callable[[], N], fill: Callable[[N, int], None]) -> None:
        self._make = make
        self._fill = fill
        self._lease: Lease[N] | None = None
        self.version = 0
        self.lock = threading.RLock()  # held while the weights are edited or packed

    def acquire(self, threads: int = 1) -> Lease[N]:
        """Return the packed form of the present weights, counted as in use until `release`.

        `threads` may pack them anew, where they have changed.
        """
        lease = self._lease
        if lease is not None:
            lease.users.append(None)
            # Registered first, checked second: whoever repacks takes the lease away first and
            # counts users second, so one of the two sees the other.
            if lease is self._lease and lease.version == self.version:
                return lease
            lease.users.pop()
        return self._renew(threads)

    @staticmethod
    def release(lease: Lease[N]) -> None:
        """Give a lease back."""
        lease.users.pop()

    def keep(self) -> N:
        """Return the packed form of the present weights, never to be repacked in place."""
        lease = self.acquire()
        lease.kept = True
        lease.users.pop()
        return lease.native

    def _renew(self, threads: int) -> Lease[N]:
        with self.lock:
            old = self._lease
            if old is not None and old.version == self.version:
                old.users.append(None)
                return old
            version = self.version
            self._lease = None
            reusable = old is not None and not old.kept and not old.users
            native = old.native if old is not None and reusable else self._make()
            self._fill(native, threads)
            lease = Lease(native, version)
            lease.users.append(None)
            self._lease = lease
            return lease
