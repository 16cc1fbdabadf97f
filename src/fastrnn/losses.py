"""Losses, each with its gradient: `loss, dpred = mse(pred, target)`.

They return a Python float, summed in float64, and the gradient in the prediction's shape and dtype.
`reduction` is "mean" (over all that counts) or "sum". The mean of nothing is NaN, as in torch, with
gradient zero. What does not count, by `mask` or `ignore_index`, is not looked at and may be NaN.
Weights and label smoothing mean what they mean in torch.
Where a value is too small for its dtype it is zero, whatever `np.errstate` says of underflow.
For rows that end at `lengths`::

    mask = np.arange(T)[:, None] < lengths    # [T, B]
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ._arguments import (
    Array,
    Shape,
    as_array,
    as_choice,
    as_floats,
    as_indices,
    as_real,
    as_size,
    as_values,
    shape_error,
    show_shape,
)

__all__ = ["bce_with_logits", "cross_entropy", "mse"]


def mse(
    pred: Any, target: Any, *, mask: Any = None, reduction: str = "mean"
) -> tuple[float, Array]:
    """Mean squared error and its gradient with respect to `pred`.

    loss = sum (pred - target)^2 / N over the N numbers that count, with "sum" without N; the
    gradient is 2 (pred - target) / N.

    Args:
        pred: float32 or float64, any shape.
        target: the same shape and dtype.
        mask: bool, in the shape of pred's first axes, for example [T, B]: what counts.
        reduction: "mean" or "sum".

    Raises:
        TypeError: a dtype that is not float32 or float64, or not the same; a mask that is not bool.
        ValueError: shapes that differ (nothing is broadcast), an unknown reduction.
    """
    pred, target, counted, count = _elementwise("pred", pred, target, mask, reduction)
    where = True if counted is None else counted
    with np.errstate(under="ignore"):
        difference = np.subtract(pred, target, out=np.zeros_like(pred), where=where)
        loss = float(np.square(difference, dtype=np.float64).sum())
        difference *= 2.0 / max(count, 1)
    return _divided(loss, count), difference


def bce_with_logits(
    logits: Any,
    target: Any,
    *,
    mask: Any = None,
    pos_weight: Any = None,
    reduction: str = "mean",
) -> tuple[float, Array]:
    """Binary cross-entropy of sigmoid(logits), and its gradient with respect to `logits`.

    For answers that are yes or no, each for itself: is this frame speech, which tags hold.
    loss = -sum (k target log p + (1 - target) log(1 - p)) / N over the N numbers that count, with
    "sum" without N; p = sigmoid(logits) and k = `pos_weight`. Nothing overflows. The gradient is
    ((1 - target) p - k target (1 - p)) / N.

    Args:
        logits: float32 or float64, any shape.
        target: the same shape and dtype, each in 0..1.
        mask: bool, in the shape of logits' first axes, for example [T, B]: what counts.
        pos_weight: what a yes weighs where a no weighs 1, above 1 where it is the rarer answer: a
            number >= 0, or an array of them, of logits' dtype, that broadcasts to logits' shape,
            for example [C] of tags in the last axis. N does not depend on it. None: 1.
        reduction: "mean" or "sum".

    Raises:
        TypeError: a dtype that is not float32 or float64, or not the same; a mask that is not bool.
        ValueError: shapes that differ (only pos_weight is broadcast); a target outside 0..1 that
            counts; a weight that is negative or not finite; an unknown reduction.
    """
    logits, target, counted, count = _elementwise("logits", logits, target, mask, reduction)
    weight = None if pos_weight is None else _pos_weight(pos_weight, logits)
    if counted is not None:  # NumPy makes scalars of arrays without an axis
        zero = logits.dtype.type(0)
        logits, target = (np.asarray(np.where(counted, a, zero)) for a in (logits, target))
    if target.size and not (target.min() >= 0 and target.max() <= 1):  # or NaN
        wrong = target[~((target >= 0) & (target <= 1))]
        raise ValueError(f"target: expected values in 0..1, got {wrong[0]}")
    with np.errstate(under="ignore"):
        losses, gradient = _binary_cross_entropy(logits, target, weight)
        if counted is not None:
            losses, gradient = (np.asarray(np.where(counted, a, zero)) for a in (losses, gradient))
        gradient /= gradient.dtype.type(max(count, 1))
    return _divided(float(losses.sum(dtype=np.float64)), count), gradient


def _binary_cross_entropy(x: Array, target: Array, weight: Array | None) -> tuple[Array, Array]:
    """(1 - t) p - k t (1 - p) as it stands: of p - t, t = 1, rounding leaves nothing in time."""
    one = x.dtype.type(1)
    no, yes = one - target, target if weight is None else weight * target
    small = np.exp(-np.abs(x))
    above, rest, whole = np.maximum(x, x.dtype.type(0)), np.log1p(small), one + small
    losses = np.asarray(no * (above + rest) + yes * (above - x + rest))
    p, not_p = np.maximum(small, x >= 0) / whole, np.maximum(small, x < 0) / whole
    return losses, np.asarray(no * p - yes * not_p)


def _pos_weight(given: Any, logits: Array) -> Array:
    """Return `pos_weight`, a number or an array, as an array of logits' dtype, or raise."""
    if isinstance(given, (int, float, np.integer, np.floating)):
        largest = float(np.finfo(logits.dtype).max)
        return np.asarray(as_real("pos_weight", given, 0.0, largest), logits.dtype)
    weight = _weights("pos_weight", given, logits.dtype)
    try:
        fits = np.broadcast_shapes(weight.shape, logits.shape) == logits.shape
    except ValueError:
        fits = False
    if not fits:
        expected = f"one that broadcasts to {show_shape(logits.shape)} (that of logits)"
        raise shape_error("pos_weight", expected, weight.shape)
    return weight


def _weights(name: str, given: Any, dtype: np.dtype[Any]) -> Array:
    """Return an array of finite numbers >= 0, or raise."""
    weights = as_array(name, given, dtype)
    wrong = ~((weights >= 0) & (weights < np.inf))
    if wrong.any():
        raise ValueError(f"{name}: expected finite numbers >= 0, got {weights[wrong].flat[0]}")
    return weights


def _elementwise(
    name: str, pred: Any, target: Any, mask: Any, reduction: str
) -> tuple[Array, Array, npt.NDArray[np.bool_] | None, int]:
    """The arguments checked: prediction, target, what counts if not all, what to divide by."""
    mean = as_choice("reduction", reduction, ("mean", "sum")) == "mean"
    pred = as_floats(name, pred)
    target = as_array("target", target, pred.dtype)
    if target.shape != pred.shape:
        raise shape_error("target", f"{show_shape(pred.shape)} (that of {name})", target.shape)
    if mask is None:
        return pred, target, None, pred.size if mean else 1
    counted = _mask(mask, pred.shape, name)
    return pred, target, counted, int(np.count_nonzero(counted)) if mean else 1


def _mask(mask: Any, shape: Shape, name: str) -> npt.NDArray[np.bool_]:
    """Return it in this shape, that of `name`, of which it may have the first axes, or raise."""
    mask = as_values("mask", mask, bool)
    if mask.dtype != bool:
        raise TypeError(f"mask: expected dtype bool, got {mask.dtype}")
    if mask.shape != shape[: mask.ndim]:
        expected = f"{show_shape(shape)} (that of {name}), or its first axes"
        raise shape_error("mask", expected, mask.shape)
    return np.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)


def _divided(loss: float, count: float) -> float:
    return loss / count if count else float("nan")


def cross_entropy(
    logits: Any,
    target: Any,
    *,
    mask: Any = None,
    weight: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> tuple[float, Array]:
    """Softmax cross-entropy and its gradient with respect to `logits`.

    loss = -sum sum_c q[c] log softmax(logits)[c] / N over the positions that count; with "mean" N
    is the sum of their targets' weights, without `weight` their number; with "sum" it is 1.
    q[c] = weight[c] ((1 - s) [c = target] + s / C) for s = label_smoothing: without the two it is 1
    for the target and 0 for the others. The gradient is (softmax(logits) sum_c q[c] - q) / N.
    Nothing overflows.

    Args:
        logits: [..., C], float32 or float64; the classes are the last axis (in torch the second).
        target: [...], integers: the true class of each position, 0..C-1.
        mask: bool, in the shape of target or of its first axes: which positions count.
        weight: [C], logits' dtype, each >= 0: what a class counts, above 1 for a rare one. None: 1.
        ignore_index: positions whose target has this value count for nothing (padding).
        label_smoothing: in 0..1, the share of the truth that goes to all classes alike.
        reduction: "mean" (over the positions that count) or "sum".

    Raises:
        TypeError: a dtype that is not float32 or float64, or weights of another one than logits';
            targets or an `ignore_index` that are no integers; a mask that is not bool; a
            `label_smoothing` that is no number.
        ValueError: a shape that does not fit; a class outside 0..C-1; a weight that is negative or
            not finite; a `label_smoothing` outside 0..1; an unknown reduction.
    """
    mean = as_choice("reduction", reduction, ("mean", "sum")) == "mean"
    logits = as_floats("logits", logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise shape_error("logits", "[..., C] with C >= 1 classes", logits.shape)
    classes = logits.shape[-1]
    smoothing = as_real("label_smoothing", label_smoothing, 0.0, 1.0)
    if weight is not None:
        weight = _weights("weight", weight, logits.dtype)
        if weight.shape != (classes,):
            raise shape_error("weight", f"[{classes}] (logits' classes)", weight.shape)
    target, counted = _targets(target, logits.shape, mask, ignore_index)
    rows = logits.reshape(-1, classes)
    if counted is not None:
        rows = np.where(counted[:, None], rows, 0)
    with np.errstate(under="ignore"):
        loss, gradient = _cross_entropy(rows, target, counted, weight, smoothing, mean)
    return loss, gradient.reshape(logits.shape)


def _targets(
    target: Any, shape: Shape, mask: Any, ignore_index: int | None
) -> tuple[Array, npt.NDArray[np.bool_] | None]:
    """Return the classes [N] for logits of this shape, and which count, or None if all do."""
    target = as_indices("target", target)
    if target.shape != shape[:-1]:
        expected = f"{show_shape(shape[:-1])} (that of logits without its last axis)"
        raise shape_error("target", expected, target.shape)
    counted = None if mask is None else _mask(mask, target.shape, "target").reshape(-1)
    target = target.reshape(-1)
    if ignore_index is not None:
        others = target != as_size("ignore_index", ignore_index, -(2**63), 2**63 - 1)
        counted = others if counted is None else counted & others
    if counted is not None:
        target = np.where(counted, target, 0)
    if target.size and not (target.min() >= 0 and target.max() < shape[-1]):
        got = target[(target < 0) | (target >= shape[-1])][0]
        hint = f"; did you mean ignore_index={got}?" if got < 0 and ignore_index is None else ""
        raise ValueError(f"target: expected classes in 0..{shape[-1] - 1}, got {got}{hint}")
    return target, counted


def _cross_entropy(
    logits: Array,
    target: Array,
    counted: npt.NDArray[np.bool_] | None,
    weight: Array | None,
    smoothing: float,
    mean: bool,
) -> tuple[float, Array]:
    """loss = sum_c q[c] (log(sum(exp(l))) - l[c]);  dlogits = sum(q) softmax(l) - q."""
    rows, classes = np.arange(len(target)), logits.shape[1]
    shifted = logits - logits.max(axis=1, keepdims=True)  # exp cannot overflow
    gradient = np.exp(shifted)
    sums = gradient.sum(axis=1, keepdims=True)
    gradient /= sums
    np.log(sums, out=sums)
    weights = np.float64(1) if weight is None else weight
    counts = np.ones(len(target), logits.dtype) if weight is None else weight[target]
    # q is `spread`, and `own` more for the target.
    own, spread = (1.0 - smoothing) * counts, smoothing / classes * weights
    losses = np.multiply(sums[:, 0] - shifted[rows, target], own, dtype=np.float64)
    if smoothing:
        losses += ((sums - shifted) * spread).sum(axis=1, dtype=np.float64)
    if weight is not None:  # else sum(q) = 1
        gradient *= (own + spread.sum())[:, None]
    gradient[rows, target] -= own
    if smoothing:
        gradient -= spread
    if counted is not None:
        gradient[~counted] = 0
        losses, counts = losses[counted], counts[counted]
    total = float(counts.sum(dtype=np.float64)) if mean else 1.0
    gradient /= total or math.inf
    return _divided(float(losses.sum()), total), gradient
