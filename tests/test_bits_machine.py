"""Equal bits: neither threads nor the instruction set nor repetition change a result."""

import threading
import time

import numpy as np
import pytest

import fastrnn
from conftest import EQUAL_ISAS
from fastrnn import _core
from support import DTYPES, KINDS, assert_same_bits, net_of, packed, problem, run, unpacked

each_kind = pytest.mark.parametrize("kind", KINDS)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)

# inputs, hidden, steps, rows: work enough for several threads, split over units, rows or both
SHAPES = [(64, 256, 30, 1), (64, 129, 25, 5), (32, 64, 50, 32), (48, 96, 20, 67)]


@pytest.mark.parametrize(("steps", "batch", "hidden"), [(1, 1, 512), (2, 4, 512), (2, 3, 250)])
def test_threads_wait_for_states(steps, batch, hidden):
    """Each copies some rows' states, or their gradients, and reads those of all."""
    rng = np.random.default_rng(0)
    one, two = (fastrnn.GRU(1, hidden, seed=0, num_threads=n) for n in (1, 2))
    x = rng.standard_normal((steps, batch, 1), dtype=np.float32)
    h = rng.standard_normal((1, batch, hidden), dtype=np.float32)
    states = h, 100 * h

    def trained(layer, state):
        y, final, tape = layer.forward(x, state)
        g = layer.backward(tape, None, state)
        return [a.tobytes() for a in (y, final, g.input, g.state)]

    alone = [trained(one, state) for state in states]
    for call in range(100):  # what memory of the call before holds is another state's
        assert trained(two, states[call % 2]) == alone[call % 2], call


@pytest.mark.parametrize("lengths", [None, "ragged"])
@pytest.mark.parametrize("shape", SHAPES)
@both_dtypes
@each_kind
def test_threads(kind, dtype, shape, lengths, fma_isa):
    inputs, hidden, steps, batch = shape
    net = net_of(kind, inputs, hidden, dtype=dtype)
    p = problem(net, steps, batch, lengths if batch > 1 else None)
    alone = run(net.build(num_threads=1), p)
    for threads in (2, 3, 4):
        assert_same_bits(run(net.build(num_threads=threads), p), alone)


@pytest.mark.parametrize(("layers", "split"), [(1, "pipeline"), (3, "layers")])
@both_dtypes
@each_kind
def test_pipeline(kind, dtype, layers, split, fma_isa):
    """one thread multiplies the inputs of a few steps ahead of another, or makes dx of those that
    another has swept; or each has layers of its own: any number of chunks, and of blocks of time"""
    net = net_of(kind, 40, 64 if dtype == "float32" else 48, layers=layers, dtype=dtype)
    for steps, lengths in ((9, None), (64, None), (100, [37]), (303, None)):
        p = problem(net, steps, 1, lengths)
        alone = run(net.build(num_threads=1), p)
        for threads in (2, 3, 5):
            layer = net.build(num_threads=threads)
            assert_same_bits(run(layer, p), alone)
            for _ in range(20):  # helpers come to whom they find calling
                y, state = layer(p.x, packed(p.state), lengths=lengths)
                found = dict(zip("yhc", (y, *unpacked(state)), strict=False))
                assert_same_bits(found, {name: alone[name] for name in found})
    plans = net.build(num_threads=2).explain(steps, 1).layers
    assert {(plan["split"], plan["threads_from"]) for plan in plans} == {(split, "helpers")}


@pytest.mark.parametrize(
    ("split", "hidden", "batch", "bidirectional"),
    [("units", 200, 1, False), ("none", 136, 2, True), ("rows", 40, 12, False)],
)
@both_dtypes
@each_kind
def test_helpers(kind, dtype, split, hidden, batch, bidirectional, fma_isa):
    """calls at once and after pauses: by those who are awake, the others join in the middle"""
    net = net_of(kind, 24, hidden, dtype=dtype, bidirectional=bidirectional)
    steps = 75
    p = problem(net, steps, batch)
    alone = net.build(num_threads=1)(p.x, packed(p.state))[0].tobytes()
    for threads in (2, 3, 4):
        layer = net.build(num_threads=threads)
        for pause in (0, 0, 0.002, 0, 0, 0, 0.002, 0.003, 0, 0):
            time.sleep(pause)
            assert layer(p.x, packed(p.state))[0].tobytes() == alone, (threads, pause)
    (plan,) = net.build(num_threads=2).explain(steps, batch)["layers"]
    assert (plan["split"], plan["threads_from"]) == (split, "helpers")


@each_kind
def test_training_after_pauses(kind, fma_isa):
    """the threads of a region have to be woken, and assemble"""
    net = net_of(kind, 24, 136)
    p = problem(net, steps=40, batch=2)
    alone = run(net.build(num_threads=1), p)
    for threads in (2, 3, 4):
        layer = net.build(num_threads=threads)
        for pause in (0, 0.01, 0.03):
            time.sleep(pause)
            assert_same_bits(run(layer, p), alone)


@both_dtypes
@each_kind
def test_threads_of_a_deep_network(kind, dtype, fma_isa):
    net = net_of(kind, 40, 72, layers=3, bidirectional=True, dtype=dtype)
    p = problem(net, steps=20, batch=6, lengths="ragged")
    alone = run(net.build(num_threads=1), p)
    for threads in (2, 3, 4):
        assert_same_bits(run(net.build(num_threads=threads), p), alone)


@each_kind
def test_default_threads(kind, fma_isa):
    net = net_of(kind, 64, 128)
    p, before = problem(net, steps=20, batch=16), fastrnn.get_num_threads()
    default = run(net.build(), p)
    try:
        fastrnn.set_num_threads(1)
        assert_same_bits(run(net.build(), p), default)
    finally:
        fastrnn.set_num_threads(before)


@each_kind
def test_repetition(kind, fma_isa):
    net = net_of(kind, 64, 128, layers=2)
    p, layer = problem(net, steps=20, batch=16), net.build()
    first = run(layer, p)
    for _ in range(5):
        assert_same_bits(run(layer, p), first)


@pytest.mark.parametrize("batch", [9, 17])
@each_kind
def test_ragged_rows_on_a_busy_machine(kind, batch, fma_isa):
    """threads that are held up for longer than a step must not meet each other's memory"""
    net = net_of(kind, 40, 96)
    p = problem(net, steps=60, batch=batch, lengths="ragged")
    alone = run(net.build(num_threads=1), p)
    layer, other, stop = net.build(num_threads=2), net.build(num_threads=1), []

    def burn():
        while not stop:
            other(p.x)

    burners = [threading.Thread(target=burn) for _ in range(2)]
    for thread in burners:
        thread.start()
    try:
        for _ in range(20):
            assert_same_bits(run(layer, p), alone)
    finally:
        stop.append(True)
        for thread in burners:
            thread.join()


@pytest.mark.parametrize(
    ("sizes", "batch", "layers"), [((5, 7), 3, 2), ((33, 70), 1, 1), ((20, 130), 21, 1)]
)
@both_dtypes
@each_kind
def test_instruction_sets(kind, dtype, sizes, batch, layers, fma_isa):
    """every usable one with FMA, also where FASTRNN_ISA chose one for the other tests"""
    net = net_of(kind, *sizes, layers=layers, bidirectional=layers > 1, dtype=dtype)
    p = problem(net, steps=23, batch=batch, lengths="ragged" if batch > 1 else None)
    here = run(net.build(), p)
    for other in EQUAL_ISAS:
        _core.set_isa(other)
        assert_same_bits(run(net.build(), p), here)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", ["exp", "sigmoid", "tanh"])
def test_elementary_functions(function, dtype, fma_isa):
    x = np.random.default_rng(1).normal(0, 8, 100_003).astype(dtype)
    here = _core.vector_math(function, x)
    for other in EQUAL_ISAS:
        _core.set_isa(other)
        assert _core.vector_math(function, x).tobytes() == here.tobytes(), other


@both_dtypes
def test_linear(dtype, fma_isa):
    """a row's place and mates, threads, instruction sets"""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((301, 70)).astype(dtype)
    dy = rng.standard_normal((301, 45)).astype(dtype)

    def results(threads, rows=slice(None)):
        linear = fastrnn.Linear(70, 45, dtype=np.dtype(dtype).type, seed=1, num_threads=threads)
        y, tape = linear.forward(x[rows])
        g = linear.backward(tape, dy[rows])
        return {"y": y, "dx": g.input}, g.weights

    rows, weights = results(1)
    for threads in (2, 3, 4):
        again, weights_again = results(threads)  # backward's threads come from a region
        assert_same_bits(again, rows)
        assert_same_bits(weights_again, weights)
        time.sleep(0.01)  # and are forgotten: the next forward asks helpers
    for some in (slice(7, 8), slice(100, 117), slice(290, 301)):
        assert_same_bits(results(1, some)[0], {name: a[some] for name, a in rows.items()})
    for other in EQUAL_ISAS:
        _core.set_isa(other)
        again, weights_again = results(2)
        assert_same_bits(again, rows)
        assert_same_bits(weights_again, weights)
