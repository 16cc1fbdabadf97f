"""Calls whose arguments need no second look are bound in C++, the others in Python: equally."""

import sys
import threading

import numpy as np
import pytest

import fastrnn
from fastrnn import _core
from fastrnn._engine import _pack
from support import KINDS, net_of, packed, problem, unpacked

pytestmark = pytest.mark.usefixtures("isa")
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("given", ["no state", "h alone", "c alone", "state"])
@each_kind
def test_the_short_way_into_the_core_is_the_long_one(kind, given, batched, batch_first):
    """a call whose arguments need no second look binds them in C++; with lengths Python does"""
    net = net_of(kind, 5, 20, layers=2, bidirectional=True)
    p = problem(net, steps=4, batch=3 if batched else 1)
    layer = net.build(batch_first=batch_first)
    x, state = p.x, p.state
    if not batched:
        x, state = x[:, 0].copy(), tuple(s[:, 0].copy() for s in state)
    elif batch_first:
        x = x.transpose(1, 0, 2).copy()
    if given in ("h alone", "c alone"):
        state = tuple(s if i == (given == "c alone") else None for i, s in enumerate(state))
    state = None if given == "no state" else packed(state)
    y, final = layer(x, state)
    wanted, wanted_final = layer(x, state, lengths=[4] * (3 if batched else 1))
    assert type(final) is type(wanted_final)
    for a, b in zip((y, *unpacked(final)), (wanted, *unpacked(wanted_final)), strict=True):
        assert type(a) is np.ndarray and a.flags.c_contiguous and a.flags.writeable
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def test_the_short_way_is_only_for_what_can_be_read_as_it_lies():
    layer = fastrnn.LSTM(5, 7)
    x, h, c = (np.zeros(shape, np.float32) for shape in ((4, 3, 5), (1, 3, 7), (1, 3, 7)))
    network = layer._engine.packing.acquire().native
    y, (hn, cn) = network.plain_call(x, (h, c), False, 1)
    assert [a.shape for a in (y, hn, cn)] == [(4, 3, 7), (1, 3, 7), (1, 3, 7)]
    shifted = np.zeros(x.nbytes + 2, np.uint8)[2:].view(np.float32).reshape(x.shape)
    swapped = x.astype(x.dtype.newbyteorder())
    others = [
        x.tolist(), None, x.astype(np.float64), swapped, x.view(np.int32), x.view(np.recarray),
        x[::2], x[..., :4], x[0, 0], x[None], x[:0], x[:, :0], shifted,
    ]  # fmt: skip
    for other in others:
        assert network.plain_call(other, None, False, 1) is None
    for state in (h, (h,), [h, c], (h, c, c), (h[:, :2], c), (h[0], c), (h, c.astype(float)), 5):
        assert network.plain_call(x, state, False, 1) is None


def results_of(y, final, gradients):
    return [y, *unpacked(final), gradients.input, *unpacked(gradients.state),
            *gradients.weights.values()]  # fmt: skip


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("given", ["dy alone", "dh alone", "dc alone", "dstate", "all"])
@each_kind
def test_the_short_way_through_training_is_the_long_one(kind, given, batched, batch_first):
    net = net_of(kind, 5, 20, layers=2, bidirectional=True)
    p = problem(net, steps=4, batch=3 if batched else 1)
    layer = net.build(batch_first=batch_first)
    x, dy, state, dstate = p.x, p.dy, p.state, p.dstate
    if not batched:
        x, dy = x[:, 0].copy(), dy[:, 0].copy()
        state, dstate = (tuple(s[:, 0].copy() for s in pair) for pair in (state, dstate))
    elif batch_first:
        x, dy = x.transpose(1, 0, 2).copy(), dy.transpose(1, 0, 2).copy()
    if given in ("dh alone", "dc alone"):
        dstate = tuple(s if i == (given == "dc alone") else None for i, s in enumerate(dstate))
    dy = None if given not in ("dy alone", "all") else dy
    dstate = None if given == "dy alone" else packed(dstate)
    if dy is None and all(s is None for s in unpacked(dstate)):
        pytest.skip("no gradient at all")
    native = layer._engine.packing.acquire().native
    assert native.plain_forward(x, packed(state), batch_first, 1) is not None
    y, final, tape = layer.forward(x, packed(state))
    other = layer.forward(x, packed(state), lengths=[4] * (3 if batched else 1))
    short = native.plain_backward(tape.native, dy, dstate, 1, True, None)
    assert short is not None
    dx, dstate0, grads = layer._engine._backward(native, other[2].native, dy, dstate, 1, True, None)
    names = list(layer.state_dict())
    wanted = fastrnn.Gradients(dx, dstate0, dict(zip(names, grads, strict=True)))
    for a, b in zip(
        results_of(y, final, layer.backward(tape, dy, dstate)),
        results_of(*other[:2], wanted),
        strict=True,
    ):
        assert type(a) is np.ndarray and a.flags.c_contiguous
        assert a.flags.writeable == b.flags.writeable == (a is not y and b is not other[0])
        if b is other[0] and isinstance(b.base, np.ndarray):
            assert not b.base.flags.writeable, "the tape reads what y is a view of"
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def test_the_short_way_back_is_only_for_what_can_be_read_as_it_lies():
    layer = fastrnn.LSTM(5, 7)
    x, h, c = (np.zeros(shape, np.float32) for shape in ((4, 3, 5), (1, 3, 7), (1, 3, 7)))
    y, _, tape = layer.forward(x)
    dy, native = np.zeros_like(y), layer._engine.packing.acquire().native

    def back(dy, dstate=None, kept=tape):
        return native.plain_backward(kept.native, dy, dstate, 1, True, None)

    assert [a.shape for a in back(dy, (h, c))[2]] == [w.shape for w in layer.state_dict().values()]
    for other in (None, dy.tolist(), dy.astype(float), dy[::2], dy[..., :4], dy[0], dy[None]):
        assert back(other) is None
    for state in (h, (h,), [h, c], (h, c, c), (h[:, :2], c), (h[0], c), (h, c.astype(float)), 5):
        assert back(dy, state) is None
    for empty in (x[:0], x[:, :0]):
        y, _, kept = layer.forward(empty)
        assert back(np.zeros_like(y), None, kept) is None
        assert layer.backward(kept, np.zeros_like(y)).input.shape == empty.shape
    with pytest.raises(ValueError, match="tape: recorded by another network"):
        back(dy, None, fastrnn.LSTM(5, 7).forward(x)[2])


@each_kind
def test_large_results_are_written_whole_either_way(kind):
    """large ones lie on memory of earlier results, here full of NaN"""
    net = net_of(kind, 64, 96, layers=2)
    p = problem(net, steps=50, batch=16)
    layer, sizes = net.build(), [array.size for array in (p.x, p.dy)]
    wanted = None
    for lengths in (None, [50] * 16):
        used = [_core.empty((size,), np.dtype(np.float32)) for size in sizes for _ in range(4)]
        for array in used:
            array.fill(np.nan)
        del array, used
        y, final, tape = layer.forward(p.x, packed(p.state), lengths=lengths)
        found = results_of(y, final, layer.backward(tape, p.dy, packed(p.dstate)))
        wanted = wanted or found
        assert [a.tobytes() for a in found] == [a.tobytes() for a in wanted]
        assert all(np.isfinite(a).all() for a in found)


def test_a_state_is_held_while_it_is_read():
    """else another thread might resize it, as its tuple is the only one to know of it"""
    layer = fastrnn.LSTM(8, 128, num_layers=2, num_threads=1)
    x, dy = np.ones((50, 16, 8), np.float32), np.ones((50, 16, 128), np.float32)
    state = np.zeros((2, 16, 128), np.float32), np.zeros((2, 16, 128), np.float32)
    _, _, tape = layer.forward(x)
    for work in (
        lambda: layer(x, state),
        lambda: layer.forward(x, state),
        lambda: layer.backward(tape, dy, state),
    ):
        alone, seen, done = sys.getrefcount(state[1]), False, threading.Event()

        def loop(work=work, done=done):
            while not done.is_set():
                work()

        thread = threading.Thread(target=loop)
        thread.start()
        for _ in range(100_000):
            seen = sys.getrefcount(state[1]) > alone
            if seen:
                break
        done.set()
        thread.join()
        assert seen, work


def test_how_a_tape_lies_is_not_the_callers_to_say():
    layer = fastrnn.LSTM(5, 7, batch_first=True)
    _, _, tape = layer.forward(np.zeros((3, 4, 5), np.float32))
    assert tape.native.batched and tape.native.batch_first
    _, _, tape = layer.forward(np.zeros((4, 5), np.float32))
    assert not tape.native.batched and not tape.native.batch_first
    with pytest.raises(AttributeError):
        tape.native.batched = True


@pytest.mark.parametrize("batch_first", [False, True])
def test_packing_is_told_the_steps_and_rows_of_the_call(batch_first):
    class Network:
        def pack(self, *told):
            self.told = told

    network = Network()
    for shape, wanted in (
        ((9, 4, 5), (4, 9) if batch_first else (9, 4)),
        ((9, 5), (9, 1)),
        (7, (1, 1)),
    ):
        _pack([], network, 2, np.zeros(shape), batch_first)
        assert network.told == ([], 2, *wanted)
    _pack([], network, 2, "no array", batch_first)
    assert network.told == ([], 2, 1, 1)
