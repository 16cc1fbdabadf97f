"""States, weights and gradients in fastrnn.torch whose class is not torch.Tensor."""

import copy
import functools

import pytest

torch = pytest.importorskip("torch")

import fastrnn.torch

LAYERS = ("RNN", "LSTM", "GRU")
NAMES = (*LAYERS, "RNNCell", "LSTMCell", "GRUCell")


class Tracked(torch.Tensor):
    """has memory as others do"""


class Wrapped(torch.Tensor):
    """has its values elsewhere, and knows torch's own operators alone"""

    @staticmethod
    def __new__(cls, inner):
        like = {"dtype": inner.dtype, "device": inner.device}
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, **like)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func.namespace != "aten":
            return NotImplemented
        opened = torch.utils._pytree.tree_map_only(cls, lambda t: t.inner, (args, kwargs or {}))
        return func(*opened[0], **opened[1])


def first(result):
    return result[0] if isinstance(result, tuple) else result


def problem(name):
    ours = getattr(fastrnn.torch, name)(3, 4)
    theirs = getattr(torch.nn, name)(3, 4)
    theirs.load_state_dict(ours.state_dict())
    shape = (5, 2) if name in LAYERS else (2,)
    x = torch.randn(*shape, 3, requires_grad=True)
    h = torch.randn(*((1, 2, 4) if name in LAYERS else (2, 4)))
    return theirs, ours, x, h


def call(module, x, h):
    return first(module(x, (h, h) if "LSTM" in type(module).__name__ else h))


@pytest.mark.parametrize("name", NAMES)
def test_a_subclass_as_state_sees_what_torchs_sees(name):
    theirs, ours, x, h = problem(name)
    plain = call(ours, x, h)
    results = []
    for module in (theirs, ours):
        y = call(module, x, h.as_subclass(Tracked))
        assert type(y) is Tracked
        results.append([y, *torch.autograd.grad(y.sum(), [x, *module.parameters()])])
    assert torch.equal(results[1][0], plain)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_a_subclass_as_weight(name):
    _, ours, x, _ = problem(name)
    plain = copy.deepcopy(ours)
    weight = "weight_hh_l0" if name in LAYERS else "weight_hh"
    tracked = getattr(ours, weight).detach().as_subclass(Tracked)
    setattr(ours, weight, torch.nn.Parameter(tracked))
    y, wanted = first(ours(x)), first(plain(x))
    assert type(y) is Tracked and torch.equal(y, wanted)
    y.sum().backward(), wanted.sum().backward()
    assert torch.equal(getattr(ours, weight).grad, getattr(plain, weight).grad)


@pytest.mark.parametrize("name", LAYERS)
def test_a_subclass_as_lengths_and_batch_sizes(name):
    _, ours, x, _ = problem(name)
    sizes = torch.tensor([2, 2, 1])
    data, lengths = x.reshape(-1, 3)[:5], torch.tensor([5, 2])
    PackedSequence = torch.nn.utils.rnn.PackedSequence
    for run in (
        lambda form: ours(x, lengths=form(lengths))[0],
        lambda form: ours(PackedSequence(data, form(sizes)))[0].data,
    ):
        results = []
        for form in (torch.clone, lambda t: t.as_subclass(Tracked)):
            y = run(form)
            results.append([y, *torch.autograd.grad(y.sum(), [x, *ours.parameters()])])
        assert all(map(torch.equal, *results))


@pytest.mark.parametrize("name", NAMES)
def test_a_subclass_without_memory_goes_to_torch(name):
    theirs, ours, x, h = problem(name)
    assert torch.equal(call(ours, x, Wrapped(h)), call(theirs, x, Wrapped(h)))
    x = Wrapped(x.detach())
    assert torch.equal(call(ours, x, h), call(theirs, x, h))


@pytest.mark.parametrize("name", NAMES)
def test_a_subclass_as_gradient(name):
    _, ours, x, h = problem(name)
    y = call(ours, x, h)
    dy = torch.randn(y.shape)
    results = [
        torch.autograd.grad(y, [x, *ours.parameters()], g, retain_graph=True)
        for g in (dy, dy.as_subclass(Tracked))
    ]
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("name", NAMES)
def test_hooks_of_saved_tensors_may_return_a_subclass(name):
    _, ours, x, h = problem(name)
    if name in LAYERS:
        ours.forward = functools.partial(ours.forward, lengths=[5, 2])
    wanted = torch.autograd.grad(call(ours, x, h).sum(), [x, *ours.parameters()])
    hooks = (lambda t: t, lambda t: t.detach().as_subclass(Tracked))
    with torch.autograd.graph.saved_tensors_hooks(*hooks):
        y = call(ours, x, h)
    assert all(map(torch.equal, torch.autograd.grad(y.sum(), [x, *ours.parameters()]), wanted))
