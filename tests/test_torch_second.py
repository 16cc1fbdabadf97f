"""Gradients that are differentiated again, or asked for many at once: those of torch's layers."""

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import pack_sequence
from torch.utils.checkpoint import checkpoint

import fastrnn.torch
from fastrnn._spec import CELLS as KERNELS
from fastrnn.torch import _composed
from fastrnn.torch._call import TIME, Call
from torch_support import CELLS, leaves, twins

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
KINDS = {  # of layers
    "tanh": ("RNN", {}),
    "relu": ("RNN", dict(nonlinearity="relu", bias=False)),
    "LSTM": ("LSTM", dict(bidirectional=True, num_layers=2)),
    "proj": ("LSTM", dict(proj_size=1, num_layers=2, bias=False)),
    "GRU": ("GRU", dict(bidirectional=True)),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(3)


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def small_twins(name, **options):
    return twins(name, 3, 4, dtype=torch.float64, **options)


def scalar(result):
    return sum((t * t).sin().sum() for t in leaves(result) if t.is_floating_point())


def second(module, inputs, run):
    """first and second derivatives with respect to inputs and weights, by two ways to ask"""
    wanted = [*inputs, *module.parameters()]
    first = torch.autograd.grad(scalar(run(module)), wanted, create_graph=True)
    total = scalar(first) + sum(t.sum() for t in wanted)
    again = torch.autograd.grad(total, wanted, retain_graph=True)
    total.backward(inputs=wanted)
    assert all(torch.equal(t.grad, g) for t, g in zip(wanted, again, strict=True))
    for t in wanted:
        t.grad = None
    return [*first, *again]


def assert_close(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-11)


def states_of(name, options, *rows):
    parts = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    h = numbers(parts, *rows, options.get("proj_size", 4))
    return (h, numbers(parts, *rows, 4)) if name in ("LSTM", "proj") else (h,)


def test_there_are_equations_for_every_cell():
    assert _composed._STEPS.keys() == KERNELS.keys()


@pytest.mark.parametrize("form", ["time", "batch", "unbatched", "packed", "no state"])
@pytest.mark.parametrize("name", KINDS)
def test_second_derivatives_of_layers(name, form):
    cls, options = KINDS[name]
    theirs, ours = small_twins(cls, batch_first=form == "batch", **options)
    rows = () if form == "unbatched" else (2,)
    x = numbers(2, 5, 3) if form == "batch" else numbers(5, *rows, 3)
    state = states_of(name, options, *rows)
    hx = None if form == "no state" else state if len(state) == 2 else state[0]
    given = [x] if hx is None else [x, *state]

    def run(module):
        if form == "packed":
            return module(pack_sequence([x[:3, 0], x[:, 1]], enforce_sorted=False), hx)
        return module(x, hx)

    assert_close(second(ours, given, run), second(theirs, given, run))


@pytest.mark.parametrize("cls", CELLS)
def test_second_derivatives_of_cells(cls):
    theirs, ours = small_twins(cls)
    x, h, c = numbers(2, 3), numbers(2, 4), numbers(2, 4)
    lstm = cls == "LSTMCell"

    def run(module):
        state = module(x, (h, c) if lstm else h)
        return module(x, state)

    given = [x, h, c] if lstm else [x, h]
    assert_close(second(ours, given, run), second(theirs, given, run))


@pytest.mark.parametrize("name", KINDS)
def test_second_derivatives_of_padded_batches(name):
    """what lies behind an end is not read, NaN neither"""
    cls, options = KINDS[name]
    theirs, ours = small_twins(cls, **options)
    x = numbers(5, 3, 3)
    with torch.no_grad():
        x[2:, 0] = x[4:, 1] = torch.nan
    lengths = [2, 4, 5]

    def packed(module):
        y, state = module(pack_sequence([x[:n, i] for i, n in enumerate(lengths)], False))
        return y, state

    actual = second(ours, [x], lambda module: module(x, lengths=lengths))
    wanted = second(theirs, [x], packed)
    assert_close([g.nan_to_num() for g in actual], [g.nan_to_num() for g in wanted])
    assert all(g.isfinite().all() for g in actual)


@pytest.mark.parametrize("lengths", [None, [2, 5]])
def test_second_derivatives_with_dropout(lengths):
    """the masks of the pass forward, which torch's operators do not draw"""
    layer = fastrnn.torch.GRU(3, 4, num_layers=3, dropout=0.4, dtype=torch.float64)
    x = numbers(5, 2, 3)

    def run(x, *weights):
        torch.manual_seed(7)
        named = dict(zip((n for n, _ in layer.named_parameters()), weights, strict=True))
        return torch.func.functional_call(layer, named, (x,), dict(lengths=lengths))

    weights = list(layer.parameters())
    kernels = torch.autograd.grad(scalar(run(x, *weights)), [x, *weights])
    again = torch.autograd.grad(scalar(run(x, *weights)), [x, *weights], create_graph=True)
    assert_close(again, kernels)
    assert torch.autograd.gradgradcheck(lambda x: run(x, *weights)[0], (x,))


def test_a_state_computed_from_the_input():
    """its history is not the layer's to follow"""
    theirs, ours = small_twins("GRU")
    x = numbers(5, 2, 3)

    def run(module):
        return module(x, torch.cat([x[:1], x[:1, :, :1]], -1).exp())

    assert_close(second(ours, [x], run), second(theirs, [x], run))


@pytest.mark.parametrize("recorded", ["exported", "traced"])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_second_derivatives_through_the_operators(recorded):
    theirs, ours = small_twins("LSTM")
    x = numbers(5, 2, 3)
    if recorded == "exported":
        program = torch.export.export(ours, (x.detach(),)).module()
    else:
        program = torch.jit.trace(ours, (x.detach(),))

    def penalty(module):
        (g,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
        return torch.autograd.grad(g.square().sum() + x.sum(), x)

    assert_close(penalty(program), penalty(theirs))


@pytest.mark.parametrize("name", KINDS)
def test_many_gradients_at_once(name):
    cls, options = KINDS[name]
    _, ours = small_twins(cls, **options)
    x = numbers(5, 2, 3)
    wanted = [x, *ours.parameters()]
    for result in leaves(ours(x)):  # each of them alone

        def backward(dy, result=result, **options):
            return torch.autograd.grad(result, wanted, dy, retain_graph=True, **options)

        upstream = torch.randn(4, *result.shape, dtype=torch.float64)
        one_by_one = [torch.stack(gs) for gs in zip(*map(backward, upstream), strict=True)]
        assert_close(backward(upstream, is_grads_batched=True), one_by_one)
        assert_close(torch.func.vmap(backward)(upstream), one_by_one)
    jacobian = torch.autograd.functional.jacobian
    assert_close(*([jacobian(lambda x: ours(x)[0], x, vectorize=v)] for v in (True, False)))
    hessian = torch.autograd.functional.hessian
    assert_close(*([hessian(lambda x: scalar(ours(x)), x, vectorize=v)] for v in (True, False)))


@pytest.mark.parametrize("cls", CELLS)
def test_the_state_of_a_cell_is_its_callers_to_overwrite(cls):
    """h[done] = 0, where an episode ends; a plain cell's h is its own derivative, as in torch"""
    found = []
    for module in small_twins(cls):
        torch.manual_seed(5)
        x, state = numbers(6, 2, 3), None
        for step in x:
            state = module(step, state)
            for t in leaves(state):
                t[0] = 0
        if cls == "RNNCell":
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                scalar(state).backward()
            continue
        found.append(torch.autograd.grad(scalar(state), [x, *module.parameters()]))
    assert_close(*found or ([], []))


@pytest.mark.parametrize("seed", [7, -7])
def test_masks_of_any_seed(seed):
    """that of an operator may be negative; the core takes its bits"""
    layer, x = fastrnn.torch.GRU(3, 4, 2, dtype=torch.float64), numbers(5, 2, 3)
    layer(x)
    kernel, weights = layer._kernel, list(layer.parameters())
    call = Call(TIME, 2, 0.5, None, torch.tensor([seed]))
    y, *_ = _composed._forward(kernel.config, call, x, None, None, weights)
    assert_close([y], kernel.forward(x, None, None, weights, call, False)[:1])


@pytest.mark.parametrize("lengths", [None, [2, 5]])
def test_memory_grows_with_the_steps_not_with_their_square(lengths):
    """gates[t] would have a gradient as large as all steps together"""
    layer, x = fastrnn.torch.GRU(3, 4, dtype=torch.float64), numbers(5, 2, 3)
    layer(x)
    call = Call(TIME, 2, 0.0, None, None, lengths and torch.tensor(lengths))
    y, *_ = _composed._forward(layer._kernel.config, call, x, None, None, list(layer.parameters()))
    names, seen, ahead = set(), set(), [y.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            names.add(node.name())
            ahead += [following for following, _ in node.next_functions]
    assert "UnbindBackward0" in names and "SelectBackward0" not in names, names


def test_autocast_does_not_round_them():
    layer = fastrnn.torch.GRU(3, 4)
    x = torch.randn(5, 2, 3, requires_grad=True)
    wanted = torch.autograd.grad(scalar(layer(x)), x, create_graph=True)[0]
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        assert torch.equal(torch.autograd.grad(scalar(y), x, create_graph=True)[0], wanted)


@pytest.mark.parametrize("name", KINDS)
def test_a_row_without_steps_may_start_from_anything(name):
    cls, options = KINDS[name]
    _, ours = small_twins(cls, **options)
    x, state = numbers(5, 2, 3), states_of(name, options, 2)
    with torch.no_grad():
        for t in (x, *state):
            t[:, 1] = torch.nan
    hx = state if len(state) == 2 else state[0]

    def gradients(**how):
        y = ours(x, hx, lengths=[5, 0])[0]
        return torch.autograd.grad(y.square().sum(), list(ours.parameters()), **how)

    assert_close(gradients(create_graph=True), gradients())


@pytest.mark.parametrize("again", [False, True])
def test_a_checkpoint_that_draws_other_masks(again):
    """the gradient is that of the pass computed last, as torch's"""
    layer = fastrnn.torch.GRU(3, 4, num_layers=2, dropout=0.5, dtype=torch.float64)
    x = numbers(5, 2, 3)
    torch.manual_seed(1)
    y = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False)
    torch.manual_seed(2)
    found = torch.autograd.grad(y[0].sum(), x, create_graph=again)
    torch.manual_seed(2)
    assert_close(found, torch.autograd.grad(layer(x)[0].sum(), x))
