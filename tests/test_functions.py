"""exp, sigmoid, tanh and gated_tanh on every ISA: error in ULP over the whole range, and special
values.

float32 is measured against float64, float64 against np.longdouble (where that is longer).
The float32 sweep takes every 257th bit pattern, so every sign and exponent with 2^15 mantissas,
and every 11th with 1/64 <= |x| < 128; FASTRNN_SWEEP_STRIDE=71 takes every 3rd there, 1 all 2^32
(some minutes each).
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from fastrnn import _core

CONTRACT = {  # the largest error in ULP, as docs/numerics.md states it
    ("exp", "float32"): 2.0,
    ("exp", "float64"): 2.0,
    ("sigmoid", "float32"): 2.0,
    ("sigmoid", "float64"): 2.0,
    ("tanh", "float32"): 2.0,
    ("tanh", "float64"): 2.0,
    ("gated_tanh", "float32"): 4.0,
    ("gated_tanh", "float64"): 4.0,
}
STRIDE = int(os.environ.get("FASTRNN_SWEEP_STRIDE", "257"))
DENSE_STRIDE = max(1, STRIDE // 23)
BITS = {"float32": np.uint32, "float64": np.uint64}
FUNCTIONS = ("exp", "sigmoid", "tanh")

each = pytest.mark.parametrize("function", FUNCTIONS)
both = pytest.mark.parametrize("dtype", BITS)


def truth(function, x, wide):
    x = x.astype(wide)
    with np.errstate(all="ignore"):
        if function == "exp":
            return np.exp(x)
        if function == "tanh":
            return np.tanh(x)
        small = np.exp(-np.abs(x))
        return np.where(x < 0, small, 1) / (1 + small)


def ulp_errors(function, x, wide):
    y = _core.vector_math(function, x)
    assert y.dtype == x.dtype and y.shape == x.shape
    return errors_of(y, truth(function, x, wide), wide, np.finfo(x.dtype).smallest_normal)


def errors_of(y, true, wide, may_be_zero):
    """Errors in units of the last place of the true value. An infinite result counts as the
    next power of two; where the true value is below `may_be_zero`, zero is right."""
    info = np.finfo(y.dtype)
    top = np.ldexp(wide(1), info.maxexp)
    got = np.where(np.isposinf(y), top, y.astype(wide))
    true = np.minimum(true, top)
    _, exponent = np.frexp(np.minimum(np.abs(true), info.max))
    ulp = np.ldexp(wide(1), np.maximum(exponent, info.minexp + 1) - info.nmant - 1)
    flushed = (np.abs(true) < may_be_zero) & (y == 0)
    return np.where(flushed, 0.0, np.abs(got - true) / ulp)


def sweep(function, chunks, wide):
    """the largest error and the argument it came from"""
    worst, where = 0.0, 0.0
    for x in chunks:
        errors = ulp_errors(function, x, wide)
        assert not np.isnan(errors).any(), f"NaN at {x[np.isnan(errors)][0]!r}"
        k = errors.argmax()
        if errors[k] > worst:
            worst, where = float(errors[k]), float(x[k])
    return worst, where


def float32_chunks():
    """every STRIDE-th bit pattern of all, and more where the functions do change"""
    bounds = (int(np.float32(bound).view(np.uint32)) for bound in (1 / 64, 128, -1 / 64, -128))
    dense = [(begin, next(bounds), DENSE_STRIDE) for begin in bounds]
    for begin, end, stride in [(0, 2**32, STRIDE), *dense]:
        for start in range(begin, end, stride << 20):
            patterns = np.arange(start, min(start + (stride << 20), end), stride, np.uint64)
            x = patterns.astype(np.uint32).view(np.float32)
            yield x[np.isfinite(x)]


def float64_chunks(function):
    """all exponents with random mantissas, and most points where the functions do change"""
    rng = np.random.default_rng(1)
    patterns = np.arange(2048, dtype=np.uint64)[:, None] << np.uint64(52)
    x = (patterns | rng.integers(0, 1 << 52, (2048, 64), np.uint64)).ravel().view(np.float64)
    x = x[np.isfinite(x)]
    yield np.concatenate([x, -x])
    for limit in (1e-8, 0.1, 0.7, 1.0, 5.0, 25.0, 760.0):
        yield rng.uniform(-limit, limit, 300_000)
    ln2 = np.log(2.0) * np.arange(-1100, 1100)[:, None]  # range reduction turns over near k ln 2
    yield (ln2 * (1 + 1e-15 * np.arange(-8, 9)) / (1 if function == "exp" else 2)).ravel()


def contract(function, dtype):
    """Without an FMA every product is rounded once more: a quarter of a unit at worst."""
    return CONTRACT[function, dtype] + (0.0 if _core.has_fma() else 0.25)


def test_documents_state_the_contract():
    """the table of docs/numerics.md and the comment of simd/math.h give these numbers"""
    root = Path(__file__).resolve().parents[1]
    sources = {
        root / "docs/numerics.md": r"\| {} \| ([\d.]+)(?: / ([\d.]+))? ULP",
        root / "src/cpp/simd/math.h": r"{} .*<= ([\d.]+)(?: / ([\d.]+))? ULP",
    }
    names = {"exp": "exp", "sigmoid": "(?:σ|sigmoid)", "tanh": "tanh", "gated_tanh": "gated_tanh"}
    for source, pattern in sources.items():
        if not source.is_file():
            pytest.skip("a test of the source tree")
        for function, name in names.items():
            match = re.search(pattern.format(name), source.read_text())
            assert match, f"no bound for {function} in {source.name}"
            stated = float(match[1]), float(match[2] or match[1])
            promised = CONTRACT[function, "float32"], CONTRACT[function, "float64"]
            assert stated == promised, f"{function} in {source.name}"


@each
def test_float32_error_is_within_the_contract(function, isa, report_ulp):
    worst, where = sweep(function, float32_chunks(), np.float64)
    limit = contract(function, "float32")
    report_ulp(isa, function, "float32", worst, f"{where:g}", limit)
    assert worst <= limit, f"at {where!r}"


@each
def test_float64_error_is_within_the_contract(function, isa, report_ulp):
    if np.finfo(np.longdouble).nmant <= 52:
        pytest.skip("long double is not longer than double here")
    worst, where = sweep(function, float64_chunks(function), np.longdouble)
    limit = contract(function, "float64")
    report_ulp(isa, function, "float64", worst, f"{where:g}", limit)
    assert worst <= limit, f"at {where!r}"


@each
@both
def test_special_values(function, dtype, isa):
    info = np.finfo(dtype)
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, info.max, info.min], dtype)
    y = _core.vector_math(function, x)
    exact = {
        "exp": [1, 1, np.inf, 0, np.nan, np.inf, 0],
        "sigmoid": [0.5, 0.5, 1, 0, np.nan, 1, 0],
        "tanh": [0, 0, 1, -1, np.nan, 1, -1],
    }[function]
    np.testing.assert_array_equal(y, np.array(exact, dtype))
    assert not np.signbit(y[[0, 2, 3, 5]][y[[0, 2, 3, 5]] >= 0]).any()
    assert np.signbit(y[1]) == (function == "tanh"), "tanh(-0) is -0, the others are positive"


@each
@both
def test_every_nan_gives_nan(function, dtype, isa):
    bits, mantissa = BITS[dtype], np.finfo(dtype).nmant
    quiet = np.array(np.inf, dtype).view(bits)
    payloads = np.array([1 << k for k in range(mantissa)] + [(1 << mantissa) - 1], bits)
    sign = bits(1 << (8 * np.dtype(dtype).itemsize - 1))
    patterns = np.concatenate([payloads | quiet, payloads | quiet | sign])
    assert np.isnan(_core.vector_math(function, patterns.view(dtype))).all()


@both
def test_tanh_is_odd_to_the_bit(dtype, isa):
    chunks = float32_chunks() if dtype == "float32" else float64_chunks("tanh")
    for x in chunks:
        there, back = _core.vector_math("tanh", x), -_core.vector_math("tanh", -x)
        assert there.tobytes() == back.tobytes()


@both
def test_values_stay_in_range(dtype, isa):
    x = np.concatenate([np.linspace(-100, 100, 40_001), np.linspace(-2, 2, 40_001)]).astype(dtype)
    assert np.abs(_core.vector_math("tanh", x)).max() <= 1
    assert _core.vector_math("sigmoid", x).min() >= 0
    assert _core.vector_math("sigmoid", x).max() <= 1


@each
@both
def test_a_value_does_not_depend_on_its_place(function, dtype, isa):
    """full vectors and tails, every lane: the same bits"""
    x = np.random.default_rng(1).normal(0, 4, 67).astype(dtype)
    whole = _core.vector_math(function, x)
    for start in range(18):
        for stop in range(start, min(start + 35, 67)):
            part = _core.vector_math(function, x[start:stop].copy())
            assert part.tobytes() == whole[start:stop].tobytes()


def gates_and_arguments(dtype):
    """random pairs on scales on which sigmoid and tanh do change, and those that underflow"""
    rng = np.random.default_rng(2)
    smallest = -np.log(float(np.finfo(dtype).smallest_normal))
    for gate in (1.0, 5.0, 20.0, smallest):
        for x in (0.01, 0.3, 1.0, 3.0, 10.0, 20.0):
            pair = rng.uniform(-1, 1, (2, 50_000)) * [[gate], [x]]
            yield tuple(pair.astype(dtype))


@both
def test_gated_tanh_error_is_within_the_contract(dtype, isa, report_ulp):
    wide = np.float64 if dtype == "float32" else np.longdouble
    if np.finfo(wide).nmant <= np.finfo(dtype).nmant:
        pytest.skip("long double is not longer than double here")
    may_be_zero = 2 * np.finfo(dtype).smallest_normal
    worst, where = 0.0, ""
    for gate, x in gates_and_arguments(dtype):
        true = truth("sigmoid", gate, wide) * truth("tanh", x, wide)
        errors = errors_of(_core.gated_tanh(gate, x), true, wide, may_be_zero)
        k = errors.argmax()
        if errors[k] > worst:
            worst, where = float(errors[k]), f"{gate[k]:g}, {x[k]:g}"
    report_ulp(isa, "gated_tanh", dtype, worst, where, contract("gated_tanh", dtype))
    assert 2 < worst <= contract("gated_tanh", dtype), f"at {where}"


@both
def test_gated_tanh_is_odd_to_the_bit(dtype, isa):
    for gate, x in gates_and_arguments(dtype):
        assert _core.gated_tanh(gate, x).tobytes() == (-_core.gated_tanh(gate, -x)).tobytes()


@both
def test_gated_tanh_of_special_values(dtype, isa):
    """one of them open or closed: the other function, or a zero of its sign; a NaN: NaN"""
    info = np.finfo(dtype)
    large = np.array([np.inf, info.max, 60.0], dtype)
    x = np.random.default_rng(3).normal(0, 3, 100).astype(dtype)
    for limit in large:
        gate = np.full_like(x, limit)
        one, zero = _core.gated_tanh(gate, x), _core.gated_tanh(-gate, x)
        np.testing.assert_allclose(one, _core.vector_math("tanh", x), rtol=4 * info.eps)
        if limit > 1000:
            np.testing.assert_array_equal(zero, np.zeros_like(x))
        np.testing.assert_array_equal(np.signbit(zero), np.signbit(x))
        sigmoid = _core.vector_math("sigmoid", x)
        np.testing.assert_allclose(_core.gated_tanh(x, gate), sigmoid, rtol=4 * info.eps)
        np.testing.assert_allclose(_core.gated_tanh(x, -gate), -sigmoid, rtol=4 * info.eps)
    nothing = np.array([0.0, -0.0], dtype)
    for limit in large:
        for gate in (limit, -limit):
            zero = _core.gated_tanh(np.full_like(nothing, gate), nothing)
            np.testing.assert_array_equal(np.signbit(zero), [False, True])
            np.testing.assert_array_equal(zero, nothing)
    for other in [0.0, *large, *-large, np.nan]:
        pair = np.array([other, np.nan], dtype), np.array([np.nan, other], dtype)
        assert np.isnan(_core.gated_tanh(*pair)).all()
