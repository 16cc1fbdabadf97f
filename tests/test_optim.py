"""Optimizers step for step against torch; gradient clipping; that training learns."""

import copy
import math
import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn import losses, optim
from support import DTYPES, Net, problem

NET = Net("lstm", 3, 5, layers=2)

RULES = [
    ("SGD", dict(lr=0.1)),
    ("SGD", dict(lr=0.1, weight_decay=0.01)),
    ("SGD", dict(lr=0.1, momentum=0.9)),
    ("SGD", dict(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True)),
    ("SGD", dict(lr=0.1, momentum=0.9, dampening=0.3)),
    ("Adam", dict(lr=0.01)),
    ("Adam", dict(lr=0.01, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1)),
    ("AdamW", dict(lr=0.01)),
    ("AdamW", dict(lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.3)),
]


def random_gradients(layer, steps):
    rng = np.random.default_rng(1)
    for _ in range(steps):
        yield {
            name: rng.standard_normal(w.shape).astype(w.dtype)
            for name, w in layer.parameters().items()
        }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rule", "options"), RULES)
def test_matches_torch(rule, options, dtype):
    torch = pytest.importorskip("torch")
    layer = Net("gru", 3, 5, dtype=dtype).build()
    twins = [torch.nn.Parameter(torch.from_numpy(w)) for w in layer.state_dict().values()]
    ours, theirs = (
        getattr(optim, rule)(layer, **options),
        getattr(torch.optim, rule)(twins, **options),
    )
    for gradients in random_gradients(layer, 20):
        for twin, gradient in zip(twins, gradients.values(), strict=True):
            twin.grad = torch.from_numpy(gradient)
        ours.step(gradients)
        theirs.step()
    tolerance = dict(rtol=2e-5, atol=2e-6) if dtype == "float32" else dict(rtol=1e-12, atol=1e-13)
    for w, twin in zip(layer.parameters().values(), twins, strict=True):
        np.testing.assert_allclose(w, twin.detach().numpy(), **tolerance)


def test_one_step_of_each_by_hand():
    """w = 1, g = 2, lr = 1/4"""
    for rule, wanted in (("SGD", 0.5), ("Adam", 0.75), ("AdamW", (1 - 0.25 * 0.01) - 0.25)):
        layer = fastrnn.Linear(1, 1, bias=False, dtype=np.float64)
        with layer.edit() as weights:
            weights["weight"][...] = 1
        getattr(optim, rule)(layer, lr=0.25).step({"weight": np.array([[2.0]])})
        assert layer.parameters()["weight"].item() == pytest.approx(wanted, rel=1e-7)


@pytest.mark.parametrize("rule", ["SGD", "Adam", "AdamW"])
def test_several_modules_and_forms_of_gradients(rule, isa):
    p = problem(NET, steps=4, batch=3)

    def build():
        return NET.build(), fastrnn.Linear(5, 2, seed=2)

    def gradients(lstm, head):
        y, _, tape = lstm.forward(p.x)
        z, head_tape = head.forward(y)
        g_head = head.backward(head_tape, z)
        return lstm.backward(tape, g_head.input), g_head

    results = []
    for form in (lambda g: list(g), lambda g: [one.weights for one in g], lambda g: tuple(g)):
        modules = build()
        opt = getattr(optim, rule)(list(modules), lr=0.1)
        for _ in range(3):
            opt.step(form(gradients(*modules)))
        results.append(b"".join(w.tobytes() for m in modules for w in m.parameters().values()))
    assert len(set(results)) == 1
    single = NET.build()
    opt = getattr(optim, rule)(single, lr=0.1)
    before = single.state_dict()
    opt.step(gradients(single, build()[1])[0])
    assert all((w != before[name]).any() for name, w in single.parameters().items())


def test_learning_rate_may_change():
    layer = fastrnn.Linear(1, 1, bias=False)
    opt = optim.SGD(layer, lr=1.0)
    start = layer.parameters()["weight"].item()
    opt.lr = 0.0
    opt.step({"weight": np.ones((1, 1), np.float32)})
    assert layer.parameters()["weight"].item() == start


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


def test_bad_gradients_change_nothing():
    layer = fastrnn.Linear(2, 3, seed=1)
    opt, before = optim.Adam(layer), layer.state_dict()
    good = {"weight": np.ones((3, 2), np.float32), "bias": np.ones(3, np.float32)}
    with pytest.raises(ValueError, match="^grads: .*bias"):
        opt.step({"weight": good["weight"]})
    with pytest.raises(ValueError, match=r"^grads: .*\[3\].*bias.*\[4\]"):
        opt.step(good | {"bias": np.ones(4, np.float32)})
    with pytest.raises(TypeError, match="^grads: .*float32.*float64"):
        opt.step(good | {"bias": np.ones(3)})
    with pytest.raises(ValueError, match="^grads: expected 1.*got 2"):
        opt.step([good, good])
    assert all(w.tobytes() == before[name].tobytes() for name, w in layer.parameters().items())


@pytest.mark.parametrize("rule", ["SGD", "Adam", "AdamW"])
def test_bad_hyper_parameters(rule):
    layer = fastrnn.Linear(2, 3)
    for bad in (math.nan, math.inf, -1.0):
        for name in ("lr", "weight_decay"):
            with pytest.raises(ValueError, match=f"^{name}: expected.*got {bad}"):
                getattr(optim, rule)(layer, **({"lr": 0.1} | {name: bad}))
    with pytest.raises(TypeError, match="^modules: expected"):
        getattr(optim, rule)([3], lr=0.1)
    if rule == "SGD":
        with pytest.raises(ValueError, match="^nesterov: "):
            optim.SGD(layer, 0.1, nesterov=True)
    else:
        with pytest.raises(ValueError, match=r"^betas\[1\]: expected.*got 1.0"):
            getattr(optim, rule)(layer, betas=(0.9, 1.0))
        for bad in (0.9, (0.9,), (0.9, 0.99, 0.999), None):
            with pytest.raises(TypeError, match="^betas: expected a pair"):
                getattr(optim, rule)(layer, betas=bad)
        assert getattr(optim, rule)(layer, betas=np.array([0.5, 0.75])).betas == (0.5, 0.75)


@pytest.mark.parametrize("max_norm", [0.5, 5.0, 1e6, math.inf])
def test_clipping_matches_torch(max_norm):
    torch = pytest.importorskip("torch")
    grads = list(random_gradients(NET.build(), 2))
    twins = [torch.nn.Parameter(torch.from_numpy(a.copy())) for g in grads for a in g.values()]
    for twin in twins:
        twin.grad = twin.detach().clone()
    norm = optim.clip_grad_norm_(grads, max_norm)
    wanted = torch.nn.utils.clip_grad_norm_(twins, max_norm)
    assert norm == pytest.approx(wanted.item(), rel=1e-6)
    for a, twin in zip((a for g in grads for a in g.values()), twins, strict=True):
        np.testing.assert_allclose(a, twin.grad.numpy(), rtol=1e-5)


def test_clipping():
    g = {"a": np.full((2, 2), 3.0, np.float32), "b": np.full(5, 4.0, np.float32)}
    assert optim.clip_grad_norm_(g, 1.0) == pytest.approx(math.sqrt(4 * 9 + 5 * 16))
    assert optim.clip_grad_norm_([g], 100.0) == pytest.approx(1.0, rel=1e-6)
    assert optim.clip_grad_norm_([], 1.0) == 0.0
    big = {"a": np.full(100, 1e30, np.float32)}  # the squares do not fit into float32
    assert optim.clip_grad_norm_(big, 1.0) == pytest.approx(1e31)
    assert np.isfinite(big["a"]).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_clipping_of_what_is_not_finite(bad):
    g = {"a": np.array([1.0, bad]), "b": np.ones(2)}
    with pytest.raises(ValueError, match="finite"):
        optim.clip_grad_norm_(g, 1.0, error_if_nonfinite=True)
    assert (g["b"] == 1).all(), "nothing changed"
    assert not math.isfinite(optim.clip_grad_norm_(g, math.inf))
    assert (g["b"] == 1).all(), "watched, not changed"
    assert not math.isfinite(optim.clip_grad_norm_(g, 1.0))
    assert not (g["b"] == 1).any(), "a broken step shows, as in torch"
    with pytest.raises(ValueError, match="^max_norm: expected.*got -1"):
        optim.clip_grad_norm_({"a": np.ones(2)}, -1.0)


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
    assert twin.modules == [layer] and after["steps"] == before["steps"] == 2
    for name, array in before["memory"][0].items():
        assert after["memory"][0][name].tobytes() == array.tobytes()


def test_clipping_of_what_cannot_be_scaled():
    good = {"a": np.ones(2)}
    frozen = np.ones(2)
    frozen.flags.writeable = False
    with pytest.raises(
        ValueError, match=r"^grads: expected a writable array for b, got a read-only"
    ):
        optim.clip_grad_norm_([good, {"b": frozen}], 1.0)
    for bad, got in ((np.ones(2, int), "int64"), (3.0, "float"), (np.float32(3), "float32")):
        with pytest.raises(TypeError, match=f"^grads: expected.* array for b, got {got}"):
            optim.clip_grad_norm_([good, {"b": bad}], 1.0)
    assert (good["a"] == 1).all(), "nothing changed"


@pytest.mark.parametrize("kind", [fastrnn.RNN, fastrnn.LSTM, fastrnn.GRU])
def test_a_network_learns_to_remember(kind, isa):
    """say at the end what the first input was: only memory and BPTT can do it"""
    rng = np.random.default_rng(1)
    layer, head = kind(2, 16, seed=1, orthogonal=True), fastrnn.Linear(16, 1, seed=1)
    opt, history = optim.Adam([layer, head], lr=5e-3), []
    for _ in range(300):
        x = rng.standard_normal((8, 32, 2)).astype(np.float32)
        target = x[0, :, :1].copy()
        y, _, tape = layer.forward(x)
        pred, head_tape = head.forward(y[-1])
        loss, dpred = losses.mse(pred, target)
        g_head = head.backward(head_tape, dpred)
        dy = np.zeros_like(y)
        dy[-1] = g_head.input
        g = layer.backward(tape, dy)
        optim.clip_grad_norm_([g, g_head], 1.0)
        opt.step([g, g_head])
        history.append(loss)
    assert np.mean(history[:10]) > 0.5 and np.mean(history[-10:]) < 0.1
