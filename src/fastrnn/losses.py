"""Losses, each with its gradient: `loss, dpred = mse(pred, target)`.

They return a Python float, summed in float64, and the gradient in the prediction's shape and dtype.
`reduction` is "mean" (over all that counts) or "sum". The mean of nothing is NaN, as in torch, with
gradient zero. What does not count, by `mask` or `ignore_index`, is not looked at and may be NaN.
Where a value is too small for its dtype it is zero, whatever `np.errstate` says of underflow.
For rows that end at `lengths`::

    mask = np.arange(T)[:, None] < lengths    # [T, B]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._arguments import (
    Array,
    as_array,
    as_choice,
    as_floats,
    as_indices,
    as_lists,
    as_size,
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
    with np.errstate(under="ignore"):
        difference = np.subtract(pred, target, out=np.zeros_like(pred), where=counted)
        loss = float(np.square(difference, dtype=np.float64).sum())
        difference *= 2.0 / max(count, 1)
    return _divided(loss, count), difference


def bce_with_logits(
    logits: Any, target: Any, *, mask: Any = None, reduction: str = "mean"
) -> tuple[float, Array]:
    """Binary cross-entropy of sigmoid(logits), and its gradient with respect to `logits`.

    For answers that are yes or no, each for itself: is this frame speech, which tags hold.
    loss = sum (log(1 + exp(logits)) - target logits) / N over the N numbers that count, with "sum"
    without N, computed so that nothing overflows; the gradient is (sigmoid(logits) - target) / N.

    Args:
        logits: float32 or float64, any shape.
        target: the same shape and dtype, each in 0..1.
        mask: bool, in the shape of logits' first axes, for example [T, B]: what counts.
        reduction: "mean" or "sum".

    Raises:
        TypeError: a dtype that is not float32 or float64, or not the same; a mask that is not bool.
        ValueError: shapes that differ (nothing is broadcast); a target outside 0..1 that counts; an
            unknown reduction.
    """
    logits, target, counted, count = _elementwise("logits", logits, target, mask, reduction)
    wrong = counted & ~((target >= 0) & (target <= 1))
    if wrong.any():
        raise ValueError(f"target: expected values in 0..1, got {target[wrong].flat[0]}")
    # NumPy makes scalars of arrays without an axis, and before NumPy 2 doubles of them and an int.
    zero, one = logits.dtype.type(0), logits.dtype.type(1)
    x, target = np.where(counted, logits, zero), np.where(counted, target, zero)
    with np.errstate(under="ignore"):
        small = np.exp(-np.abs(x))
        losses = np.asarray(np.maximum(x, zero) - x * target + np.log1p(small))
        gradient = np.asarray(np.where(x >= 0, one, small) / (one + small) - target)
        gradient[~counted] = 0
        gradient /= max(count, 1)
    return _divided(float(losses[counted].sum(dtype=np.float64)), count), gradient


def _elementwise(
    name: str, pred: Any, target: Any, mask: Any, reduction: str
) -> tuple[Array, Array, Any, int]:
    """The arguments checked: prediction, target, what counts of them, what to divide by."""
    mean = as_choice("reduction", reduction, ("mean", "sum")) == "mean"
    pred = as_floats(name, pred)
    target = as_array("target", target, pred.dtype)
    if target.shape != pred.shape:
        raise shape_error("target", f"{show_shape(pred.shape)} (that of {name})", target.shape)
    if mask is None:
        return pred, target, np.True_, pred.size if mean else 1
    listed = isinstance(mask, (list, tuple))
    mask = as_lists("mask", mask)
    if listed and mask.size == 0:
        mask = mask.astype(bool)  # NumPy makes an empty list float64
    if mask.dtype != bool:
        raise TypeError(f"mask: expected dtype bool, got {mask.dtype}")
    if mask.shape != pred.shape[: mask.ndim]:
        expected = f"{show_shape(pred.shape)} (that of {name}), or its first axes"
        raise shape_error("mask", expected, mask.shape)
    counted = mask.reshape(mask.shape + (1,) * (pred.ndim - mask.ndim))
    counted = np.broadcast_to(counted, pred.shape)
    return pred, target, counted, int(np.count_nonzero(counted)) if mean else 1


def _divided(loss: float, count: int) -> float:
    return loss / count if count else float("nan")


def cross_entropy(
    logits: Any, target: Any, *, ignore_index: int | None = None, reduction: str = "mean"
) -> tuple[float, Array]:
    """Softmax cross-entropy and its gradient with respect to `logits`.

    loss = sum (log sum_c exp(logits[c]) - logits[target]) / N over the N positions that count, with
    "sum" without N; the gradient is (softmax(logits) - onehot(target)) / N. Nothing overflows.

    Args:
        logits: [..., C], float32 or float64; the classes are the last axis (in torch the second).
        target: [...], integers: the true class of each position, 0..C-1.
        ignore_index: positions whose target has this value count for nothing (padding).
        reduction: "mean" (over the positions that count) or "sum".

    Raises:
        TypeError: a dtype that is not float32 or float64; targets or an `ignore_index` that are no
            integers.
        ValueError: a shape that does not fit; a class outside 0..C-1; an unknown reduction.
    """
    mean = as_choice("reduction", reduction, ("mean", "sum")) == "mean"
    logits = as_floats("logits", logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise shape_error("logits", "[..., C] with C >= 1 classes", logits.shape)
    classes = logits.shape[-1]
    target = as_indices("target", target)
    if target.shape != logits.shape[:-1]:
        expected = f"{show_shape(logits.shape[:-1])} (that of logits without its last axis)"
        raise shape_error("target", expected, target.shape)
    counted = np.ones(target.shape, bool)
    if ignore_index is not None:
        counted = target != as_size("ignore_index", ignore_index, -(2**63), 2**63 - 1)
        logits = np.where(counted[..., None], logits, 0)
    wrong = counted & ((target < 0) | (target >= classes))
    if wrong.any():
        got = target[wrong].flat[0]
        raise ValueError(f"target: expected classes in 0..{classes - 1}, got {got}")
    with np.errstate(under="ignore"):
        return _cross_entropy(logits, np.where(counted, target, 0), counted, mean)


def _cross_entropy(
    logits: Array, target: Array, counted: npt.NDArray[np.bool_], mean: bool
) -> tuple[float, Array]:
    """loss = sum(log(sum(exp(l))) - l[target]); dlogits = softmax(l) - onehot(target)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)  # exp cannot overflow
    gradient = np.exp(shifted)
    sums = gradient.sum(axis=-1, keepdims=True)
    gradient /= sums
    place = target[..., None]
    picked = np.take_along_axis(shifted, place, axis=-1)
    losses = (np.log(sums) - picked)[..., 0]
    chosen = np.take_along_axis(gradient, place, axis=-1)
    np.put_along_axis(gradient, place, chosen - 1, axis=-1)
    gradient[~counted] = 0
    count = int(np.count_nonzero(counted)) if mean else 1
    gradient /= max(count, 1)
    return _divided(float(losses[counted].sum(dtype=np.float64)), count), gradient
