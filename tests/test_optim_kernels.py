"""The native steps of optimizers: the bits of the same operations in NumPy, whatever the ISA."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn import _core, optim
from support import DTYPES, random

# A vector and one more, chunks of 1,024 elements, parts of 32,768 for each thread.
SIZES = [1, 2, 15, 16, 17, 1023, 1024, 1025, 5000, 65536, 98309]
RATES = [0.0, 1e-3, 0.5]


def sgd(w, g, memory, lr, momentum, dampening, weight_decay, nesterov):
    if weight_decay:
        g = g + weight_decay * w
    if momentum:
        if memory:
            memory[0] *= momentum
            memory[0] += (1.0 - dampening) * g
        else:
            memory.append(g.copy())
        g = g + momentum * memory[0] if nesterov else memory[0]
    w -= lr * g


def adam(w, g, memory, step, lr, betas, eps, weight_decay, decoupled):
    if decoupled:
        w *= 1.0 - lr * weight_decay
    elif weight_decay:
        g = g + weight_decay * w
    if not memory:
        memory += [np.zeros_like(w), np.zeros_like(w)]
    (mean, square), (first, second) = memory, betas
    mean *= first
    mean += g * (1.0 - first)
    square *= second
    square += g * g * (1.0 - second)
    root = np.sqrt(square) / math.sqrt(1.0 - second**step) + eps
    w -= mean / root * (lr / (1.0 - first**step))


def drawn(data):
    """a weight, three gradients with zeros, tiny, huge and special values among them"""
    size, dtype = data.draw(st.sampled_from(SIZES)), data.draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(size)
    w, *grads = (random(size, dtype=dtype, seed=k) for k in range(4))
    special = [0.0, -0.0, 1e-42, 1e-30, 3e38, np.inf, -np.inf, np.nan]
    for array in (w, *grads):
        at = rng.integers(0, size, min(size, 20))
        array[at] = rng.choice(special, len(at)).astype(dtype)
    return w, grads


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    fastrnn.set_num_threads(request.param)
    yield
    fastrnn.set_num_threads(None)


@settings(max_examples=40)
@given(data=st.data())
def test_sgd(data, isa, threads):
    w, grads = drawn(data)
    momentum = data.draw(st.sampled_from([0.0, 0.9]))
    options = {
        "lr": data.draw(st.sampled_from(RATES)),
        "momentum": momentum,
        "weight_decay": data.draw(st.sampled_from([0.0, 0.1])),
        "nesterov": bool(momentum) and data.draw(st.booleans()),
    }
    options["dampening"] = 0.0 if options["nesterov"] else data.draw(st.sampled_from([0.0, 0.3]))
    own, wanted, memory = {"w": w.copy()}, w.copy(), []
    opt = optim.SGD(own, **options)
    with np.errstate(all="ignore"):
        for g in grads:
            opt.step({"w": g})
            sgd(wanted, g, memory, **options)
    np.testing.assert_array_equal(own["w"], wanted)
    assert own["w"].tobytes() == wanted.tobytes() or np.isnan(wanted).any()
    for part, same in zip(opt.state_dict()["memory"][0].values(), memory, strict=True):
        np.testing.assert_array_equal(part, same)


@settings(max_examples=40)
@given(data=st.data())
def test_adam(data, isa, threads):
    w, grads = drawn(data)
    decoupled = data.draw(st.booleans())
    options = {
        "lr": data.draw(st.sampled_from(RATES)),
        "betas": data.draw(st.sampled_from([(0.9, 0.999), (0.0, 0.5), (0.5, 0.0)])),
        "eps": data.draw(st.sampled_from([0.0, 1e-8])),
        "weight_decay": data.draw(st.sampled_from([0.0, 0.1])),
    }
    own, wanted, memory = {"w": w.copy()}, w.copy(), []
    opt = (optim.AdamW if decoupled else optim.Adam)(own, **options)
    with np.errstate(all="ignore"):
        for step, g in enumerate(grads, 1):
            opt.step({"w": g})
            adam(wanted, g, memory, step, decoupled=decoupled, **options)
    np.testing.assert_array_equal(own["w"], wanted)
    assert own["w"].tobytes() == wanted.tobytes() or np.isnan(wanted).any()
    for part, same in zip(opt.state_dict()["memory"][0].values(), memory, strict=True):
        np.testing.assert_array_equal(part, same)


def test_denormals_are_numbers(isa, threads):
    """the root of a tiny mean square divides: were it zero, the weight would become infinite"""
    own = {"w": np.zeros(5, np.float32)}
    opt = optim.Adam(own, lr=1.0, eps=0.0)
    opt.step({"w": np.full(5, 1e-20, np.float32)})
    np.testing.assert_allclose(own["w"], -1.0, rtol=1e-2)


@pytest.mark.parametrize("rule", [optim.SGD, optim.Adam, optim.AdamW])
def test_arrays_of_any_layout(rule):
    base = random(6, 10, 4)
    layouts = {
        "dense": lambda a: a.copy(),
        "fortran": lambda a: np.asfortranarray(a),
        "gaps": lambda a: np.repeat(a, 2, 1)[:, ::2],
        "backwards": lambda a: a[::-1].copy()[::-1],
        "misplaced": lambda a: (
            np.frombuffer(bytearray(b"0" + a.tobytes()), np.uint8)[1:]
            .view(np.float32)
            .reshape(a.shape)
        ),
    }
    found = []
    for layout in layouts.values():
        own = {"w": layout(base), "number": np.array(2.0, np.float32)}
        at = own["w"].__array_interface__["data"]
        options = {"momentum": 0.9} if rule is optim.SGD else {}
        opt = rule(own, lr=0.1, **options)
        for seed in (2, 3):
            g = layout(random(6, 10, 4, seed=seed))
            opt.step({"w": g, "number": np.array(0.5, np.float32)})
        assert own["w"].__array_interface__["data"] == at, "changed where it lies"
        memory = opt.state_dict()["memory"][0]
        assert {part.shape for name, part in memory.items() if name[0] == "w"} == {(6, 10, 4)}
        found.append([own["w"], own["number"], *memory.values()])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [*SIZES, 0, 32768, 1 << 20])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm(size, dtype, isa):
    values = random(size, dtype=dtype)
    sums = {_core.sum_of_squares([values], threads) for threads in (1, 2, 3, 7)}
    assert len(sums) == 1
    wanted = math.fsum(np.square(values, dtype=np.float64))
    np.testing.assert_allclose(sums.pop(), wanted, rtol=1e-13)


def test_the_norm_has_the_same_bits_everywhere():
    values, sums = random(100_001), set()
    before = _core.isa()
    for name in _core.isas():
        _core.set_isa(name)
        sums.add(_core.sum_of_squares([values], 2))
    _core.set_isa(before)
    assert len(sums) == 1


def test_the_norm_of_several_arrays_is_the_sum_of_theirs(isa):
    arrays = [random(n, dtype=t) for n, t in zip((40_000, 0, 7, 98_309), DTYPES * 2, strict=True)]
    one_by_one = [_core.sum_of_squares([a], 1) for a in arrays]
    assert len(set(one_by_one)) == 4 and _core.sum_of_squares([], 2) == 0.0
    wanted = 0.0
    for each in one_by_one:  # (Python's sum() is another one since 3.12)
        wanted += each
    assert {_core.sum_of_squares(arrays, threads) for threads in (1, 2, 3, 7)} == {wanted}


@pytest.mark.parametrize("rule", [optim.SGD, optim.Adam])
def test_arrays_of_both_types_share_the_threads(rule, isa):
    """each as if it were alone, whatever part of which array a thread has"""
    sizes = {"a": 70_001, "b": 0, "c": 1, "d": 33_000, "e": 98_309}
    types = dict(
        zip(sizes, [np.float32, np.float32, np.float64, np.float64, np.float32], strict=True)
    )
    own = {name: random(n, dtype=types[name]) for name, n in sizes.items()}
    grads = {name: random(n, dtype=types[name], seed=1) for name, n in sizes.items()}
    alone = {name: w.copy() for name, w in own.items()}
    options = {"momentum": 0.9} if rule is optim.SGD else {}
    together, single = (rule(arrays, lr=0.1, **options) for arrays in (own, alone))
    for threads, opt in ((3, together), (1, single)):
        fastrnn.set_num_threads(threads)
        for _ in range(2):
            opt.step(grads)
    fastrnn.set_num_threads(None)
    for name, w in own.items():
        assert w.tobytes() == alone[name].tobytes(), name


@settings(max_examples=40)
@given(data=st.data())
def test_arrays_are_scaled(data, isa, threads):
    first, arrays = drawn(data)
    factor = data.draw(st.sampled_from([0.0, 1e-3, 0.3, math.nan]))
    arrays = [first, *arrays, np.array(2.0), random(3, 4, dtype=np.float64), np.empty((0, 2))]
    with np.errstate(all="ignore"):
        wanted = [np.multiply(a, factor, dtype=a.dtype) for a in arrays]
    assert _core.scale(arrays, factor, 0) is True
    for array, same in zip(arrays, wanted, strict=True):
        np.testing.assert_array_equal(array, same)
        assert array.tobytes() == same.tobytes() or np.isnan(same).any()


@pytest.mark.parametrize("how", ["twice", "a part", "gaps", "misplaced"])
def test_what_is_not_scaled_is_left_as_it_is(how):
    whole = random(64)
    others = {
        "twice": [whole[:32], whole[:32]],
        "a part": [whole[:33], whole[32:]],
        "gaps": [whole[::2]],
        "misplaced": [np.frombuffer(bytearray(9), np.uint8)[1:].view(np.float32)],
    }[how]
    before = whole.copy()
    assert _core.scale([random(8), *others], 0.5, 1) is False and (whole == before).all()
    assert _core.scale([whole[:32], whole[32:]], 0.5, 1) is True and (whole == before / 2).all()


def test_the_core_refuses_what_does_not_fit():
    w, g = random(8), random(8)

    def sgd(*change, momentum=0.9):
        _core.sgd([(w.copy(), g, [g.copy()], True), change], 0.1, momentum, 0.0, 0.0, False, 1)

    for name, arrays in {"grad": (w, g[:7], [w]), "velocity": (w, g, [random(9)])}.items():
        with pytest.raises(ValueError, match=f"^{name}: expected shape of 8 values, got"):
            sgd(*arrays, True)
    with pytest.raises(ValueError, match="^weight: expected a C-contiguous aligned array"):
        sgd(random(16)[::2], g, [w], True)
    with pytest.raises(TypeError, match="^weight: expected an array, got list"):
        sgd([1.0], g, [w], True)
    with pytest.raises(TypeError, match="^grad: expected dtype float32, got float64"):
        _core.adam([(w, g.astype(np.float64), [w, w], True)], *[0.5] * 7, 1)
    with pytest.raises(TypeError, match="^grad: expected an array, got None"):
        sgd(w, None, [w], True)
    with pytest.raises(TypeError, match="^change: expected a tuple"):
        sgd_of_a_list = [[w, g, [w], True]]
        _core.sgd(sgd_of_a_list, 0.1, 0.9, 0.0, 0.0, False, 1)
    w.flags.writeable = False
    with pytest.raises(ValueError, match="^weight: expected a writable array"):
        sgd(w, g, [], True, momentum=0.0)
