"""How arrays come in: strides, protocols, copies and none."""

import tracemalloc

import numpy as np
import pytest

import fastrnn
from support import (
    KINDS,
    LAYOUTS,
    assert_same_bits,
    in_layout,
    net_of,
    packed,
    problem,
    random,
    results_of,
    run,
    unpacked,
)

pytestmark = pytest.mark.usefixtures("isa")
each_kind = pytest.mark.parametrize("kind", KINDS)


class WithDlpack:
    """the protocol and nothing else"""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class WithArray:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class Broken:
    def __dlpack__(self, **options):
        raise BufferError("on another device")

    def __dlpack_device__(self):
        return (2, 0)


@pytest.mark.parametrize("layout", LAYOUTS)
@each_kind
def test_layouts_of_sequences(kind, layout):
    net = net_of(kind, 5, 20, layers=2)
    p, layer = problem(net, steps=8, batch=5, lengths="ragged"), net.build()
    y, state, tape = layer.forward(in_layout(p.x, layout), packed(p.state), lengths=p.lengths)
    g = layer.backward(tape, in_layout(p.dy, layout), packed(p.dstate), step_norms=True)
    assert_same_bits(results_of(y, state, g), run(layer, p))


@pytest.mark.parametrize("layout", LAYOUTS)
@each_kind
def test_layouts_of_states(kind, layout):
    net = net_of(kind, 5, 20, layers=2)
    p, layer = problem(net, steps=8, batch=5), net.build()
    state = tuple(in_layout(s, layout) for s in p.state)
    dstate = tuple(in_layout(s, layout) for s in p.dstate)
    y, final, tape = layer.forward(p.x, packed(state))
    g = layer.backward(tape, p.dy, packed(dstate), step_norms=True)
    assert_same_bits(results_of(y, final, g), run(layer, p))


@each_kind
def test_rows_and_steps_may_be_broadcast(kind):
    net = net_of(kind, 5, 20)
    layer, row = net.build(), np.random.default_rng(1).standard_normal(5).astype(np.float32)
    x = np.broadcast_to(row, (6, 3, 5))
    y, _, tape = layer.forward(x)
    wanted, _, plain_tape = layer.forward(x.copy())
    assert y.tobytes() == wanted.tobytes()
    one = np.broadcast_to(np.float32(1), y.shape)
    g, plain = layer.backward(tape, one), layer.backward(plain_tape, one.copy())
    assert g.input.tobytes() == plain.input.tobytes()
    assert_same_bits(g.weights, plain.weights)


@pytest.mark.parametrize("shape", [(1, 1, 5), (4, 1, 5), (1, 3, 5), (4, 3, 1), (0, 3, 5)])
@pytest.mark.parametrize("stride", [-4, 0, 3, 1 << 40])
@each_kind
def test_strides_of_axes_of_one_do_not_matter(kind, stride, shape):
    """NumPy calls such arrays contiguous whatever these strides are, and makes them by x[::-1]"""
    layer = net_of(kind, shape[2], 20).build()
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    strides = [stride if n < 2 else s for n, s in zip(shape, x.strides, strict=True)]
    odd = np.lib.stride_tricks.as_strided(x, shape, strides)
    y, _, tape = layer.forward(odd)
    wanted, _, plain_tape = layer.forward(x)
    assert y.tobytes() == wanted.tobytes()
    ones = np.ones((1, *y.shape), np.float32)[:, ::-1, ::-1][0]
    g, plain = layer.backward(tape, ones), layer.backward(plain_tape, np.ones_like(y))
    assert_same_bits(g.weights | {"dx": g.input}, plain.weights | {"dx": plain.input})


@pytest.mark.parametrize("wrap", [WithDlpack, WithArray])
@each_kind
def test_protocols(kind, wrap):
    net = net_of(kind, 5, 7)
    p, layer = problem(net, steps=4, batch=3), net.build()
    y, state = layer(wrap(p.x), packed(tuple(wrap(s) for s in p.state)))
    wanted, wanted_state = layer(p.x, packed(p.state))
    assert y.tobytes() == wanted.tobytes()
    assert unpacked(state)[0].tobytes() == unpacked(wanted_state)[0].tobytes()


def test_protocols_do_not_hide_a_wrong_dtype():
    layer = fastrnn.GRU(5, 7)
    for wrap in (WithDlpack, WithArray):
        with pytest.raises(TypeError, match=r"x: expected.*float32.*got float64"):
            layer(wrap(np.zeros((4, 3, 5))))


def test_a_protocol_that_fails_is_reported():
    with pytest.raises(TypeError, match="x: .*Broken.*another device"):
        fastrnn.GRU(5, 7)(Broken())


def test_of_two_protocols_that_fail_the_first_is_reported():
    class Twice(Broken):
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("no array either")

    with pytest.raises(TypeError, match="x: .*Twice.*another device"):
        fastrnn.GRU(5, 7)(Twice())


def test_lists_of_what_cannot_be_read():
    class Unreadable:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("on another device")

    x, wrong = random(4, 2, 5), [Unreadable(), Unreadable()]
    with pytest.raises(TypeError, match="^lengths: cannot read this list .*: on another device"):
        fastrnn.GRU(5, 7)(x, lengths=wrong)
    with pytest.raises(TypeError, match="^mask: cannot read this tuple .*: on another device"):
        fastrnn.losses.mse(x, x, mask=tuple(wrong))


def test_what_cannot_even_say_whether_it_is_negated():
    class Lazy(Broken):
        def is_neg(self):
            raise ValueError("not there yet")

    with pytest.raises(TypeError, match="x: cannot read this Lazy as an array: not there yet"):
        fastrnn.GRU(5, 7)(Lazy())


def test_a_dtype_that_numpy_has_not_is_named():
    foreign = Broken()
    foreign.dtype = "bfloat16"
    with pytest.raises(TypeError, match="x: .*this Broken of bfloat16 as an array: on another"):
        fastrnn.GRU(5, 7)(foreign)


def test_read_only_inputs():
    net = net_of("lstm", 5, 7)
    p, layer = problem(net, steps=4, batch=3), net.build()
    wanted = run(layer, p)
    for a in (p.x, *p.state, p.dy, *p.dstate):
        a.flags.writeable = False
    assert_same_bits(run(layer, p), wanted)


def test_subclasses_come_out_as_plain_arrays():
    class Mine(np.ndarray):
        pass

    x = np.zeros((4, 3, 5), np.float32).view(Mine)
    assert type(fastrnn.GRU(5, 7)(x)[0]) is np.ndarray


@pytest.mark.parametrize("layout", ["contiguous", "swapped", "wide", "skipping"])
def test_big_inputs_are_not_copied(layout):
    """neither contiguous nor strided ones: Python allocates y and the state, nothing else"""
    layer = fastrnn.GRU(512, 4, seed=1)
    x = in_layout(np.zeros((64, 16, 512), np.float32), layout)  # 2 MB
    layer(x)
    tracemalloc.start()
    try:
        layer(x)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 16 * 4 * 4 + 10_000


def test_results_are_new_arrays():
    net = net_of("lstm", 5, 7)
    p, layer = problem(net, steps=0, batch=3), net.build()
    _, (h, c) = layer(p.x, p.state)
    for out, given in zip((h, c), p.state, strict=True):
        assert not np.shares_memory(out, given)


def stepping():
    """what takes rows [2, 5] of a GRU one step at a time, and the argument's name"""
    layer = fastrnn.GRU(5, 7, seed=1)
    stream, blocks, pool = layer.stream(2), layer.stream(2), fastrnn.StreamPool(layer, 2)
    ids = [pool.join(), pool.join()]
    return {
        "stream": ("x", stream.step),
        "block": ("block", lambda x, out=None: blocks.process(x, out)),
        "pool": ("x", lambda x, out=None: pool.step(ids, x, out)),
        "block of a pool": ("x", lambda x, out=None: pool.process(ids, x, out)),
    }


def rows_for(way):
    x = np.random.default_rng(2).standard_normal((2, 5)).astype(np.float32)
    return x[None] if "block" in way else x


each_way = pytest.mark.parametrize("way", ["stream", "block", "pool", "block of a pool"])


@pytest.mark.parametrize("wrap", [WithDlpack, WithArray])
@each_way
def test_protocols_of_steps(way, wrap):
    x = rows_for(way)
    assert stepping()[way][1](wrap(x)).tobytes() == stepping()[way][1](x).tobytes()


@each_way
def test_steps_refuse_what_layers_refuse(way):
    name, step = stepping()[way]
    x = rows_for(way)
    wrong = np.ma.array(x, mask=True), Broken(), x.tolist(), x.astype(np.float64), x.astype(">f4")
    for bad in wrong:
        with pytest.raises(TypeError, match=f"^{name}: "):
            step(bad)
    assert step(x).tobytes() == stepping()[way][1](x).tobytes()  # nothing has advanced


@each_way
def test_masked_results_are_refused(way):
    _, step = stepping()[way]
    x = rows_for(way)
    out = np.ma.zeros((*x.shape[:-1], 7), np.float32)
    with pytest.raises(TypeError, match="^out: expected a plain array, got a masked one"):
        step(x, out=out)
    assert not out.any()


def test_masked_states_are_refused():
    stream = fastrnn.GRU(5, 7).stream()
    with pytest.raises(TypeError, match="^state: expected a plain array, got a masked one"):
        stream.state = np.ma.ones((1, 1, 7), np.float32)
    assert not stream.state.any()


@each_way
def test_subclasses_are_read_and_written(way, tmp_path):
    _, step = stepping()[way]
    x = rows_for(way)
    y = np.memmap(tmp_path / "y", np.float32, "w+", shape=(*x.shape[:-1], 7))
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=x.shape)
    mapped[:] = x
    assert step(mapped, out=y) is y
    assert y.tobytes() == stepping()[way][1](x).tobytes()


def test_a_negated_view_of_torch():
    """z.conj().imag is the memory of z and a mark, of which DLPack tells nothing"""
    torch = pytest.importorskip("torch")
    z = torch.complex(torch.zeros(4, 2, 5), torch.from_numpy(random(4, 2, 5)))
    x = torch.conj(z).imag
    assert x.is_neg()
    layer = net_of("lstm", 5, 7).build()
    assert layer(x)[0].tobytes() == layer(-z.imag.numpy())[0].tobytes()
