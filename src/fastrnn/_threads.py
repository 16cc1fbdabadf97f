"""How many threads the library may use."""

from __future__ import annotations

import os

from . import _core
from ._arguments import MOST_THREADS, as_threads

_VARIABLE = "FASTRNN_NUM_THREADS"


def _from_environment() -> int:
    text = os.environ.get(_VARIABLE, "").strip()
    if not text:
        return 0
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise ValueError(f"{_VARIABLE}: expected an integer >= 1, got {text!r}")
    return as_threads(_VARIABLE, count)


_at_import = default = _from_environment()  # 0: all that the process may use


def set_num_threads(n: int | None) -> None:
    """Set how many threads a call may use at most, for layers without a `num_threads` of their own.

    Small work runs on one thread whatever the setting, and results do not depend on it: not by a
    bit. The environment variable FASTRNN_NUM_THREADS sets the same at import. None: back to what
    it was then.

    Raises:
        TypeError, ValueError: `n` is no integer, or not in 1..1,024, what every `num_threads` of
            this package takes.
    """
    global default
    default = as_threads("n", n) or _at_import


def get_num_threads() -> int:
    """Return how many threads a call may use at most; at first, all cores of this process."""
    return default or min(_core.available_threads(), MOST_THREADS)
