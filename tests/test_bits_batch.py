"""Equal bits: a sequence does not feel its batch mates, its place, its padding, its chunks.

Everything is compared as bytes, for outputs and for gradients with respect to the sequence.
"""

from dataclasses import replace

import numpy as np
import pytest

from support import DTYPES, KINDS, assert_same_bits, net_of, packed, problem, run, unpacked

pytestmark = pytest.mark.usefixtures("fma_isa")
each_kind = pytest.mark.parametrize("kind", KINDS)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)
SMALL, LARGE = (5, 7), (33, 70)  # inputs, hidden: within one vector, several and a part


def results_of_row(results, row):
    """what belongs to one sequence: the row axis is the second one, but that of the norms"""
    names = [name for name in results if name in ("y", "h", "c", "dx", "dh0", "dc0")]
    own = {name: np.ascontiguousarray(results[name][:, row]) for name in names}
    return own | {"step_norms": results["step_norms"][:, :, row].copy()}


@pytest.mark.parametrize("batch", [2, 3, 6, 7, 16, 25, 64])
@pytest.mark.parametrize("sizes", [SMALL, LARGE])
@both_dtypes
@each_kind
def test_batch_mates(kind, dtype, sizes, batch):
    net = net_of(kind, *sizes, layers=2, bidirectional=True, dtype=dtype)
    p, layer = problem(net, steps=9, batch=batch), net.build()
    together = run(layer, p)
    for row in {0, 1, batch // 2, batch - 1}:
        alone = run(layer, p.rows([row]))
        assert_same_bits(results_of_row(together, row), results_of_row(alone, 0))


@both_dtypes
@each_kind
def test_place_in_the_batch(kind, dtype):
    net = net_of(kind, *LARGE, dtype=dtype)
    p, layer = problem(net, steps=9, batch=23, lengths="ragged"), net.build()
    order = np.random.default_rng(1).permutation(23)
    here, there = run(layer, p), run(layer, p.rows(order))
    for place, row in enumerate(order):
        assert_same_bits(results_of_row(there, place), results_of_row(here, row))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("sizes", "batch"), [(LARGE, 9), (SMALL, 150)])
@both_dtypes
@each_kind
def test_ragged_row_equals_the_short_sequence(kind, dtype, sizes, batch, bidirectional):
    """with 150 rows: more than a sweep carries along at once (128 with AVX-512), and then fewer"""
    net = net_of(kind, *sizes, layers=2, bidirectional=bidirectional, dtype=dtype)
    p, layer = problem(net, steps=12, batch=batch, lengths="ragged"), net.build(num_threads=1)
    together = run(layer, p)
    for row, length in enumerate(p.lengths):
        alone = p.rows([row])
        alone = replace(alone, x=alone.x[:length], dy=alone.dy[:length], lengths=None)
        cut = results_of_row(together, row)
        cut |= {name: cut[name][:length] for name in ("y", "dx")}
        cut["step_norms"] = cut["step_norms"][:, :length]
        assert_same_bits(cut, results_of_row(run(layer, alone), 0))


def chunked(layer, p, sizes):
    """forward with carried state; backward, last chunk first, with carried dstate"""
    ends = np.cumsum(sizes)
    state, tapes, ys = p.state, [], []
    for start, end in zip(ends - sizes, ends, strict=True):
        y, state, tape = layer.forward(p.x[start:end], packed(state))
        state = unpacked(state)
        ys.append(y)
        tapes.append((start, end, tape))
    dstate, dxs, norms = p.dstate, [], []
    for start, end, tape in reversed(tapes):
        g = layer.backward(tape, p.dy[start:end], packed(dstate), step_norms=True)
        dstate = unpacked(g.state)
        dxs.insert(0, g.input)
        norms.insert(0, g.step_norms)
    names = ("y", "dx", "step_norms", "h", "dh0", "c", "dc0")
    pairs = [a for pair in zip(state, dstate, strict=True) for a in pair]
    joined = np.concatenate(ys), np.concatenate(dxs), np.concatenate(norms, axis=1)
    return dict(zip(names, (*joined, *pairs), strict=False))


@pytest.mark.parametrize("sizes", [(1,) * 17, (5, 1, 11), (16, 1), (0, 17)])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("batch", [1, 6, 19])
@both_dtypes
@each_kind
def test_chunks(kind, dtype, batch, layers, sizes):
    net = net_of(kind, *LARGE, layers=layers, dtype=dtype)
    p, layer = problem(net, steps=17, batch=batch), net.build()
    whole, pieces = run(layer, p), chunked(layer, p, np.array(sizes))
    assert_same_bits(pieces, {name: whole[name] for name in pieces})


@pytest.mark.parametrize("steps", [257, 258, 259, 260])
@both_dtypes
@each_kind
def test_few_steps_before_a_block_of_time(kind, dtype, steps):
    """sums over time run in blocks of 256 steps from the end on: what is left is added"""
    net = net_of(kind, *LARGE, dtype=dtype)
    p, layer = problem(net, steps=steps, batch=1), net.build()
    whole = run(layer, p)
    _, state, first = layer.forward(p.x[:-256], packed(p.state))
    _, _, block = layer.forward(p.x[-256:], state)
    last = layer.backward(block, p.dy[-256:], packed(p.dstate))
    before = layer.backward(first, p.dy[:-256], last.state).weights
    sums = {name: g + before[name] for name, g in last.weights.items()}
    assert_same_bits(sums, {name: whole[name] for name in sums})


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@both_dtypes
@each_kind
def test_gradients_of_weights_from_few_rows_and_many(kind, dtype, rows):
    """those without a gradient of their own add nothing; rows of x are longer than 4 KB"""
    net = net_of(kind, 1030, 37, dtype=dtype)
    p, layer = problem(net, steps=1, batch=7), net.build()
    for part in (p.dy, *p.dstate):
        part[:, rows:] = 0
    many, few = run(layer, p), run(layer, p.rows(slice(rows)))
    assert_same_bits(*({name: g[name] for name in layer.parameters()} for g in (many, few)))


@pytest.mark.parametrize("batch", [1, 2, 13])
@pytest.mark.parametrize("sizes", [SMALL, LARGE, (1, 130)])
@both_dtypes
@each_kind
def test_stream(kind, dtype, sizes, batch):
    """step by step, block by block, and both mixed: the bits of the whole sequence"""
    net = net_of(kind, *sizes, layers=2, dtype=dtype)
    p, layer = problem(net, steps=21, batch=batch), net.build()
    y, final = layer(p.x, packed(p.state))
    x = p.x[:, 0] if batch == 1 else p.x
    y = y[:, 0] if batch == 1 else y
    for step_until, block_until, threads in [(21, 21, 1), (0, 21, 1), (5, 16, 1), (5, 16, 2)]:
        stream = layer.stream(batch, num_threads=threads)
        stream.state = packed(p.state)
        parts = [stream.step(x[t])[None] for t in range(step_until)]
        parts += [stream.process(x[step_until:block_until])]
        parts += [stream.step(x[t])[None] for t in range(block_until, 21)]
        assert np.concatenate(parts).tobytes() == y.tobytes()
        for ours, wanted in zip(unpacked(stream.state), unpacked(final), strict=True):
            assert ours.tobytes() == wanted.tobytes()
