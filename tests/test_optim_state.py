"""Options of optimizers between steps, their copies and checkpoints."""

import copy
import math
import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn import optim
from support import DTYPES, Net, random_gradients

NET = Net("lstm", 3, 5, layers=2)

OPTIONS = {
    "SGD": dict(lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.01),
    "Adam": dict(lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.01),
    "AdamW": dict(lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.01),
}


def bits(layer):
    return b"".join(w.tobytes() for w in layer.parameters().values())


@pytest.mark.parametrize("rule", OPTIONS)
def test_assigned_numbers_of_numpy_keep_the_bits(rule):
    """an np.float64 would have float32 weights updated in float64"""
    plain, assigned = NET.build(), NET.build()
    opt, twin = (getattr(optim, rule)(layer, **OPTIONS[rule]) for layer in (plain, assigned))
    for gradients in random_gradients(plain, 3):
        for name, value in OPTIONS[rule].items():
            number = tuple(map(np.float64, value)) if name == "betas" else np.float64(value)
            setattr(twin, name, number)
        opt.step(gradients)
        twin.step(gradients)
    assert bits(plain) == bits(assigned)
    assert type(twin.lr) is float and type(twin.weight_decay) is float


WRONG = [("lr", "x", TypeError), ("lr", math.nan, ValueError), ("weight_decay", "0.1", TypeError)]
WRONG_OF_ADAM = [
    ("eps", None, TypeError),
    ("eps", -1.0, ValueError),
    ("betas", (0.9, 1.5), ValueError),
    ("betas", 0.9, TypeError),
]
WRONG_OF = {
    "SGD": [
        ("momentum", None, TypeError),
        ("dampening", math.inf, ValueError),
        ("nesterov", 1, TypeError),
        ("nesterov", True, ValueError),
    ],
    "Adam": WRONG_OF_ADAM,
    "AdamW": WRONG_OF_ADAM,
}


@pytest.mark.parametrize(
    ("rule", "name", "value", "error"),
    [(rule, *wrong) for rule in OPTIONS for wrong in WRONG + WRONG_OF[rule]],
)
def test_a_step_with_a_wrong_option_changes_nothing(rule, name, value, error):
    layer, twin = fastrnn.Linear(2, 3, seed=1), fastrnn.Linear(2, 3, seed=1)
    opt, other = (getattr(optim, rule)(m, **OPTIONS[rule]) for m in (layer, twin))
    first, second = random_gradients(layer, 2)
    y, tape = layer.forward(np.ones((1, 2), np.float32))
    good = getattr(opt, name)
    setattr(opt, name, value)
    with pytest.raises(error, match=f"^{name}.*: expected"):
        opt.step(first)
    layer.backward(tape, y)  # the tape is still good
    setattr(opt, name, good)
    for gradients in (first, second):
        opt.step(gradients)
        other.step(gradients)
    assert bits(layer) == bits(twin)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_training_resumes_from_a_copy(clone):
    opt = optim.Adam(NET.build(), lr=0.1)
    gradients = list(random_gradients(opt.modules[0], 6))
    for g in gradients[:3]:
        opt.step(g)
    twin = clone(opt)
    for g in gradients[3:]:
        opt.step(g)
        twin.step(g)
    here, there = opt.modules[0].state_dict(), twin.modules[0].state_dict()
    assert all(here[name].tobytes() == there[name].tobytes() for name in here)


@pytest.mark.parametrize("rule", OPTIONS)
def test_training_resumes_over_read_only_buffers(rule):
    opt, buffers = getattr(optim, rule)(NET.build(), **OPTIONS[rule]), []
    first, second = random_gradients(opt.modules[0], 2)
    opt.step(first)
    data = pickle.dumps(opt, 5, buffer_callback=buffers.append)
    twin = pickle.loads(data, buffers=[bytes(b.raw()) for b in buffers])
    for each in (opt, twin):
        each.step(second)
    assert bits(opt.modules[0]) == bits(twin.modules[0])


def test_modules_cannot_be_changed():
    """a module more than there are gradients and memories for would be found half-way"""
    layer = fastrnn.Linear(2, 3)
    opt = optim.Adam([layer])
    assert opt.modules == (layer,)
    with pytest.raises(AttributeError):
        opt.modules = [layer, layer]


@pytest.mark.parametrize("rule", ["Adam", "AdamW"])
def test_a_step_where_numpy_raises(rule):
    """squares of small gradients underflow; an error there would leave half a step"""
    layer, twin = fastrnn.Linear(2, 3, seed=1), fastrnn.Linear(2, 3, seed=1)
    opt, other = (getattr(optim, rule)(m, 0.1) for m in (layer, twin))
    small = {name: np.full_like(w, 1e-30) for name, w in layer.parameters().items()}
    for _ in range(2):
        with np.errstate(all="raise"):
            opt.step(small)
        other.step(small)
    assert bits(layer) == bits(twin)


def test_masked_gradients_are_refused():
    layer = fastrnn.Linear(2, 3, seed=1)
    before, opt = bits(layer), optim.Adam(layer)
    (grads,) = random_gradients(layer, 1)
    masked = grads | {"bias": np.ma.array(grads["bias"], mask=[True, False, False])}
    for use in (opt.step, lambda g: optim.clip_grad_norm_(g, 1e-3)):
        with pytest.raises(TypeError, match="^grads: bias: expected a plain array, got a masked"):
            use(masked)
    assert bits(layer) == before and opt.state_dict()["steps"] == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("rule", OPTIONS)
def test_training_resumes_from_a_state_dict(rule, steps, dtype):
    def build():
        return [Net("gru", 3, 5, dtype=dtype).build(), fastrnn.Linear(5, 2, seed=1, dtype=dtype)]

    modules, twins = build(), build()
    opt = getattr(optim, rule)(modules, **OPTIONS[rule])
    gradients = list(zip(*(random_gradients(m, steps + 3) for m in modules), strict=True))
    for g in gradients[:steps]:
        opt.step(g)
    for module, twin in zip(modules, twins, strict=True):
        twin.load_state_dict(module.state_dict())
    kept = pickle.loads(pickle.dumps(opt.state_dict()))
    again = getattr(optim, rule)(twins)
    again.load_state_dict(kept)
    assert repr(again) == repr(opt)
    for g in gradients[steps:]:
        opt.step(g)
        again.step(g)
    assert [bits(m) for m in modules] == [bits(m) for m in twins]
    assert kept["steps"] == steps, "a copy"
    parts = {name.rpartition(".")[2] for one in kept["memory"] for name in one}
    wanted = {"velocity"} if rule == "SGD" else {"mean", "square"}
    assert parts == (wanted if steps else set())


@pytest.mark.parametrize("rule", OPTIONS)
def test_no_count_of_steps_is_too_large_to_resume_from(rule):
    layer = fastrnn.Linear(2, 3, seed=1)
    opt = getattr(optim, rule)(layer, **OPTIONS[rule])
    first, second = random_gradients(layer, 2)
    opt.step(first)
    opt.load_state_dict(opt.state_dict() | {"steps": 2**53})
    opt.step(second)
    opt.load_state_dict(opt.state_dict())
    assert opt.state_dict()["steps"] == 2**53


def test_a_state_dict_shares_nothing():
    """with the optimizer that it is of, nor with those that load it"""
    layer = fastrnn.Linear(2, 3, seed=1)
    first, second = optim.Adam(layer), optim.Adam(layer)
    one, two = random_gradients(layer, 2)
    first.step(one)
    kept = first.state_dict()
    before = {name: array.copy() for name, array in kept["memory"][0].items()}
    second.load_state_dict(kept)
    for opt in (first, second):
        opt.step(two)
        for name, array in kept["memory"][0].items():
            assert array.tobytes() == before[name].tobytes()


def test_without_momentum_nothing_is_kept():
    """momentum that begins later begins with that step's gradient, whatever the dampening"""
    layer = fastrnn.Linear(1, 1, bias=False, seed=1, dtype=np.float64)
    opt = optim.SGD(layer, 1.0, dampening=0.5)
    for g in (2.0, 3.0):
        before = layer.parameters()["weight"].item()
        opt.step({"weight": np.array([[g]])})
        assert opt.state_dict()["memory"] == ([{}] if g == 2.0 else [{"weight.velocity": [[3.0]]}])
        assert layer.parameters()["weight"].item() == before - g
        opt.momentum = 0.9


def test_momentum_may_begin_after_a_checkpoint():
    layer, twin = fastrnn.Linear(2, 3, seed=1), fastrnn.Linear(2, 3, seed=1)
    opt, again = optim.SGD(layer), optim.SGD(twin)
    for g in random_gradients(layer, 2):
        opt.step(g)
        twin.load_state_dict(layer.state_dict())
        opt.momentum = 0.9
        again.load_state_dict(opt.state_dict())
    opt.step(g)
    again.step(g)
    assert bits(layer) == bits(twin)


@pytest.mark.parametrize("rule", OPTIONS)
def test_a_wrong_state_dict_loads_nothing(rule):
    layer = fastrnn.Linear(2, 3, seed=1)
    opt = getattr(optim, rule)(layer, **OPTIONS[rule])
    for g in random_gradients(layer, 2):
        opt.step(g)
    good = opt.state_dict()
    part = "velocity" if rule == "SGD" else "square"
    memory = good["memory"][0]

    def replaced(**arrays):
        return good | {"memory": [memory | {f"{k}.{part}": v for k, v in arrays.items()}]}

    rest = {name: array for name, array in memory.items() if name != f"bias.{part}"}
    for bad, error, message in (
        (None, TypeError, "state_dict: expected a dict, got NoneType"),
        ({}, ValueError, "state_dict: expected the names of .*, differing in .*lr"),
        (good | {"rho": 1}, ValueError, "state_dict: expected .*, differing in rho"),
        (good | {"lr": -1.0}, ValueError, "lr: expected a finite number >= 0, got -1.0"),
        (good | {"steps": 1.5}, TypeError, "steps: expected an integer, got 1.5"),
        (good | {"steps": -1}, ValueError, "steps: expected an integer >= 0, got -1"),
        (good | {"steps": 10**400}, ValueError, "steps: expected an integer <= 9007199254740992"),
        (good | {"lr": 10**400}, ValueError, "lr: expected a finite number >= 0, got an integer"),
        (good | {"memory": memory}, ValueError, "memory: expected 1 dicts, one a module, got dict"),
        (good | {"memory": []}, ValueError, "memory: expected 1 dicts, one a module, got 0"),
        (good | {"memory": [None]}, TypeError, r"memory\[0\]: expected a dict of arrays by name"),
        (good | {"memory": [rest]}, ValueError, rf"memory\[0\]: missing bias.{part}"),
        (replaced(w=1), ValueError, rf"memory\[0\]: unexpected w.{part}"),
        (replaced(bias=np.ones(2, np.float32)), ValueError, rf"memory\[0\]: bias.{part}: .*shape"),
        (replaced(bias=np.ones(3)), ValueError, rf"memory\[0\]: bias.{part}: expected dtype"),
    ):
        with pytest.raises(error, match=f"^{message}"):
            opt.load_state_dict(bad)
    if rule != "SGD":
        with pytest.raises(ValueError, match=r"^memory\[0\]: missing weight.mean"):
            opt.load_state_dict(good | {"memory": [{}]})
    now = opt.state_dict()
    assert now.pop("memory")[0].keys() == memory.keys()
    assert now == {name: value for name, value in good.items() if name != "memory"}
    for name, array in opt.state_dict()["memory"][0].items():
        assert array.tobytes() == memory[name].tobytes()


def test_repr():
    layer = fastrnn.Linear(2, 3)
    assert repr(optim.Adam(layer)) == (
        "Adam(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)"
    )
    assert repr(optim.SGD(layer, 0.1, momentum=0.9)) == (
        "SGD(lr=0.1, momentum=0.9, dampening=0.0, weight_decay=0.0, nesterov=False)"
    )


def test_a_copy_has_a_memory_of_its_own():
    """moments that two share would be those of neither"""

    def walk(opt, steps):
        for _ in range(steps):
            opt.step({"weight": np.ones((1, 2), np.float32), "bias": np.ones(1, np.float32)})
        return opt.state_dict()

    layer = fastrnn.Linear(2, 1, seed=0)
    opt = optim.Adam(layer)
    before = walk(opt, 2)
    twin = copy.copy(opt)
    walk(opt, 3)
    after = twin.state_dict()
    assert twin.modules == (layer,) and after["steps"] == before["steps"] == 2
    for name, array in before["memory"][0].items():
        assert after["memory"][0][name].tobytes() == array.tobytes()
