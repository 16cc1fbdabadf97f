"""Gradients that nobody asks for are not computed: `autograd.grad` may want the input's alone."""

import pytest

torch = pytest.importorskip("torch")

import fastrnn.torch
from fastrnn.torch import _autograd
from fastrnn.torch._kernel import Kernel
from torch_support import CELLS, NAMES, first, numbers, twins


@pytest.fixture
def computed(monkeypatch):
    """whether each backward pass computed the gradients of weights"""
    seen, backward = [], Kernel.backward

    def spy(self, *args):
        seen.append(args[6][3])
        return backward(self, *args)

    monkeypatch.setattr(Kernel, "backward", spy)
    return seen


@pytest.fixture
def asks(monkeypatch):
    """short passes ask who wants gradients, too"""
    monkeypatch.setattr(_autograd, "_LONG", 0)


@pytest.mark.parametrize(("steps", "batch"), [(4, 1), (256, 1), (2, 128)])
def test_short_passes_do_not_ask(steps, batch, computed):
    """the answer may take longer than the gradients"""
    layer = fastrnn.torch.GRU(1, 160)  # weight_hh has 76,800 elements
    x = torch.zeros(steps, batch, 1, requires_grad=True)
    torch.autograd.grad(layer(x)[0].sum(), x)
    assert computed == [steps * batch * 76_800 < _autograd._LONG] == [steps == 4]


def input_of(name):
    return (numbers(2, 3) if name in CELLS else numbers(5, 2, 3)).requires_grad_()


@pytest.mark.parametrize(
    "asked", [("x",), ("x", "first"), ("last", "x"), ("first",), ("last",), ("first", "last")]
)
@pytest.mark.parametrize("name", NAMES)
def test_only_what_is_asked_for(name, asked, asks, computed):
    x, results = input_of(name), []
    for module in twins(name, 3, 4):
        parameters = list(module.parameters())
        tensors = {"x": x, "first": parameters[0], "last": parameters[-1]}
        y = first(module(x)).square().sum()
        results.append(torch.autograd.grad(y, [tensors[which] for which in asked]))
    for theirs, ours in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert computed == [asked != ("x",)]


@pytest.mark.parametrize("name", NAMES)
def test_frozen_weights_want_none(name, computed):
    _, module = twins(name, 3, 4)
    module.requires_grad_(False)
    x = input_of(name)
    first(module(x)).sum().backward()
    assert x.grad is not None and computed == [False]


@pytest.mark.parametrize("name", NAMES)
def test_frozen_weights_are_not_asked(name, asks, computed):
    x, results = input_of(name), []
    for module in twins(name, 3, 4):
        *others, last = module.parameters()
        for weight in others:
            weight.requires_grad_(False)
        y = first(module(x)).square().sum()
        (alone,) = torch.autograd.grad(y, x, retain_graph=True)
        results.append([alone, *torch.autograd.grad(y, (x, last))])
    for theirs, ours in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert computed == [False, True]


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_come_from_others(name, asks, computed):
    """then their own nodes are reached, or not, instead of leaves"""
    _, module = twins(name, 3, 4)
    x, scale = input_of(name), torch.tensor(1.0, requires_grad=True)
    scaled = {k: scale * v for k, v in module.named_parameters()}
    y = first(torch.func.functional_call(module, scaled, (x,))).square().sum()
    (alone,) = torch.autograd.grad(y, x, retain_graph=True)
    both = torch.autograd.grad(y, (x, scale), retain_graph=True)
    y.backward(inputs=[x], retain_graph=True)
    assert torch.equal(alone, both[0]) and torch.equal(x.grad, alone) and both[1] != 0
    assert computed == [False, True, False]


@pytest.mark.parametrize("wrapped", [False, True])
def test_backward_reaches_all(wrapped, asks, computed):
    layer, x = twins("LSTM", 3, 4)[1], input_of("LSTM")
    run = torch.compile(layer, backend="aot_eager") if wrapped else layer
    run(x)[0].sum().backward()
    assert all(p.grad is not None for p in layer.parameters()) and x.grad is not None
    assert computed == [True]
