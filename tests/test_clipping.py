"""Clipping of the norm of gradients."""

import math

import numpy as np
import pytest

from fastrnn import optim
from support import DTYPES, Net, random_gradients

NET = Net("lstm", 3, 5, layers=2)


@pytest.mark.parametrize("max_norm", [0.5, 5.0, 1e6, math.inf])
def test_clipping_matches_torch(max_norm):
    torch = pytest.importorskip("torch")
    grads = list(random_gradients(NET.build(), 2))
    twins = [torch.nn.Parameter(torch.from_numpy(a.copy())) for g in grads for a in g.values()]
    for twin in twins:
        twin.grad = twin.detach().clone()
    norm = optim.clip_grad_norm_(grads, max_norm)
    wanted = torch.nn.utils.clip_grad_norm_(twins, max_norm)
    assert norm == pytest.approx(wanted.item(), rel=1e-6)
    for a, twin in zip((a for g in grads for a in g.values()), twins, strict=True):
        np.testing.assert_allclose(a, twin.grad.numpy(), rtol=1e-5)


def test_clipping():
    g = {"a": np.full((2, 2), 3.0, np.float32), "b": np.full(5, 4.0, np.float32)}
    assert optim.clip_grad_norm_(g, 1.0) == pytest.approx(math.sqrt(4 * 9 + 5 * 16))
    assert optim.clip_grad_norm_([g], 100.0) == pytest.approx(1.0, rel=1e-6)
    assert optim.clip_grad_norm_([], 1.0) == 0.0
    big = {"a": np.full(100, 1e30, np.float32)}  # the squares do not fit into float32
    assert optim.clip_grad_norm_(big, 1.0) == pytest.approx(1e31)
    assert np.isfinite(big["a"]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_the_gradient_of_two_weights_is_scaled_once(dtype):
    """as that of two terms of a sum; the same array, views of one, and overlapping ones"""
    one, four, five = (np.ones(n, dtype) for n in (1, 4, 5))
    g = {"a": four, "b": four, "c": four.reshape(2, 2).T}
    rest = {"d": five[1:], "e": five[:4], "f": one, "g": one.reshape(())}
    assert optim.clip_grad_norm_([g, rest], 0.22) == pytest.approx(math.sqrt(22))
    wanted = 0.22 / (math.sqrt(22) + 1e-6)
    for array in (one, four, five):
        np.testing.assert_allclose(array, wanted, rtol=1e-6)


ALL, BACKWARDS = slice(None), slice(None, None, -1)


@pytest.mark.parametrize(
    "parts",
    [
        (ALL, ALL),
        (slice(1, 3), ALL, slice(4, 6)),
        (BACKWARDS, slice(0, 2)),
        (slice(0, 2), BACKWARDS, ALL),
        (slice(2, 6), slice(4), slice(3, 5)),
        (slice(0, 6, 2), slice(1, 6, 2), slice(4, 6)),
    ],
)
def test_what_lies_in_one_buffer_is_scaled_once(parts):
    """arrays made of the same bytes share them, though none is a view of another"""
    buffer = bytearray(np.ones(6).tobytes())
    g = {str(i): np.frombuffer(buffer)[part] for i, part in enumerate(parts)}
    norm = math.sqrt(sum(a.size for a in g.values()))
    assert optim.clip_grad_norm_(g, 0.5) == pytest.approx(norm)
    for array in g.values():
        np.testing.assert_allclose(array, 0.5 / (norm + 1e-6), rtol=1e-12)


def test_clipping_where_numpy_raises():
    """a square may underflow: it adds nothing to the others"""
    g = {"a": np.array([1e-200, 3.0, 4.0])}
    with np.errstate(all="raise"):
        assert optim.clip_grad_norm_(g, 1e-150) == 5.0
    assert g["a"][0] == 0


def test_the_third_argument_is_no_kind_of_norm():
    """as it is in torch"""
    with pytest.raises(TypeError, match="positional"):
        optim.clip_grad_norm_({"a": np.ones(2)}, 1.0, 2.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_clipping_of_what_is_not_finite(bad):
    g = {"a": np.array([1.0, bad]), "b": np.ones(2)}
    with pytest.raises(ValueError, match="finite"):
        optim.clip_grad_norm_(g, 1.0, error_if_nonfinite=True)
    assert (g["b"] == 1).all(), "nothing changed"
    assert not math.isfinite(optim.clip_grad_norm_(g, math.inf))
    assert (g["b"] == 1).all(), "watched, not changed"
    assert not math.isfinite(optim.clip_grad_norm_(g, 1.0))
    assert not (g["b"] == 1).any(), "a broken step shows, as in torch"
    with pytest.raises(ValueError, match="^max_norm: expected.*got -1"):
        optim.clip_grad_norm_({"a": np.ones(2)}, -1.0)


def test_clipping_of_what_cannot_be_scaled():
    good = {"a": np.ones(2)}
    frozen = np.ones(2)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"^grads: b: expected a writable array, got a read-only"):
        optim.clip_grad_norm_([good, {"b": frozen}], 1.0)
    for bad, got in (
        (np.ones(2, int), "int64"),
        (3.0, "float, which is none; try np.asarray"),
        (np.float32(3), "float32, which is none; try np.asarray"),
    ):
        with pytest.raises(TypeError, match=f"^grads: b: expected a float32 or.* got {got}"):
            optim.clip_grad_norm_([good, {"b": bad}], 1.0)
    for bad, got in ((np.ones(2), "ndarray"), (None, "NoneType"), ("a", "str")):
        for given in (bad, [good, bad], (good, bad)):
            with pytest.raises(
                TypeError, match=f"^grads: expected Gradients or dicts of arrays, got {got}"
            ):
                optim.clip_grad_norm_(given, 1.0)
    assert (good["a"] == 1).all(), "nothing changed"
