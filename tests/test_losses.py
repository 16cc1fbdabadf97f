"""Losses: values and gradients against torch, the definitions, and central differences."""

import math

import numpy as np
import pytest

from fastrnn import losses
from support import random

both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
reductions = pytest.mark.parametrize("reduction", ["mean", "sum"])


def slope(loss, array, k):
    old, values = array.flat[k], []
    for sign in (1, -1):
        array.flat[k] = old + sign * 1e-6
        values.append(loss())
    array.flat[k] = old
    return (values[0] - values[1]) / 2e-6


def assert_like_torch(loss, gradient, wanted, theirs):
    """`wanted` is torch's loss of the tensor `theirs`"""
    wanted.backward()
    expected = theirs.grad.numpy()
    rtol = 1e-5 if expected.dtype == np.float32 else 1e-12
    assert loss == pytest.approx(wanted.item(), rel=rtol)
    assert gradient.dtype == expected.dtype and gradient.shape == expected.shape
    np.testing.assert_allclose(gradient, expected, rtol=10 * rtol, atol=rtol / 10)


@reductions
@both_dtypes
def test_mse(dtype, reduction):
    pred, target = random(5, 3, 2, dtype=dtype), random(5, 3, 2, dtype=dtype)[::-1]
    loss, gradient = losses.mse(pred, target, reduction=reduction)
    assert isinstance(loss, float)
    assert gradient.dtype == dtype and gradient.shape == pred.shape
    count = pred.size if reduction == "mean" else 1
    wanted = ((pred.astype(float) - target) ** 2).sum() / count
    assert loss == pytest.approx(wanted, rel=1e-6)
    np.testing.assert_allclose(gradient, 2 * (pred - target) / count, rtol=1e-6)


@reductions
def test_gradients_match_central_differences(reduction):
    pred, target = random(4, 3, dtype="float64"), random(3, 4, dtype="float64").T.copy()
    gradient = losses.mse(pred, target, reduction=reduction)[1]
    for k in range(pred.size):
        numeric = slope(lambda: losses.mse(pred, target, reduction=reduction)[0], pred, k)
        assert numeric == pytest.approx(gradient.flat[k], rel=1e-6, abs=1e-8)
    classes, options = np.array([2, 0, -1, 1]), dict(ignore_index=-1, reduction=reduction)
    gradient = losses.cross_entropy(pred, classes, **options)[1]
    for k in range(pred.size):
        numeric = slope(lambda: losses.cross_entropy(pred, classes, **options)[0], pred, k)
        assert numeric == pytest.approx(gradient.flat[k], rel=1e-6, abs=1e-8)


ELEMENTWISE = {"mse": "mse_loss", "bce_with_logits": "binary_cross_entropy_with_logits"}
elementwise = pytest.mark.parametrize("name", ELEMENTWISE)


@reductions
@both_dtypes
@elementwise
def test_elementwise_losses_match_torch(name, dtype, reduction):
    torch = pytest.importorskip("torch")
    pred = 5 * random(5, 3, 2, dtype=dtype)
    target = np.random.default_rng(1).random((5, 3, 2)).astype(dtype)
    pred[0], target[1] = 200 * pred[0], 1
    loss, gradient = getattr(losses, name)(pred, target, reduction=reduction)
    theirs = torch.from_numpy(pred).requires_grad_()
    function = getattr(torch.nn.functional, ELEMENTWISE[name])
    wanted = function(theirs, torch.from_numpy(target), reduction=reduction)
    assert_like_torch(loss, gradient, wanted, theirs)


@reductions
@elementwise
def test_gradients_of_elementwise_losses(name, reduction):
    loss = getattr(losses, name)
    pred, target = random(4, 3, dtype="float64"), np.random.default_rng(1).random((4, 3))
    options = dict(mask=np.array([True, False, True, True]), reduction=reduction)
    gradient = loss(pred, target, **options)[1]
    for k in range(pred.size):
        numeric = slope(lambda: loss(pred, target, **options)[0], pred, k)
        assert numeric == pytest.approx(gradient.flat[k], rel=1e-6, abs=1e-8)


@reductions
@elementwise
def test_what_a_mask_leaves_out_is_not_looked_at(name, reduction):
    loss, lengths = getattr(losses, name), [2, 4, 0]
    pred, target = random(4, 3, 2, dtype="float64"), np.random.default_rng(1).random((4, 3, 2))
    mask = np.arange(4)[:, None] < lengths
    wanted, gradient = loss(pred[mask], target[mask], reduction=reduction)
    pred[~mask], target[~mask] = np.nan, np.inf
    found, dpred = loss(pred, target, mask=mask, reduction=reduction)
    assert found == pytest.approx(wanted, rel=1e-14)
    np.testing.assert_allclose(dpred[mask], gradient, rtol=1e-14)
    assert not dpred[~mask].any()
    nothing, dpred = loss(pred, target, mask=np.zeros(4, bool), reduction=reduction)
    assert (math.isnan(nothing) if reduction == "mean" else nothing == 0) and not dpred.any()


@both_dtypes
@pytest.mark.parametrize("pos_weight", [None, 0.01, 3.0])
def test_gradients_of_what_is_nearly_learnt(pos_weight, dtype):
    """to the last bits, where p - target would round to nothing, or to the wrong sign"""
    x = np.outer([1, -1], np.linspace(3, 20, 200)).astype(dtype)
    target = (x > 0).astype(dtype)
    gradient = losses.bce_with_logits(x, target, pos_weight=pos_weight, reduction="sum")[1]
    exact = 1 / (1 + np.exp(np.abs(x.astype(float))))  # of the wrong answer
    exact *= np.where(x > 0, -1.0 if pos_weight is None else -pos_weight, 1.0)
    np.testing.assert_allclose(gradient, exact, rtol=1e-6 if dtype == "float32" else 1e-14)


@reductions
@both_dtypes
@pytest.mark.parametrize("ignore_index", [None, 2, -100])
def test_cross_entropy_matches_torch(dtype, reduction, ignore_index):
    torch = pytest.importorskip("torch")
    logits = 5 * random(6, 4, 7, dtype=dtype)
    target = np.random.default_rng(1).integers(0, 7, (6, 4))
    if ignore_index is not None:
        target[::2, 1] = ignore_index
    loss, gradient = losses.cross_entropy(
        logits, target, ignore_index=ignore_index, reduction=reduction
    )
    theirs = torch.from_numpy(logits).requires_grad_()
    wanted = torch.nn.functional.cross_entropy(
        theirs.reshape(-1, 7),
        torch.from_numpy(target).reshape(-1),
        reduction=reduction,
        **({} if ignore_index is None else {"ignore_index": ignore_index}),
    )
    assert_like_torch(loss, gradient, wanted, theirs)


@both_dtypes
def test_cross_entropy_of_large_logits(dtype):
    logits = np.array([[1e4, 0, -1e4], [-1e4, 1e4, 1e4]], dtype)
    loss, gradient = losses.cross_entropy(logits, np.array([0, 1]))
    assert loss == pytest.approx(math.log(2) / 2, rel=1e-6)
    np.testing.assert_allclose(gradient, [[0, 0, 0], [0, -0.25, 0.25]], atol=1e-6)


@both_dtypes
@pytest.mark.parametrize("ignored", [np.nan, np.inf, -np.inf])
def test_ignored_logits_may_be_anything(ignored, dtype):
    logits = random(3, 4, dtype=dtype)
    logits[1] = ignored
    loss, gradient = losses.cross_entropy(logits, np.array([1, -1, 2]), ignore_index=-1)
    assert math.isfinite(loss) and not gradient[1].any() and np.isfinite(gradient).all()
    assert gradient.dtype == dtype
    wanted, there = losses.cross_entropy(logits[::2], np.array([1, 2]))
    assert loss == wanted and (gradient[::2] == there).all()


def test_inputs_are_left_alone():
    logits, target = random(3, 4, dtype="float64"), np.array([1, 0, 2])
    before = logits.copy(), target.copy()
    losses.cross_entropy(logits, target)
    losses.mse(logits, logits + 1)
    assert (logits == before[0]).all() and (target == before[1]).all()


@both_dtypes
@reductions
@elementwise
def test_one_number(name, reduction, dtype):
    pred, target = np.array(0.5, dtype), np.array(0.25, dtype)
    for mask in (None, True, False):
        options = dict(mask=mask, reduction=reduction)
        loss, gradient = getattr(losses, name)(pred, target, **options)
        assert isinstance(loss, float)
        assert isinstance(gradient, np.ndarray) and gradient.shape == ()
        if mask is not False:
            wanted, row = getattr(losses, name)(pred[None], target[None], reduction=reduction)
            assert loss == wanted and gradient == row[0]
        assert gradient.dtype == dtype and (gradient != 0) == (mask is not False)


@reductions
def test_losses_that_fit_float32_one_by_one(reduction):
    """are summed in float64; and so are squares taken"""
    count = 1 if reduction == "mean" else 4
    zeros, large = np.zeros(4, np.float32), np.full(4, 1e38, np.float32)
    loss, _ = losses.mse(large, zeros, reduction=reduction)
    assert loss == pytest.approx(count * 1e76)
    loss, _ = losses.bce_with_logits(large, zeros, reduction=reduction)
    assert loss == pytest.approx(count * 1e38)
    logits, classes = np.stack([large, zeros], -1), np.ones(4, int)
    loss, _ = losses.cross_entropy(logits, classes, reduction=reduction)
    assert loss == pytest.approx(count * 1e38)


@both_dtypes
def test_where_numpy_raises(dtype):
    """underflow is no error: a sure answer's loss, a small difference's square"""
    logits = np.array([[0, 2000], [1e-200, 1e-30]], dtype)
    target = np.zeros_like(logits)
    wanted = [losses.mse(logits, target), losses.bce_with_logits(logits, target),
              losses.cross_entropy(logits, [1, 0])]  # fmt: skip
    with np.errstate(all="raise"):
        found = [losses.mse(logits, target), losses.bce_with_logits(logits, target),
                 losses.cross_entropy(logits, [1, 0])]  # fmt: skip
    for (a, da), (b, db) in zip(found, wanted, strict=True):
        assert a == b and da.tobytes() == db.tobytes()


@elementwise
def test_an_empty_mask(name):
    loss, gradient = getattr(losses, name)(np.zeros((0, 3)), np.zeros((0, 3)), mask=[])
    assert math.isnan(loss) and gradient.shape == (0, 3)
    with pytest.raises(TypeError, match="^mask: expected dtype bool, got float64"):
        getattr(losses, name)(np.zeros((0, 3)), np.zeros((0, 3)), mask=np.zeros(0))


def test_one_position():
    loss, gradient = losses.cross_entropy(np.zeros(4, np.float32), np.array(2))
    assert loss == pytest.approx(math.log(4)) and gradient.shape == (4,)


class Unreadable:
    """what an array on a device is"""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("no data here")


def test_bad_input():
    x = random(3, 4, dtype="float64")
    with pytest.raises(ValueError, match=r"^target: expected shape \[3, 4\].*got \[4, 3\]"):
        losses.mse(x, x.T)
    with pytest.raises(TypeError, match=r"^target: expected.*float64.*got float32"):
        losses.mse(x, x.astype(np.float32))
    with pytest.raises(TypeError, match="^pred: expected"):
        losses.mse(np.array([1, 2]), np.array([1, 2]))
    with pytest.raises(TypeError, match="^mask: expected dtype bool, got int64"):
        losses.mse(x, x, mask=np.ones(3, np.int64))
    with pytest.raises(TypeError, match="^mask: expected a plain array, got a masked one"):
        losses.mse(x, x, mask=np.ma.array(np.ones(3, bool), mask=[True, False, False]))
    with pytest.raises(
        ValueError, match=r"^mask: expected shape \[3, 4\].*its first axes.*got \[4\]"
    ):
        losses.mse(x, x, mask=np.ones(4, bool))
    with pytest.raises(TypeError, match="^mask: cannot read this Unreadable as an array: no data"):
        losses.mse(x, x, mask=Unreadable())
    with pytest.raises(TypeError, match="^mask: expected an array, got str"):
        losses.mse(x, x, mask="all")
    with pytest.raises(TypeError, match="^logits: expected"):
        losses.bce_with_logits(np.array([1, 2]), np.array([1, 2]))
    with pytest.raises(ValueError, match="^mask: expected lists of equal lengths, got"):
        losses.mse(x, x, mask=[True, [False], True])
    for wrong in (1.5, -0.1, np.nan):
        with pytest.raises(ValueError, match=rf"^target: expected values in 0..1, got {wrong}"):
            losses.bce_with_logits(x, np.full_like(x, wrong))
    with pytest.raises(ValueError, match=r"^reduction: expected.*mean.*got 'none'"):
        losses.mse(x, x, reduction="none")
    with pytest.raises(ValueError, match=r"^target: expected shape \[3\].*got \[3, 4\]"):
        losses.cross_entropy(x, np.zeros((3, 4), int))
    with pytest.raises(TypeError, match=r"^target: expected.*integer"):
        losses.cross_entropy(x, np.zeros(3))
    with pytest.raises(ValueError, match="^target: expected lists of equal lengths, got"):
        losses.cross_entropy(x, [1, [2], 3])
    for shape, shown in (((), r"\[\]"), ((3, 0), r"\[3, 0\]"), ((0, 0), r"\[0, 0\]")):
        expected = rf"^logits: expected shape \[\.\.\., C\] with C >= 1 classes, got {shown}"
        with pytest.raises(ValueError, match=expected):
            losses.cross_entropy(np.zeros(shape), np.zeros(shape[:-1], int))
    for wrong in (1.5, "1", True):
        with pytest.raises(TypeError, match="^ignore_index: expected an integer, got"):
            losses.cross_entropy(x, np.zeros(3, int), ignore_index=wrong)
    for wrong, hint in ((4, ""), (-1, r"; did you mean ignore_index=-1\?")):
        with pytest.raises(ValueError, match=rf"^target: expected.*0\.\.3, got {wrong}{hint}$"):
            losses.cross_entropy(x, np.array([0, wrong, 1]))
    with pytest.raises(ValueError, match=r"^target: expected.*0\.\.3, got -1$"):
        losses.cross_entropy(x, np.array([-2, -1, 1]), ignore_index=-2)
