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
    sums = {_core.sum_of_squares(values, threads) for threads in (1, 2, 3, 7)}
    assert len(sums) == 1
    wanted = math.fsum(np.square(values, dtype=np.float64))
    np.testing.assert_allclose(sums.pop(), wanted, rtol=1e-13)


def test_the_norm_has_the_same_bits_everywhere():
    values, sums = random(100_001), set()
    before = _core.isa()
    for name in _core.isas():
        _core.set_isa(name)
        sums.add(_core.sum_of_squares(values, 2))
    _core.set_isa(before)
    assert len(sums) == 1


def test_the_core_refuses_what_does_not_fit():
    w, g = random(8), random(8)
    for name, arguments in {
        "grad": (w, g[:7], None),
        "velocity": (w, g, random(9)),
        "weight": (random(4, 2), g, None),
    }.items():
        with pytest.raises(ValueError, match=f"^{name}: expected "):
            _core.sgd(*arguments, 0.1, 0.0, 0.0, 0.0, False, True, 1)
    with pytest.raises(TypeError, match="^grad: expected dtype float32, got float64"):
        _core.adam(w, g.astype(np.float64), w, w, *[0.5] * 7, 1)
    with pytest.raises(TypeError, match="^grad: expected an array, got None"):
        _core.sgd(w, None, None, 0.1, 0.0, 0.0, 0.0, False, True, 1)
    w.flags.writeable = False
    with pytest.raises(ValueError, match="^weight: expected a writable array"):
        _core.sgd(w, g, None, 0.1, 0.0, 0.0, 0.0, False, True, 1)
