"""Class weights, label smoothing and the weight of a yes, as torch has them."""

import math

import numpy as np
import pytest

from fastrnn import losses
from support import random, rejects
from test_losses import assert_like_torch, both_dtypes, reductions, slope

WEIGHT = np.array([0.2, 1.0, 0.0, 3.0, 1.5])


def smoothed(logits, target, weight, smoothing, ignored, mean):
    """the definition, in float64, position by position"""
    classes = logits.shape[-1]
    rows, loss, total = logits.reshape(-1, classes).astype(float), 0.0, 0.0
    for row, wanted in zip(rows, target.ravel(), strict=True):
        if wanted == ignored:
            continue
        log_p = row - row.max() - math.log(np.exp(row - row.max()).sum())
        truth = np.full(classes, smoothing / classes)
        truth[wanted] += 1 - smoothing
        loss -= (truth * weight * log_p).sum()
        total += weight[wanted]
    return loss / total if mean else loss


def example(dtype):
    logits = 3 * random(4, 6, 5, dtype=dtype)
    target = np.random.default_rng(1).integers(0, 5, (4, 6))
    target[1::2, 2] = -7
    return logits, target


@reductions
@both_dtypes
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [None, -7, 3])
def test_cross_entropy(ignored, weighted, smoothing, dtype, reduction):
    """by its definition, and as torch computes it"""
    logits, target = example(dtype)
    if ignored != -7:
        target[target == -7] = 0
    weight = WEIGHT.astype(dtype) if weighted else None
    before = logits.copy(), target.copy()
    loss, gradient = losses.cross_entropy(
        logits,
        target,
        weight=weight,
        label_smoothing=smoothing,
        ignore_index=ignored,
        reduction=reduction,
    )
    assert (logits == before[0]).all() and (target == before[1]).all()
    all_weights = WEIGHT.astype(dtype) if weighted else np.ones(5)
    wanted = smoothed(logits, target, all_weights, smoothing, ignored, reduction == "mean")
    assert isinstance(loss, float)
    assert loss == pytest.approx(wanted, rel=1e-5 if dtype == "float32" else 1e-13)
    assert gradient.dtype == dtype and gradient.shape == logits.shape
    torch = pytest.importorskip("torch")
    theirs = torch.from_numpy(logits).requires_grad_()
    expected = torch.nn.functional.cross_entropy(
        theirs.reshape(-1, 5),
        torch.from_numpy(target).reshape(-1),
        weight=None if weight is None else torch.from_numpy(weight),
        label_smoothing=smoothing,
        reduction=reduction,
        **({} if ignored is None else {"ignore_index": ignored}),
    )
    assert_like_torch(loss, gradient, expected, theirs)


@both_dtypes
@pytest.mark.parametrize("weighted", [False, True])
def test_a_class_that_cannot_be(weighted, dtype):
    """its logit is -inf: another one's loss is finite, as in torch"""
    torch = pytest.importorskip("torch")
    logits, weight = random(3, 5, dtype=dtype), WEIGHT.astype(dtype) if weighted else None
    logits[:, 1] = -np.inf
    loss, gradient = losses.cross_entropy(logits, [0, 3, 4], weight=weight)
    theirs = torch.from_numpy(logits).requires_grad_()
    options = {"weight": torch.from_numpy(weight)} if weighted else {}
    expected = torch.nn.functional.cross_entropy(theirs, torch.tensor([0, 3, 4]), **options)
    assert_like_torch(loss, gradient, expected, theirs)
    assert math.isfinite(loss) and not gradient[:, 1].any()


@reductions
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_gradients_of_cross_entropy(smoothing, reduction):
    logits, target = example("float64")
    options = dict(weight=WEIGHT, label_smoothing=smoothing, ignore_index=-7, reduction=reduction)
    gradient = losses.cross_entropy(logits, target, **options)[1]
    for k in range(logits.size):
        numeric = slope(lambda: losses.cross_entropy(logits, target, **options)[0], logits, k)
        assert numeric == pytest.approx(gradient.flat[k], rel=1e-5, abs=1e-7)


@reductions
@pytest.mark.parametrize("options", [{}, dict(weight=WEIGHT, label_smoothing=0.3)], ids=str)
def test_a_mask_leaves_out_what_ignore_index_does(options, reduction):
    logits, target = example("float64")
    mask = np.arange(target.size).reshape(target.shape) % 3 > 0
    given = dict(ignore_index=-7, reduction=reduction, **options)
    wanted = losses.cross_entropy(logits, np.where(mask, target, -7), **given)
    logits[~mask], target[~mask] = np.nan, 99
    found = losses.cross_entropy(logits, target, mask=mask, **given)
    assert found[0] == wanted[0] and found[1].tobytes() == wanted[1].tobytes()


def test_a_mask_of_the_first_axes():
    """of a sequence's first steps, whatever row"""
    logits, target, mask = random(3, 2, 5), np.ones((3, 2), int), np.array([True, False, True])
    found, gradient = losses.cross_entropy(logits, target, mask=mask)
    wanted = losses.cross_entropy(logits[mask], target[mask])
    assert found == wanted[0] and gradient[mask].tobytes() == wanted[1].tobytes()
    assert not gradient[1].any()
    with pytest.raises(ValueError, match=r"mask: expected shape \[3, 2\] \(that of target\), or"):
        losses.cross_entropy(logits, target, mask=mask[:2])
    with pytest.raises(TypeError, match="mask: expected dtype bool, got int64"):
        losses.cross_entropy(logits, target, mask=target)


@both_dtypes
def test_weights_of_one_are_none(dtype):
    logits, target = example(dtype)
    options = dict(ignore_index=-7)
    plain = losses.cross_entropy(logits, target, **options)
    ones = losses.cross_entropy(
        logits, target, weight=np.ones(5, dtype), label_smoothing=0, **options
    )
    assert plain[0] == ones[0] and plain[1].tobytes() == ones[1].tobytes()
    answers = (target > 2).astype(dtype)
    plain = losses.bce_with_logits(logits[..., 0], answers)
    numbers = 1, 1.0, np.float64(1), np.float32(1), np.float16(1), np.int64(1)
    for one in (*numbers, np.ones((), dtype), np.ones(6, dtype)):
        loss, gradient = losses.bce_with_logits(logits[..., 0], answers, pos_weight=one)
        assert loss == plain[0] and gradient.tobytes() == plain[1].tobytes()


@both_dtypes
def test_a_class_that_weighs_nothing(dtype):
    """a mean of nothing, if there is no other"""
    weight = WEIGHT.astype(dtype)
    for smoothing in (0.0, 0.1):
        options = dict(weight=weight, label_smoothing=smoothing)
        loss, gradient = losses.cross_entropy(random(3, 5, dtype=dtype), [2, 2, 2], **options)
        assert math.isnan(loss) and gradient.dtype == dtype and not gradient.any()
        loss, gradient = losses.cross_entropy(
            random(3, 5, dtype=dtype), [2, 2, 2], reduction="sum", **options
        )
        assert (loss > 0) == (smoothing > 0) == gradient.any()


@both_dtypes
def test_one_position(dtype):
    """and large logits"""
    logits, weight = np.array([1e4, 0, -1e4], dtype), np.array([2, 1, 4], dtype)
    loss, gradient = losses.cross_entropy(logits, 0, weight=weight, label_smoothing=0.3)
    assert loss == pytest.approx(0.1 * (1 * 1e4 + 4 * 2e4) / 2, rel=1e-6)
    assert gradient.shape == (3,) and gradient.dtype == dtype
    np.testing.assert_allclose(gradient, np.array([0.5, -0.1, -0.4]) / 2, rtol=1e-5)


@both_dtypes
@pytest.mark.parametrize("ignored", [np.nan, np.inf, -np.inf])
def test_ignored_logits_may_be_anything(ignored, dtype):
    logits, target = example(dtype)
    logits[target == -7] = ignored
    options = dict(weight=WEIGHT.astype(dtype), label_smoothing=0.1, ignore_index=-7)
    loss, gradient = losses.cross_entropy(logits, target, **options)
    kept = target != -7
    wanted, there = losses.cross_entropy(logits[kept], target[kept], **options)
    assert loss == pytest.approx(wanted, rel=1e-14)
    assert not gradient[~kept].any()
    np.testing.assert_allclose(gradient[kept], there, rtol=1e-6)


YES = {  # pos_weight: of logits [5, 3, 4]
    "number": 3.0,
    "integer": 2,
    "tags": np.array([0.0, 1.0, 2.5, 7.0]),
    "rows": np.array([[1.0], [0.5], [4.0]]),
    "each": np.linspace(0, 3, 60).reshape(5, 3, 4),
}
each_weight = pytest.mark.parametrize("yes", YES.values(), ids=YES)


@reductions
@both_dtypes
@each_weight
def test_a_yes_may_weigh_more(yes, dtype, reduction):
    """as in torch, and by the definition"""
    logits = 4 * random(5, 3, 4, dtype=dtype)
    target = np.random.default_rng(1).random((5, 3, 4)).astype(dtype)
    target[0], target[1], logits[2] = 0, 1, 100 * logits[2]
    given = yes.astype(dtype) if isinstance(yes, np.ndarray) else yes
    loss, gradient = losses.bce_with_logits(logits, target, pos_weight=given, reduction=reduction)
    x, y = logits.astype(float), target.astype(float)
    each = yes * y * np.logaddexp(0, -x) + (1 - y) * np.logaddexp(0, x)
    wanted = each.mean() if reduction == "mean" else each.sum()
    assert loss == pytest.approx(wanted, rel=1e-6 if dtype == "float32" else 1e-13)
    torch = pytest.importorskip("torch")
    theirs = torch.from_numpy(logits).requires_grad_()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        theirs,
        torch.from_numpy(target),
        pos_weight=torch.from_numpy(np.asarray(yes, dtype)),
        reduction=reduction,
    )
    assert_like_torch(loss, gradient, expected, theirs)


@reductions
@each_weight
def test_gradients_where_a_yes_weighs_more(yes, reduction):
    logits, target = random(5, 3, 4, dtype="float64"), np.random.default_rng(1).random((5, 3, 4))
    options = dict(mask=np.arange(5) != 2, pos_weight=yes, reduction=reduction)
    gradient = losses.bce_with_logits(logits, target, **options)[1]
    for k in range(logits.size):
        numeric = slope(lambda: losses.bce_with_logits(logits, target, **options)[0], logits, k)
        assert numeric == pytest.approx(gradient.flat[k], rel=1e-5, abs=1e-8)


@both_dtypes
@pytest.mark.parametrize("yes", [0.0, 0.5, 3.0])
def test_sure_answers(yes, dtype):
    """nothing overflows, and what weighs nothing costs nothing"""
    x = np.array([-1e4, -30, 30, 1e4], dtype)
    with np.errstate(all="raise"):
        loss, gradient = losses.bce_with_logits(x, np.ones_like(x), pos_weight=yes)
        other, there = losses.bce_with_logits(x, np.zeros_like(x), pos_weight=yes)
    assert loss == pytest.approx(yes * 10030 / 4, rel=1e-6)
    assert other == pytest.approx(10030 / 4, rel=1e-6)
    np.testing.assert_allclose(gradient, [-yes / 4, -yes / 4, 0, 0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(there, [0, 0, 0.25, 0.25], rtol=1e-6, atol=1e-6)


def test_one_number():
    x, y = np.array(0.5, np.float32), np.array(1, np.float32)
    loss, gradient = losses.bce_with_logits(x, y, pos_weight=3.0)
    assert isinstance(gradient, np.ndarray) and gradient.shape == ()
    assert gradient.dtype == "float32" and loss == pytest.approx(3 * math.log1p(math.exp(-0.5)))


def test_bad_weights():
    x, target = random(3, 4), [0, 1, 2]

    def entropy(**options):
        losses.cross_entropy(x, target, **options)

    def bce(**options):
        losses.bce_with_logits(x, np.ones_like(x), **options)

    four = np.ones(4, np.float32)
    for call, options, error, *message in (
        (entropy, dict(weight=np.ones(4)), TypeError, "weight: expected dtype float32", "float64"),
        (entropy, dict(weight=[1, 1, 1, 1]), TypeError, "weight: expected an array, got list"),
        (entropy, dict(weight=four[:3]), ValueError, "weight: expected shape [4]", "got [3]"),
        (entropy, dict(weight=four[0]), ValueError, "weight: expected shape [4]", "got []"),
        (entropy, dict(weight=-four), ValueError, "weight: expected finite numbers >= 0, got -1"),
        (entropy, dict(weight=four * np.inf), ValueError, "weight: expected finite", "got inf"),
        (entropy, dict(weight=np.ma.array(four)), TypeError, "weight: expected a plain array"),
        (entropy, dict(label_smoothing=1.5), ValueError, "label_smoothing: expected a number in"),
        (entropy, dict(label_smoothing=-0.1), ValueError, "label_smoothing: expected a number in"),
        (entropy, dict(label_smoothing=np.nan), ValueError, "label_smoothing: expected a number"),
        (entropy, dict(label_smoothing="0"), TypeError, "label_smoothing: expected a number, got"),
        (entropy, dict(label_smoothing=True), TypeError, "label_smoothing: expected a number, got"),
        (bce, dict(pos_weight=np.ones(4)), TypeError, "pos_weight: expected dtype float32"),
        (bce, dict(pos_weight=[1.0]), TypeError, "pos_weight: expected an array, got list"),
        (bce, dict(pos_weight=np.True_), TypeError, "pos_weight: expected dtype float32, got bool"),
        (bce, dict(pos_weight=np.float32(np.inf)), ValueError, "pos_weight: expected a number in"),
        (bce, dict(pos_weight=True), TypeError, "pos_weight: expected a number, got True"),
        (bce, dict(pos_weight=-1.0), ValueError, "pos_weight: expected a number in [0, "),
        (bce, dict(pos_weight=1e39), ValueError, "pos_weight: expected a number in [0, "),
        (bce, dict(pos_weight=four * np.nan), ValueError, "pos_weight: expected finite numbers"),
        (bce, dict(pos_weight=four[:3]), ValueError, "pos_weight: expected shape one that broad"),
        (bce, dict(pos_weight=np.ones((2, 3, 4), "f4")), ValueError, "pos_weight: expected shape"),
    ):  # fmt: skip
        with rejects(error, *message):
            call(**options)
