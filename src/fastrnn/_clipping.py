"""Gradients as optimizers take them, and the clipping of their norm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from . import _core, _threads
from ._arguments import Array, as_flag, as_real, as_writable
from ._memory import dense, entangled
from ._tape import Gradients

Grads: TypeAlias = Gradients[Any] | Mapping[str, Array]


def clip_grad_norm_(
    grads: Grads | Iterable[Grads], max_norm: float, *, error_if_nonfinite: bool = False
) -> float:
    """Scale weight gradients in place so that their joint 2-norm is at most `max_norm`.

    All are multiplied by min(1, max_norm / (norm + 1e-6)), torch's rule; the norm is summed in
    float64. With max_norm = inf nothing is changed: a norm to watch. An array that is the gradient
    of several weights counts for each and is multiplied once. A gradient that is an array of the
    model, too, as one factor is of the other, would change it: give a copy.

    Args:
        grads: one or several `Gradients` or weights dicts; only the weights' gradients count.
        max_norm: number >= 0, or inf.
        error_if_nonfinite: raise ValueError, changing nothing, when the norm is NaN or infinite.

    Returns:
        The norm before clipping.

    Raises:
        TypeError: a gradient that is no plain NumPy array of float32 or float64.
        ValueError: a gradient that cannot be written to; a `max_norm` that is none. Nothing is
            changed then.
    """
    max_norm = as_real("max_norm", max_norm, 0.0, infinite=True)
    strict = as_flag("error_if_nonfinite", error_if_nonfinite)
    arrays = [
        as_writable(f"grads: {name}", array)
        for gradients in as_dicts(grads)
        for name, array in gradients.items()
    ]
    total = math.sqrt(_core.sum_of_squares([dense(a) for a in arrays], _threads.default))
    if strict and not math.isfinite(total):
        raise ValueError(f"grads: expected a finite norm, got {total}")
    scale = max_norm / (total + 1e-6) if max_norm < math.inf else 1.0
    # NaN scales too, as in torch: a broken step must show.
    if not (scale >= 1.0 or _core.scale(arrays, scale, _threads.default)):
        with np.errstate(invalid="ignore", under="ignore"):  # Inf times zero
            _scale_entangled(arrays, scale)
    return total


def _scale_entangled(arrays: Sequence[Array], scale: float) -> None:
    """Multiply each in place by `scale`; what several of them share, once."""
    products = {i: np.multiply(arrays[i], scale, dtype=arrays[i].dtype) for i in entangled(arrays)}
    for array in arrays:  # what they share may be multiplied more than once, until the next lines
        array *= scale
    for i, product in products.items():
        arrays[i][...] = product


def as_dicts(grads: Grads | Iterable[Grads]) -> list[Mapping[str, Array]]:
    """Return the gradients of weights by name, of one module or several, or raise TypeError."""
    several = [grads] if isinstance(grads, (Gradients, Mapping)) else grads
    plain = isinstance(several, (list, tuple))  # Iterable takes longer to ask for
    if not plain and (not isinstance(several, Iterable) or isinstance(several, (np.ndarray, str))):
        raise TypeError(
            f"grads: expected Gradients or dicts of arrays, got {type(several).__name__}"
        )
    dicts: list[Mapping[str, Array]] = []
    for one in several:
        weights = one.weights if isinstance(one, Gradients) else one
        if not isinstance(weights, Mapping):
            raise TypeError(
                f"grads: expected Gradients or dicts of arrays, got {type(one).__name__}"
            )
        dicts.append(weights)
    return dicts
