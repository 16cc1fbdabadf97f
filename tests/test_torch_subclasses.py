"""States, weights and gradients in fastrnn.torch whose class is not torch.Tensor."""

import copy
import functools

import pytest

torch = pytest.importorskip("torch")

import fastrnn.torch
from fastrnn.torch import ops
from fastrnn.torch._kernel import exact_tensor
from torch_support import LAYERS, NAMES, first, twins


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


class Kept(Wrapped):
    """one whose results are such tensors, too"""

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        result = super().__torch_dispatch__(func, types, args, kwargs)
        again = functools.partial(torch.utils._pytree.tree_map_only, torch.Tensor, cls)
        return result if result is NotImplemented else again(result)


def problem(name):
    theirs, ours = twins(name, 3, 4)
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


@pytest.mark.parametrize(("values", "wrong"), [([9, 2], "9 at row 0"), ([5, -1], "-1 at row 1")])
def test_wrong_lengths_are_named_whatever_their_class(values, wrong):
    layer, x, lengths = fastrnn.torch.LSTM(3, 4), torch.randn(5, 2, 3), torch.tensor(values)
    for form in (Tracked, Wrapped):
        given = lengths.as_subclass(form) if form is Tracked else form(lengths)
        with pytest.raises(ValueError, match=f"0..T = 5, got {wrong}"):
            layer(x, lengths=given)
    with pytest.raises(ValueError, match="^lengths: expected values, got a tensor of the class"):
        layer(x, lengths=Kept(lengths))


def test_the_cores_own_errors_pass_a_subclass():
    sizes = torch.tensor([2, 3])
    packed = torch.nn.utils.rnn.PackedSequence(torch.randn(5, 3), sizes.as_subclass(Tracked))
    with pytest.raises(ValueError, match="^batch_sizes: expected values from 2 downwards to 1"):
        fastrnn.torch.LSTM(3, 4)(packed)


@pytest.mark.parametrize("name", LAYERS)
def test_lengths_beside_a_subclass_without_memory_are_packed_for_torch(name):
    theirs, ours, x, h = problem(name)
    lengths = torch.tensor([5, 2])
    rnn = torch.nn.utils.rnn
    for form in (lambda x, h: (Wrapped(x.detach()), h), lambda x, h: (x, Wrapped(h))):
        given, state = form(x, h)
        state = (state, state) if name == "LSTM" else state
        packed = rnn.pack_padded_sequence(given, lengths, enforce_sorted=False)
        wanted, _ = rnn.pad_packed_sequence(theirs(packed, state)[0], total_length=5)
        assert torch.equal(ours(given, state, lengths=lengths)[0], wanted)


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
def test_a_subclass_without_memory_as_gradient(name):
    _, ours, x, h = problem(name)
    y = call(ours, x, h)
    dy = torch.randn(y.shape)
    wanted = torch.autograd.grad(y, [x, *ours.parameters()], dy, retain_graph=True)
    for form in (Wrapped, Kept):
        found = torch.autograd.grad(y, [x, *ours.parameters()], form(dy), retain_graph=True)
        for a, b in zip(found, wanted, strict=True):
            assert isinstance(a, Kept) is (form is Kept)
            torch.testing.assert_close(a.inner if form is Kept else a, b)


def test_operators_look_at_classes_after_an_error_alone(monkeypatch):
    looked_at = []
    monkeypatch.setattr(ops, "exact_tensor", lambda t: looked_at.append(t) or exact_tensor(t))
    weights = [w.detach() for w in fastrnn.torch.GRU(3, 4).parameters()]

    def run(x):
        call = None, None, None, 0, None, 0, 0.0, None
        return torch.ops.fastrnn.recurrent(x, *call, weights, "gru", 1, True, False)[0]

    x = torch.randn(5, 2, 3)
    y = run(x)
    assert not looked_at
    assert torch.equal(run(x.as_subclass(Tracked)), y) and looked_at


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
