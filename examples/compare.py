"""Timing plain torch beside fastrnn."""

import time
from collections.abc import Callable

import torch

import fastrnn.torch

KINDS = ("torch", "fastrnn")


def use(kind: str, model: torch.nn.Module) -> None:
    """Leave a model to torch, or make its recurrent layers fastrnn's."""
    if kind == "fastrnn":
        print(fastrnn.torch.accelerate(model))


def milliseconds(function: Callable[[], object], repeats: int = 10) -> float:
    """Return the median time of a call, after one that is not timed."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2] * 1e3
