"""Outputs and final states against the float64 oracle."""

import numpy as np
import pytest

import fastrnn
import reference
from fastrnn import _threads
from support import DTYPES, KINDS, assert_close, net_of, packed, problem, same, unpacked

pytestmark = pytest.mark.usefixtures("isa")
each_kind = pytest.mark.parametrize("kind", KINDS)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)


def check(net, p, layer=None):
    layer = layer or net.build()
    y, state = layer(p.x, packed(p.state), lengths=p.lengths)
    wanted, wanted_state, _ = reference.forward(
        net.cell, layer.state_dict(), p.x, p.state, p.lengths
    )
    actual = dict(zip(("y", "h", "c"), (y, *unpacked(state)), strict=False))
    assert_close(
        actual, dict(zip(("y", "h", "c"), (wanted, *wanted_state), strict=False)), net.dtype
    )


@pytest.mark.parametrize("lengths", [None, "ragged"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@both_dtypes
@each_kind
def test_matches_reference(kind, dtype, layers, bidirectional, lengths):
    net = net_of(kind, 5, 7, layers=layers, bidirectional=bidirectional, dtype=dtype)
    check(net, problem(net, steps=11, batch=6, lengths=lengths))


@both_dtypes
@each_kind
def test_without_bias(kind, dtype):
    net = net_of(kind, 5, 20, layers=2, bias=False, dtype=dtype)
    check(net, problem(net, steps=9, batch=5))


@both_dtypes
@each_kind
def test_sizes_of_real_use(kind, dtype):
    net = net_of(kind, 40, 96, dtype=dtype)
    check(net, problem(net, steps=40, batch=17, lengths="ragged"))


@both_dtypes
@each_kind
def test_no_state_means_zeros(kind, dtype):
    net = net_of(kind, 5, 7, layers=2, bidirectional=True, dtype=dtype)
    p, layer = problem(net, steps=6, batch=3), net.build()
    y, state = layer(p.x)
    zeros = tuple(np.zeros_like(s) for s in p.state)
    wanted, wanted_state = layer(p.x, packed(zeros))
    assert y.tobytes() == wanted.tobytes()
    for ours, theirs in zip(unpacked(state), unpacked(wanted_state), strict=True):
        assert ours.tobytes() == theirs.tobytes()


@each_kind
def test_shapes_and_types(kind):
    net = net_of(kind, 5, 7, layers=2, bidirectional=True)
    y, state = net.build()(problem(net, steps=4, batch=3).x)
    assert y.shape == (4, 3, 2 * net.width)
    assert unpacked(state)[0].shape == (4, 3, net.width)
    assert isinstance(state, tuple) == net.has_c
    if net.has_c:
        assert state[1].shape == (4, 3, net.hidden)
    assert y.dtype == unpacked(state)[0].dtype == np.float32


@each_kind
def test_batch_first_swaps_the_sequence_only(kind):
    net = net_of(kind, 5, 7, layers=2)
    p = problem(net, steps=6, batch=3, lengths="ragged")
    y, state = net.build()(p.x, packed(p.state), lengths=p.lengths)
    swapped = np.ascontiguousarray(p.x.swapaxes(0, 1))
    y_first, state_first = net.build(batch_first=True)(swapped, packed(p.state), lengths=p.lengths)
    assert y_first.shape == (3, 6, net.width)
    assert y_first.swapaxes(0, 1).tobytes() == y.tobytes()
    for a, b in zip(unpacked(state), unpacked(state_first), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("batch_first", [False, True])
@each_kind
def test_unbatched_is_a_batch_of_one(kind, batch_first):
    net = net_of(kind, 5, 7, layers=2, bidirectional=True)
    p = problem(net, steps=6, batch=1)
    y, state = net.build()(p.x, packed(p.state))
    alone = tuple(s[:, 0] for s in p.state)
    y_1, state_1 = net.build(batch_first=batch_first)(p.x[:, 0], packed(alone))
    assert y_1.shape == (6, 2 * net.width)
    assert y_1.tobytes() == y.tobytes()
    for a, b in zip(unpacked(state), unpacked(state_1), strict=True):
        assert b.shape == (a.shape[0], a.shape[2])
        assert a.tobytes() == b.tobytes()


@each_kind
def test_lengths_end_a_row(kind):
    """zeros past the end; the state of the row's end; an empty row hands its state through"""
    net = net_of(kind, 5, 7)
    p, layer = problem(net, steps=6, batch=4), net.build()
    lengths = [3, 0, 6, 1]
    y, state = layer(p.x, packed(p.state), lengths=np.array(lengths))
    for row, length in enumerate(lengths):
        assert not y[length:, row].any()
        last = y[length - 1, row] if length else p.state[0][0, row]
        assert unpacked(state)[0][0, row].tobytes() == last.tobytes()


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint16])
def test_lengths_of_any_integer_type(dtype):
    net = net_of("gru", 3, 4)
    p, layer = problem(net, steps=5, batch=3), net.build()
    wanted, _ = layer(p.x, lengths=np.array([2, 5, 0]))
    for lengths in (np.array([2, 5, 0], dtype), [2, 5, 0], np.array([2, 9, 5, 9, 0], dtype)[::2]):
        assert layer(p.x, lengths=lengths)[0].tobytes() == wanted.tobytes()
    wanted, _ = layer(p.x, lengths=[1, 2, 3])
    assert layer(p.x, lengths=range(1, 4))[0].tobytes() == wanted.tobytes()


@each_kind
def test_forward_gives_the_bits_of_a_call(kind):
    net = net_of(kind, 5, 20, layers=2, bidirectional=True)
    p, layer = problem(net, steps=9, batch=5, lengths="ragged"), net.build()
    y, state = layer(p.x, packed(p.state), lengths=p.lengths)
    y_kept, state_kept, _ = layer.forward(p.x, packed(p.state), lengths=p.lengths)
    assert y.tobytes() == y_kept.tobytes()
    for a, b in zip(unpacked(state), unpacked(state_kept), strict=True):
        assert a.tobytes() == b.tobytes()
    assert y.flags.writeable and not y_kept.flags.writeable


def test_inputs_are_left_alone():
    net = net_of("lstm", 5, 7, layers=2)
    p, layer = problem(net, steps=6, batch=3, lengths="ragged"), net.build()
    before = [a.tobytes() for a in (p.x, *p.state, p.lengths, p.dy, *p.dstate)]
    _, _, tape = layer.forward(p.x, p.state, lengths=p.lengths)
    layer.backward(tape, p.dy, p.dstate)
    assert before == [a.tobytes() for a in (p.x, *p.state, p.lengths, p.dy, *p.dstate)]


def test_default_dtype_is_float32():
    assert fastrnn.GRU(2, 3)(np.zeros((4, 1, 2), np.float32))[0].dtype == np.float32


@each_kind
def test_one_length_of_a_row_without_a_batch(kind):
    """a number, or a list of one"""
    net = net_of(kind, 5, 7, bidirectional=True)
    x, layer = problem(net, steps=6, batch=1).x[:, 0], net.build()
    wanted, state = layer(x, lengths=[4])
    assert not wanted[4:].any() and wanted[:4].tobytes() == layer(x[:4])[0].tobytes()
    for length in (4, np.int16(4), np.array(4), (4,)):
        y, final = layer(x, lengths=length)
        assert y.tobytes() == wanted.tobytes() and same(final, state)
    for wrong in ([4, 4], np.ones((1, 1), int)):
        with pytest.raises(ValueError, match=r"^lengths: expected shape \[1\]"):
            layer(x, lengths=wrong)
    with pytest.raises(ValueError, match=r"^lengths: expected shape \[1\].* got \[\]"):
        layer(x[:, None], lengths=4)


@pytest.mark.parametrize(("own", "default", "wanted"), [(None, 0, 0), (None, 3, 3), (2, 3, 2)])
@pytest.mark.parametrize("cls", [fastrnn.GRU, fastrnn.Linear])
def test_threads_of_a_call_are_its_layers_or_the_librarys(cls, own, default, wanted, monkeypatch):
    """of which 0 are all; results cannot tell, since they do not depend on it"""
    layer, asked = cls(3, 4, num_threads=own), []
    native = layer._packing.acquire().native

    class Asked:
        def __getattr__(self, name):
            def look(*given):
                asked.append(next(value for value in reversed(given) if type(value) is int))
                return getattr(native, name)(*given)

            return look

    layer._packing.acquire().native = Asked()
    monkeypatch.setattr(_threads, "default", default)
    x = np.zeros((2, 1, 3), np.float32)
    layer(x)
    y, *_, tape = layer.forward(x)
    layer.backward(tape, y)
    assert asked == 3 * [wanted]
