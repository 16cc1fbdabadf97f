"""The same modules within `fixed_weights`, which stays open: all calls are timed inside."""

from __future__ import annotations

import atexit
from contextlib import ExitStack
from typing import Any

from bench.libraries import Prepared, use_fastrnn_torch
from bench.problem import Problem
from fastrnn.torch import fixed_weights

_open = ExitStack()
atexit.register(_open.close)  # which says so if a weight has changed


def prepare(problem: Problem) -> Prepared:
    def hold(layer: Any) -> None:
        _open.enter_context(fixed_weights(layer))

    return use_fastrnn_torch.prepare(problem, hold)
