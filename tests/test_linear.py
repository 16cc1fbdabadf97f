"""fastrnn.Linear: against NumPy, its checks, its copies. Its bits are in test_bits_machine.py."""

import copy
import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import fastrnn
from support import DTYPES

pytestmark = pytest.mark.usefixtures("isa")
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)


def build(inputs, outputs, dtype="float32", **options):
    return fastrnn.Linear(inputs, outputs, dtype=np.dtype(dtype).type, seed=1, **options)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "leading", [(), (1,), (7,), (5, 3), (2, 3, 4), (0,), (3, 0), (301,), (777,)]
)
@pytest.mark.parametrize("sizes", [(1, 1), (5, 1), (1, 7), (13, 17), (70, 33)])
@both_dtypes
def test_matches_numpy(dtype, sizes, leading, bias):
    inputs, outputs = sizes
    rng = np.random.default_rng(1)
    x = rng.standard_normal((*leading, inputs)).astype(dtype)
    dy = rng.standard_normal((*leading, outputs)).astype(dtype)
    linear = build(inputs, outputs, dtype, bias=bias)
    y, tape = linear.forward(x)
    g = linear.backward(tape, dy)
    alone = linear.backward(tape, dy, input_grad=False)
    assert alone.input is None
    assert all(alone.weights[name].tobytes() == w.tobytes() for name, w in g.weights.items())
    again = linear(x)  # bound in C++, where forward's arrays are in Python
    assert (again.dtype, again.shape, again.tobytes()) == (y.dtype, y.shape, y.tobytes())

    weights = {name: w.astype(np.float64) for name, w in linear.state_dict().items()}
    rows, drows = x.reshape(-1, inputs).astype(np.float64), dy.reshape(-1, outputs)
    wanted_y = rows @ weights["weight"].T + weights.get("bias", 0)
    wanted = {"weight": drows.T @ rows, "bias": drows.sum(axis=0)}
    tolerance = dict(rtol=1e-5, atol=1e-5) if dtype == "float32" else dict(rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(y, wanted_y.reshape(dy.shape), **tolerance)
    np.testing.assert_allclose(g.input, (drows @ weights["weight"]).reshape(x.shape), **tolerance)
    assert list(g.weights) == (["weight", "bias"] if bias else ["weight"])
    for name, gradient in g.weights.items():
        scale = max(1.0, np.abs(wanted[name]).max())
        np.testing.assert_allclose(gradient / scale, wanted[name] / scale, **tolerance)
        assert gradient.dtype == dtype
    assert y.dtype == g.input.dtype == dtype
    assert g.state is None


AT_THE_END_OF_A_PAGE = """
import ctypes, mmap
import numpy as np
import fastrnn

PAGE = mmap.PAGESIZE
pages = []

def at_the_end(values):
    pages.append(mmap.mmap(-1, 2 * PAGE))
    memory = np.frombuffer(pages[-1], np.uint8)
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(memory.ctypes.data + PAGE), PAGE, 0) == 0
    there = memory[PAGE - values.nbytes : PAGE].view(values.dtype).reshape(values.shape)
    there[...] = values
    return there

rng = np.random.default_rng(1)
for dtype in (np.float32, np.float64):
    for size in range(1, 14):
        linear = fastrnn.Linear(size, size, dtype=dtype, seed=1)
        x, dy = rng.standard_normal((2, 5, size)).astype(dtype)
        wanted, got = [
            linear.backward(linear.forward(x)[1], dy)
            for x, dy in ((x, dy), (at_the_end(x), at_the_end(dy)))
        ]
        for name, gradient in wanted.weights.items():
            assert gradient.tobytes() == got.weights[name].tobytes()
        assert wanted.input.tobytes() == got.input.tobytes()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect, from where Linux has it")
def test_nothing_is_read_beyond_the_callers_arrays(isa):
    environment = dict(os.environ, FASTRNN_ISA=isa)
    subprocess.run(
        [sys.executable, "-c", AT_THE_END_OF_A_PAGE], check=True, timeout=120, env=environment
    )


def test_sizes_of_a_layer():
    """either way round, also of one that was loaded or copied"""
    linear = build(5, 7, bias=False)
    buffer = io.BytesIO()
    linear.save(buffer)
    for each in (linear, copy.copy(linear), fastrnn.load(buffer.getvalue())):
        assert (each.in_features, each.out_features, each.bias) == (5, 7, False)
        for name in ("in_features", "out_features", "bias"):
            with pytest.raises(AttributeError):
                setattr(each, name, 3)


def test_strided_input():
    linear = build(5, 7)
    wide = np.random.default_rng(1).standard_normal((6, 4, 10)).astype(np.float32)
    for x in (wide[..., ::2], wide[::2, :, :5], wide[..., :5].swapaxes(0, 1), wide[::-1, :, :5]):
        assert linear(x).tobytes() == linear(x.copy()).tobytes()


@pytest.mark.parametrize("leading", [(), (1,), (6, 4), (2, 1, 2, 3, 1), (0,)])
@both_dtypes
def test_output_array(dtype, leading):
    """the same bits, into the array that was given, whatever way x takes"""
    linear = build(5, 7, dtype)
    x = np.random.default_rng(1).standard_normal((*leading, 10)).astype(dtype)
    for given in (x[..., :5].copy(), x[..., ::2], x[..., :5].copy().view(np.recarray)):
        for out in (
            np.full((*leading, 7), 3, dtype),
            np.ones((*leading, 7), dtype).view(np.memmap),
        ):
            assert linear(given, out=out) is out
            assert out.tobytes() == linear(given).tobytes()


def test_output_array_that_is_wrong():
    linear, x = build(5, 5), np.ones((4, 5), np.float32)
    frozen = np.full((4, 5), 3, np.float32)
    frozen.flags.writeable = False
    masked = np.ma.masked_array(np.ones((4, 5), np.float32), x == 1)
    wrong = [
        ([[0.0] * 5] * 4, TypeError, "out: expected a NumPy array of float32, got list"),
        (np.ones((4, 5)), TypeError, "out: expected dtype float32, got float64"),
        (masked, TypeError, "out: expected a plain array, got a masked one"),
        (np.ones((5, 5), np.float32), ValueError, r"out: expected shape \[4, 5\], got \[5, 5\]"),
        (np.ones(20, np.float32), ValueError, r"out: expected shape \[4, 5\], got \[20\]"),
        (np.ones((5, 4), np.float32).T, ValueError, "out: expected a C-contiguous aligned array"),
        (frozen, ValueError, "out: expected a writable array, got a read-only one"),
        (x, ValueError, "out: overlaps x in memory; pass an array of its own"),
    ]
    for out, error, message in wrong:
        before = np.array(out, copy=True)
        with pytest.raises(error, match=message):
            linear(x, out=out)
        np.testing.assert_array_equal(np.array(out), before)
    rows = np.arange(25, dtype=np.float32).reshape(5, 5)
    with pytest.raises(ValueError, match="out: overlaps x"):
        linear(rows[:4], out=rows[1:])
    wanted = linear(rows[1:, ::-1])
    assert linear(rows[1:, ::-1], out=rows[:4]).tobytes() == wanted.tobytes()  # x is copied first
    with pytest.raises(TypeError, match="positional"):
        linear(x, frozen)


def test_initial_values():
    linear = build(16, 300)
    for w in linear.state_dict().values():
        assert 0.9 / 4 < np.abs(w).max() <= 1 / 4
    assert linear.state_dict()["weight"].shape == (300, 16)
    again = build(16, 300).state_dict()
    assert all(w.tobytes() == again[name].tobytes() for name, w in linear.state_dict().items())


def test_edit_and_load():
    linear, x = build(5, 7), np.ones((3, 5), np.float32)
    y, tape = linear.forward(x)
    with linear.edit() as weights:
        weights["weight"] *= 2
        weights["bias"] *= 2
    np.testing.assert_array_equal(linear(x), 2 * y)
    with pytest.raises(ValueError, match=r"tape: .*changed"):
        linear.backward(tape, y)
    other = build(5, 7)
    other.load_state_dict(linear.state_dict())
    assert other(x).tobytes() == linear(x).tobytes()
    with pytest.raises(ValueError, match=r"weight.*\[7, 5\].*\[7, 6\]"):
        other.load_state_dict(build(6, 7).state_dict())


@pytest.mark.parametrize("method", ["edit", "load_state_dict"])
def test_backward_packs_new_weights_too(method):
    """a pass back packs for itself, in memory that an earlier one has filled"""
    linear, x, dy = build(5, 7), np.ones((3, 5), np.float32), np.ones((3, 7), np.float32)
    y, tape = linear.forward(x)
    dx = linear.backward(tape, dy).input
    if method == "edit":
        with linear.edit() as weights:
            for w in weights.values():
                w *= 2
    else:
        linear.load_state_dict({name: 2 * w for name, w in linear.state_dict().items()})
    doubled, tape = linear.forward(x)
    np.testing.assert_array_equal(doubled, 2 * y)
    np.testing.assert_array_equal(linear.backward(tape, dy).input, 2 * dx)


def test_copies():
    linear, x = build(5, 7), np.ones((3, 5), np.float32)
    for twin in (copy.copy(linear), copy.deepcopy(linear), pickle.loads(pickle.dumps(linear))):
        assert twin(x).tobytes() == linear(x).tobytes()
        with twin.edit() as weights:
            weights["bias"] += 1
        assert twin(x).tobytes() != linear(x).tobytes()


def test_bad_input():
    linear = build(5, 7)
    for call in (linear, linear.forward):
        with pytest.raises(ValueError, match=r"^x: expected.*in_features=5.*got \[3, 4\]"):
            call(np.zeros((3, 4), np.float32))
        with pytest.raises(ValueError, match=r"^x: expected"):
            call(np.float32(3) * np.ones((), np.float32))
        with pytest.raises(TypeError, match=r"^x: expected.*float32.*got float64"):
            call(np.zeros((3, 5)))
    y, tape = linear.forward(np.zeros((3, 5), np.float32))
    assert tape.nbytes == 0, "beyond x and y"
    with pytest.raises(ValueError, match=r"^dy: expected shape \[3, 7\].*got \[7, 3\]"):
        linear.backward(tape, y.T.copy())
    with pytest.raises(TypeError, match=r"^dy: expected.*float32.*got float64"):
        linear.backward(tape, y.astype(np.float64))
    with pytest.raises(ValueError, match=r"^tape: .*another layer"):
        build(5, 7).backward(tape, y)
    with pytest.raises(TypeError, match=r"^tape: expected"):
        linear.backward(None, y)
    for sizes in ((0, 3), (3, 0), (-1, 3)):
        with pytest.raises(ValueError, match=r"_features: expected an integer >= 1"):
            fastrnn.Linear(*sizes)


def test_modes():
    """a loop over the modules of a model may ask for either; no number depends on it"""
    linear, x = build(5, 7), np.ones((3, 5), np.float32)
    y = linear(x)
    assert linear.training and linear.eval() is linear and not linear.training
    assert linear(x).tobytes() == y.tobytes()
    assert not pickle.loads(pickle.dumps(linear)).training
    assert linear.train() is linear and linear.training
    with pytest.raises(TypeError, match=r"^mode: expected"):
        linear.train("yes")


def test_matches_torch():
    torch = pytest.importorskip("torch")
    linear, twin = build(13, 17), torch.nn.Linear(13, 17)
    twin.load_state_dict({k: torch.from_numpy(w) for k, w in linear.state_dict().items()})
    x = np.random.default_rng(1).standard_normal((9, 13)).astype(np.float32)
    np.testing.assert_allclose(linear(x), twin(torch.from_numpy(x)).detach(), atol=1e-6)
    linear.load_state_dict(twin.state_dict())


def test_denormal_gradients_are_flushed_like_everywhere():
    layer = build(3, 4)
    *_, tape = layer.forward(np.ones((5, 3), np.float32))
    g = layer.backward(tape, np.full((5, 4), 1e-40, np.float32))
    assert not any(w.any() for w in g.weights.values())


def test_repr():
    assert repr(fastrnn.Linear(2, 3)) == "Linear(2, 3)"
    assert repr(type("Head", (fastrnn.Linear,), {})(2, 3)) == "Head(2, 3)", "as layers' subclasses"
    layer = fastrnn.Linear(2, 3, False, dtype=np.float64, num_threads=2)
    assert repr(layer) == "Linear(2, 3, bias=False, dtype='float64', num_threads=2)"
