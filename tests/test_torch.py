"""The same weights in torch.nn give the same outputs and gradients."""

import pytest

from support import DTYPES, KINDS, assert_close, named, net_of, packed, problem, run, unpacked

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("isa", "one_thread_of_torch")


def twin_of(net, layer):
    options = dict(num_layers=net.layers, bidirectional=net.bidirectional, bias=net.bias)
    options |= {"proj_size": net.proj} if net.proj else {}
    options |= {"nonlinearity": net.cell[4:]} if net.cell.startswith("rnn") else {}
    kind = getattr(torch.nn, type(layer).__name__)
    twin = kind(net.inputs, net.hidden, **options, dtype=getattr(torch, net.dtype))
    twin.load_state_dict({name: torch.from_numpy(w) for name, w in layer.state_dict().items()})
    return twin


def run_torch(twin, p):
    rnn = torch.nn.utils.rnn
    x = torch.from_numpy(p.x).requires_grad_()
    state = tuple(torch.from_numpy(s).requires_grad_() for s in p.state)
    sequence = x
    if p.lengths is not None:
        lengths = torch.from_numpy(p.lengths)
        sequence = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    y, final = twin(sequence, packed(state))
    if p.lengths is not None:
        y, _ = rnn.pad_packed_sequence(y, total_length=len(x))
    final = unpacked(final)
    gradients = [torch.from_numpy(d) for d in (p.dy, *p.dstate)]
    torch.autograd.backward((y, *final), gradients)
    weights = {name: w.grad.numpy() for name, w in twin.named_parameters()}
    return named(
        y.detach().numpy(),
        [s.detach().numpy() for s in final],
        x.grad.numpy(),
        [s.grad.numpy() for s in state],
        weights,
    )


def run_without_norms(layer, p):
    """torch has none"""
    results = run(layer, p)
    del results["step_norms"]
    return results


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients(kind, dtype, layers, bidirectional, ragged):
    net = net_of(kind, 12, 24, layers=layers, bidirectional=bidirectional, dtype=dtype)
    p, layer = problem(net, steps=15, batch=7, lengths="ragged" if ragged else None), net.build()
    if ragged:
        p.lengths[p.lengths == 0] = 1  # torch does not take empty rows
    assert_close(run_without_norms(layer, p), run_torch(twin_of(net, layer), p), dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_goes_both_ways(kind):
    net = net_of(kind, 3, 4, layers=2, bidirectional=True)
    layer = net.build(seed=1)
    twin = twin_of(net, net.build(seed=2))
    assert list(twin.state_dict()) == list(layer.state_dict())
    layer.load_state_dict(twin.state_dict())
    p = problem(net, steps=4, batch=2)
    assert_close(run_without_norms(layer, p), run_torch(twin, p), net.dtype)


def test_tensors_come_in_without_a_copy():
    net = net_of("gru", 3, 4)
    layer, p = net.build(), problem(net, steps=4, batch=2)
    y, h, tape = layer.forward(torch.from_numpy(p.x), torch.from_numpy(p.state[0]))
    wanted, h_wanted, _ = layer.forward(p.x, p.state[0])
    assert y.tobytes() == wanted.tobytes() and h.tobytes() == h_wanted.tobytes()
    g = layer.backward(tape, torch.from_numpy(p.dy))
    assert g.input.shape == p.x.shape
