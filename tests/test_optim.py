"""Optimizers step for step against torch; that training learns."""

import math

import numpy as np
import pytest

import fastrnn
from fastrnn import losses, optim
from support import DTYPES, Net, problem, random_gradients

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


def test_gradients_in_another_order_than_the_modules():
    lstm, head = fastrnn.LSTM(3, 4), fastrnn.Linear(4, 2)
    small, large = fastrnn.Linear(2, 3), fastrnn.Linear(4, 3)
    hint = "; they are in the order of the modules$"
    for modules, expected in (
        ([lstm, head], r"the names of LSTM\(.*, differing in bias, .*"),
        ([small, large], r"shape \[3, 2\] for weight, got \[3, 4\]"),
    ):
        first, second = ({n: np.zeros_like(w) for n, w in m.parameters().items()} for m in modules)
        opt = optim.SGD(modules, lr=0.1)
        with pytest.raises(ValueError, match=f"^grads: expected {expected}{hint}"):
            opt.step([second, first])
        opt.step([first, second])
    with pytest.raises(ValueError, match="differing in bias_hh.*, weight_ih_l0$"):  # one of one
        optim.SGD(lstm, lr=0.1).step({"weight": np.zeros((2, 4), np.float32)})


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
