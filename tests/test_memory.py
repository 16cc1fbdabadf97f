"""Large results lie on memory that comes back when they are gone, and never before."""

import gc
import os
import pickle
import threading
from itertools import combinations

import numpy as np
import pytest

import fastrnn
from fastrnn import _memory
from fastrnn._core import empty

LARGE = (
    1 << 16
)  # bytes: from here on memory is kept; here also elements, so that any dtype is large
FLOATS = [np.dtype(np.float32), np.dtype(np.float64)]
each = pytest.mark.parametrize("dtype", FLOATS, ids=str)


@each
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5), (3,), (100, 16, 128), (LARGE,)], ids=str)
def test_an_array_is_as_numpy_would_make_it(shape, dtype):
    made, wanted = empty(shape, dtype), np.empty(shape, dtype)
    assert made.shape == wanted.shape and made.dtype == wanted.dtype
    assert made.strides == wanted.strides and made.flags.c_contiguous and made.flags.writeable
    made[...] = 1.5
    assert (pickle.loads(pickle.dumps(made)) == made).all()


@each
def test_living_arrays_share_nothing(dtype):
    arrays = [empty((LARGE + i,), dtype) for i in range(40)]
    for i, array in enumerate(arrays):
        array.fill(i)
    del arrays[::3]
    arrays += [empty((LARGE,), dtype) for _ in range(10)]
    for array in arrays[-10:]:
        array.fill(-1)
    kept = [i for i in range(40) if i % 3]
    assert all((a == i).all() for a, i in zip(arrays, kept, strict=False))


def test_memory_comes_back_through_views():
    array = empty((4, LARGE), FLOATS[0])
    address, view = array.ctypes.data, array[1:, ::2].T
    del array
    assert empty((4, LARGE), FLOATS[0]).ctypes.data != address, "a view still needs it"
    del view
    gc.collect()
    assert address in [a.ctypes.data for a in [empty((4, LARGE), FLOATS[0]) for _ in range(4)]]


def test_results_of_a_step_survive_the_next():
    layer = fastrnn.LSTM(64, 64, seed=0)
    x = np.random.default_rng(0).standard_normal((50, 16, 64), dtype=np.float32)
    y, _, tape = layer.forward(x)
    gradients = layer.backward(tape, np.ones_like(y))
    copies = [a.copy() for a in (y, gradients.input, *gradients.weights.values())]
    for _ in range(5):
        other, _, tape = layer.forward(-x)
        layer.backward(tape, np.ones_like(other))
    results = (y, gradients.input, *gradients.weights.values())
    assert all(a.tobytes() == b.tobytes() for a, b in zip(results, copies, strict=True))


def test_results_of_a_call_survive_the_next():
    lstm, linear = fastrnn.LSTM(64, 64, seed=0), fastrnn.Linear(64, 64, seed=0)
    x = np.random.default_rng(0).standard_normal((5, 300, 64), dtype=np.float32)

    def results(x):
        y, (h, c) = lstm(x)
        ragged, (ragged_h, ragged_c) = lstm(x, lengths=np.full(300, 4))
        return y, h, c, ragged, ragged_h, ragged_c, linear(x), linear.forward(x)[0]

    first = results(x)
    assert all(a.nbytes >= LARGE for a in first)
    copies = [a.copy() for a in first]
    for _ in range(5):
        results(-x)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, copies, strict=True))


def test_threads_share_the_pool():
    wrong = []

    def work(value):
        for n in range(200):
            array = empty((LARGE // 4 + n % 7,), FLOATS[0])
            array.fill(value)
            if not (array == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(v,)) for v in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="asks Linux")
@pytest.mark.parametrize("lengths", [None, [9]])
def test_one_large_call_does_not_bind_its_memory(lengths):
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    layer = fastrnn.LSTM(1, 64, num_layers=2, seed=0)  # the lower layer's outputs are its own
    small, large = np.zeros((10, 1, 1), np.float32), np.zeros((3600, 64, 1), np.float32)
    layer(small)
    before = resident()
    layer(large)
    kept = resident() - before
    for _ in range(200):
        layer(small, lengths=lengths)
    assert kept > 64 << 20, "it did keep that memory for the next call"
    assert resident() - before < 16 << 20


def some_views(rng, base):
    """Pieces of one array: forwards, backwards, with steps, empty ones, transposed"""
    for _ in range(rng.integers(1, 7)):
        begin, end = sorted(rng.integers(0, len(base) + 1, 2))
        view = base[begin:end][:: rng.choice([-3, -2, -1, 1, 2, 3])]
        yield view[: len(view) // 2 * 2].reshape(2, -1).T if rng.integers(2) else view


def test_arrays_that_share_memory_are_found():
    rng, base, found = np.random.default_rng(0), np.zeros(60), []
    for _ in range(500):
        arrays = list(some_views(rng, base))
        pairs = list(combinations(range(len(arrays)), 2))
        wanted = [pair for pair in pairs if np.shares_memory(*(arrays[i] for i in pair))]
        pair = _memory.sharing(arrays)
        assert pair in wanted if wanted else pair is None
        found.append(bool(wanted))
    assert 100 < sum(found) < 400, "some of both"


def test_arrays_apart_are_not_compared(monkeypatch):
    monkeypatch.setattr(_memory, "overlap", lambda *_: pytest.fail("by their bounds"))
    assert _memory.sharing([np.zeros(3) for _ in range(100)]) is None
    assert _memory.sharing(list(np.zeros((100, 3)))) is None
