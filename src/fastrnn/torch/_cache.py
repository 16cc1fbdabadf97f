"""Kernels for calls that bring nothing but tensors: found again by where the weights lie."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from .._spec import CELLS
from ._call import Tensor
from ._kernel import Kernel


class _Storages:
    """Where some weights lie, and whether all of it is still theirs."""

    def __init__(self, weights: list[Tensor]) -> None:
        self._held = [StorageWeakRef(w.untyped_storage()) for w in weights]
        self._at = [held.cdata for held in self._held]  # for one call, not one each

    def gone(self) -> bool:
        return any(map(torch.UntypedStorage._expired, self._at))


_MOST = 1024  # kernels kept; more layers than that in one process pack their weights at every call
_lock = threading.Lock()
_kernels: OrderedDict[Any, tuple[Kernel, _Storages]] = OrderedDict()


def config_of(
    weights: list[Tensor], cell: str, num_layers: int, bias: bool, bidirectional: bool
) -> tuple[Any, ...]:
    """Kernel's arguments, its sizes read from the first two weights."""
    if cell not in CELLS:
        raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {cell!r}")
    if len(weights) < 2 or weights[0].dim() != 2 or weights[1].dim() != 2:
        raise ValueError("weights: expected weight_ih and weight_hh, 2-D each, first of all")
    rows, input_size = weights[0].shape
    hidden_size, output_size = rows // CELLS[cell].gates, weights[1].shape[1]
    proj_size = 0 if output_size == hidden_size else output_size
    return cell, input_size, hidden_size, num_layers, bias, bidirectional, proj_size


def kernel_for(weights: list[Tensor], *options: Any) -> Kernel:
    """The kernel whose packed weights are those of these tensors, or a new one.

    It goes when the memory of any of its weights has gone and another kernel is made: weights that
    are computed anew for each call (weight_norm) lie somewhere else each time, beside parameters
    that stay.
    """
    config = config_of(weights, *options)
    key = (config, *[w.data_ptr() for w in weights])
    with _lock:
        kernel, storages = _kernels.get(key, (None, None))
        if kernel is not None and storages is not None and not storages.gone():
            _kernels.move_to_end(key)
            return kernel
        if kernel is None:
            for stale in [k for k, (_, held) in _kernels.items() if held.gone()]:
                del _kernels[stale]
            kernel = Kernel(*config)
        # Else new weights lie where those of a call before have lain.
        _kernels[key] = kernel, _Storages(weights)
        _kernels.move_to_end(key)
        if len(_kernels) > _MOST:
            _kernels.popitem(last=False)
        return kernel
