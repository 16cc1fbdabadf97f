"""What torch's tools say of the layers: signatures, gradients that are none, operations, shapes."""

import inspect
import math

import pytest

torch = pytest.importorskip("torch")
from torch.utils.flop_counter import FlopCounterMode

import fastrnn.torch
from fastrnn.torch import ops
from torch_support import LAYERS, NAMES, first, twins


@pytest.mark.parametrize("name", NAMES)
def test_wrong_arguments_name_the_class(name):
    x = torch.zeros(2, 3)
    for args, kwargs in (((), {}), ((x, None, None, None), {}), ((x,), {"state": None})):
        messages = []
        for module in twins(name, 3, 4):
            with pytest.raises(TypeError) as refused:
                module(*args, **kwargs)
            messages.append(str(refused.value))
        assert messages[0] == messages[1] and messages[0].startswith(f"{name}.forward() ")


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ((), {}),
        ((2,), {"nonlinearity": "relu", "bias": False}),
        ((2, "relu"), {"batch_first": True}),
        ((1, "tanh", False, True), {"bidirectional": True}),
    ],
)
def test_arguments_of_an_rnn(args, options):
    """which alone has one before the others'"""
    theirs, ours = twins("RNN", 3, 4, *args, **options)
    assert repr(ours) == repr(theirs)
    assert (ours.mode, ours.nonlinearity) == (theirs.mode, theirs.nonlinearity)
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("RNN", {"nonlinearity": "sigmoid"}),
        ("RNN", {"proj_size": 2}),
        ("GRU", {"proj_size": 2}),
        ("LSTM", {"proj_size": 4}),
        ("LSTM", {"dropout": 2}),
    ],
)
def test_what_the_constructors_refuse(name, options):
    messages = []
    for module in (torch.nn, fastrnn.torch):
        with pytest.raises(ValueError) as refused:
            getattr(module, name)(3, 4, **options)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "TANH", None])
def test_a_cell_of_another_nonlinearity(nonlinearity):
    """torch's constructor takes any, and its forward refuses it"""
    messages = []
    for cell in twins("RNNCell", 3, 4, nonlinearity=nonlinearity):
        with pytest.raises(RuntimeError) as refused:
            cell(torch.zeros(2, 3))
        messages.append(str(refused.value))
    assert messages[0] == messages[1] and "nonlinearity" in messages[0]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_tensor_under_autocast(name):
    """torch's error, as without"""
    errors = []
    for module in twins(name, 3, 4):
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(Exception) as refused:
            module([[1.0, 2.0, 3.0]])
        errors.append((refused.type, str(refused.value)))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("name", NAMES)
def test_forward_is_documented(name):
    forward = getattr(fastrnn.torch, name).forward
    assert inspect.getdoc(forward).startswith("Run ")
    assert ("lengths" in inspect.signature(forward).parameters) == (name in LAYERS)


class Nothing(torch.autograd.Function):
    """passes no gradient on"""

    @staticmethod
    def forward(ctx, y):
        return y.clone()

    @staticmethod
    def backward(ctx, dy):
        return None


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True:UserWarning")
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_is_none(name, graph):
    for module in twins(name, 3, 4):
        y = first(module(torch.zeros(2, 3)))
        Nothing.apply(y).sum().backward(create_graph=graph)
        assert all(p.grad is None for p in module.parameters())


def counted(run):
    with FlopCounterMode(display=False) as mode:
        run()
    return mode.get_total_flops()


@pytest.mark.parametrize("wanted", ["nothing", "x", "weights", "both"])
@pytest.mark.parametrize("name", ["RNN", "GRU"])  # torch counts none of an LSTM
def test_operations_are_counted(name, wanted):
    counts = []
    for module in twins(name, 3, 4, num_layers=2, bidirectional=True):
        module.requires_grad_(wanted in ("weights", "both"))
        x = torch.zeros(20, 5, 3, requires_grad=wanted in ("x", "both"))

        def run(module=module, x=x):
            y, _ = module(x)
            if wanted != "nothing":
                y.sum().backward()

        counts.append(counted(run))
    assert counts[0] > 0
    # torch skips a product of the first step where h wants no gradient.
    assert math.isclose(*counts, rel_tol=0.1), counts


@pytest.mark.parametrize(("proj", "bias"), [(2, True), (0, False)])
def test_operations_of_projections_and_packed_rows(proj, bias):
    layer = fastrnn.torch.LSTM(3, 4, bias=bias, proj_size=proj)
    products = sum(p.numel() for p in layer.parameters() if p.dim() == 2)
    for wanted, left in ((True, 0), (False, layer.weight_ih_l0.numel())):
        x = torch.zeros(6, 3, requires_grad=wanted)
        packed = torch.nn.utils.rnn.PackedSequence(x, torch.tensor([3, 2, 1]))
        with torch.no_grad():
            assert counted(lambda given=packed: layer(given)) == 2 * 6 * products
        both = counted(lambda given=packed: layer(given)[0].data.sum().backward())
        assert both == 2 * 6 * (3 * products - left)


@pytest.mark.parametrize("shape", [(5, 3, 4), (5, 4)])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("operator", ["recurrent", "recurrent_train"])
def test_shapes_of_recorded_calls(operator, batch_first, shape):
    """those of a tape, too, are what they will be"""
    layer, x = fastrnn.torch.GRU(4, 6, 2, batch_first=batch_first), torch.randn(*shape)
    call = layer._padded(x, None)
    arguments = (x, None, None, *ops._flat(call), list(layer.parameters()), "gru", 2, True, False)
    overload = getattr(torch.ops.fastrnn, operator).default
    torch.library.opcheck(overload, arguments, test_utils="test_faketensor")


@pytest.mark.parametrize("name", LAYERS)
def test_dropout_however_rows_lie(name):
    layer, x = getattr(fastrnn.torch, name)(3, 4, 2, dropout=0.5), torch.randn(5, 1, 3)
    results = []
    for batch_first, given in ((False, x), (True, x.transpose(0, 1)), (False, x[:, 0])):
        torch.manual_seed(1)
        layer.batch_first = batch_first
        results.append(layer(given)[0].detach().flatten())
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    assert not torch.equal(results[0], layer.eval()(x)[0].detach().flatten())
