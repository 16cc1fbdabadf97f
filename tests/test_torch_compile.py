"""fastrnn.torch under torch.compile, torch.export, autograd's checks and its modes."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.rnn import PackedSequence

import fastrnn.torch
from fastrnn.torch._call import PACKED
from torch_support import CELLS, LAYERS, NAMES, first

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(autouse=True)
def forget():
    torch._dynamo.reset()


def make(name, dtype=torch.float32, **options):
    if name in CELLS:
        return getattr(fastrnn.torch, name)(4, 6, dtype=dtype), torch.randn(3, 4, dtype=dtype)
    layer = getattr(fastrnn.torch, name)(4, 6, dtype=dtype, **options)
    return layer, torch.randn(5, 3, 4, dtype=dtype)


@pytest.mark.parametrize("name", NAMES)
def test_compile_without_a_graph_break(name):
    options = {} if name in CELLS else dict(num_layers=2, bidirectional=True)
    module, x = make(name, **options)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x.requires_grad_()
    wanted = [x, *module.parameters()]
    results = []
    for call in (module, compiled):
        y = first(call(x))
        results.append([y, *torch.autograd.grad(y.square().sum(), wanted)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    with torch.no_grad():
        assert torch.equal(first(compiled(x)), results[0][0])


@pytest.mark.filterwarnings("ignore:Skipping serialization of:UserWarning:torch")  # torch 2.6's
def test_compile_with_inductor():
    """the default back end, for a layer between others"""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), fastrnn.torch.GRU(4, 6))
    x = torch.randn(5, 3, 4)
    compiled = torch.compile(model, fullgraph=True)
    results = []
    for call in (model, compiled):
        y = call(x)[0]
        results.append([y, *torch.autograd.grad(y.square().sum(), list(model.parameters()))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", LAYERS)
def test_dynamic_shapes(name):
    layer, _ = make(name, batch_first=True)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, backend=counter, dynamic=True)
    for batch, steps in ((2, 7), (5, 3), (4, 11)):
        x = torch.randn(batch, steps, 4, requires_grad=True)
        y, wanted = compiled(x)[0], layer(x)[0]
        assert torch.equal(y, wanted)
        assert torch.equal(
            torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(wanted.sum(), x)[0]
        )
    assert counter.frame_count == 1


def test_compiled_training_follows_the_weights():
    layer, x = make("LSTM")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    stepper = torch.optim.Adam(layer.parameters(), 0.1)
    losses = []
    for _ in range(8):
        stepper.zero_grad()
        loss = compiled(x)[0].square().sum()
        assert torch.equal(loss, layer(x)[0].square().sum())
        loss.backward()
        stepper.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_export_round_trip(name, tmp_path):
    module, x = make(name)
    program = torch.export.export(module, (x,))
    called = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert "fastrnn.recurrent.default" in called
    torch.export.save(program, tmp_path / "layer.pt2")
    again = torch.export.load(tmp_path / "layer.pt2").module()
    assert torch.equal(first(again(x)), first(module(x)))


def test_export_with_dynamic_shapes():
    layer, x = make("GRU")
    steps, batch = torch.export.Dim("steps"), torch.export.Dim("batch")
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: steps, 1: batch}, None)[:1])
    for shape in ((2, 5, 4), (9, 2, 4)):
        x = torch.randn(shape)
        assert torch.equal(program.module()(x)[0], layer(x)[0])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning:torch")  # 2.14's
@pytest.mark.parametrize(("name", "proj"), [("RNN", 0), ("LSTM", 0), ("LSTM", 2), ("GRU", 0)])
def test_opcheck(name, proj):
    options = {"proj_size": proj} if proj else {}
    layer, x = make(name, num_layers=2, bidirectional=True, dtype=torch.float64, **options)
    h = torch.randn(4, 3, proj or 6, dtype=torch.float64, requires_grad=True)
    c = torch.randn(4, 3, 6, dtype=torch.float64, requires_grad=True) if name == "LSTM" else None
    cell = {"RNN": "rnn_tanh"}.get(name, name.lower())
    x.requires_grad_()
    weights = list(layer.parameters())
    arguments = (x, h, c, None, 0, None, 0, 0.0, None, weights, cell, 2, True, True)
    torch.library.opcheck(torch.ops.fastrnn.recurrent.default, arguments)


@pytest.mark.parametrize("name", LAYERS)
def test_opcheck_of_packed_rows(name):
    """whose tape has a place for each of them, not for each row at each step"""
    layer, _ = make(name)
    cell = {"RNN": "rnn_tanh"}.get(name, name.lower())
    call = (torch.tensor([3, 2, 1]), 3, None, PACKED, 0.0, None)
    options = list(layer.parameters()), cell, 1, True, False
    arguments = (torch.randn(6, 4), None, None, *call, *options)
    for operator in (torch.ops.fastrnn.recurrent, torch.ops.fastrnn.recurrent_train):
        torch.library.opcheck(operator.default, arguments, test_utils="test_faketensor")
        assert torch.Tag.pt2_compliant_tag in operator.default.tags  # some compilers ask for it


def test_the_batch_of_packed_rows_without_values():
    """-1 is for tensors that have them"""
    weights = [w.detach().to("meta") for w in make("GRU")[0].parameters()]
    rows, sizes = torch.empty(6, 4, device="meta"), torch.empty(3, dtype=torch.int64, device="meta")
    wanted, options = [True] * 4, ("gru", 1, True, False)
    for batch in (-1, 0):
        call = sizes, batch, None, PACKED, 0.0, None, weights
        with pytest.raises(ValueError, match="^batch: expected batch_sizes"):
            torch.ops.fastrnn.recurrent(rows, None, None, *call, *options)
        with pytest.raises(ValueError, match="^batch: expected batch_sizes"):
            torch.ops.fastrnn.recurrent_backward(
                rows, rows, rows, *call, None, None, None, wanted, *options
            )
    call = sizes, 1, None, PACKED, 0.0, None, weights
    assert torch.ops.fastrnn.recurrent(rows, None, None, *call, *options)[1].shape == (1, 1, 6)


@pytest.mark.parametrize("proj", [0, 2])
@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name, proj):
    options = {} if name in CELLS else dict(num_layers=2, bidirectional=True)
    if proj and name != "LSTM":
        pytest.skip("proj_size is for LSTM")
    options |= {"proj_size": proj} if proj else {}
    dtype = torch.float64
    cls = getattr(fastrnn.torch, name)
    module = cls(2, 3, dtype=dtype, **options)
    x = torch.randn(*((2,) if name in CELLS else (3, 2)), 2, dtype=dtype, requires_grad=True)
    parts = () if name in CELLS else (4,)
    h = torch.randn(*parts, 2, proj or 3, dtype=dtype, requires_grad=True)
    c = torch.randn(*parts, 2, 3, dtype=dtype, requires_grad=True)
    lstm = name.startswith("LSTM")

    def run(x, h, c, *weights):
        y = module(x, (h, c) if lstm else h)
        if isinstance(y, torch.Tensor):
            return y
        return tuple(leaf for item in y for leaf in (item if isinstance(item, tuple) else (item,)))

    inputs = (x, h, c if lstm else c.detach(), *module.parameters())
    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", NAMES)
def test_no_tape_without_gradients(name, mode, monkeypatch):
    module, x = make(name)
    module(x)
    kept = []
    original = type(module._kernel).forward

    def forward(*arguments):
        results = original(*arguments)
        kept.extend(tape for tape in results[3:] if tape is not None)
        return results

    monkeypatch.setattr(type(module._kernel), "forward", forward)
    with mode():
        y = first(module(x))
    assert not kept and y.grad_fn is None
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    assert first(module(x)).grad_fn is None and not kept
    first(module(x.requires_grad_())).sum().backward()  # dx alone
    assert kept and x.grad is not None and all(p.grad is None for p in module.parameters())


def test_dropout_follows_torchs_generator():
    layer = fastrnn.torch.LSTM(4, 16, 3, dropout=0.5)
    x = torch.randn(7, 5, 4)
    torch.manual_seed(7)
    a, b = layer(x)[0], layer(x)[0]
    torch.manual_seed(7)
    again = layer(x)[0]
    assert torch.equal(a, again) and not torch.equal(a, b)
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])
    layer.train()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.manual_seed(3)
    c = compiled(x)[0]
    torch.manual_seed(3)
    assert torch.equal(c, compiled(x)[0])
    assert not torch.equal(c, compiled(x)[0])


def test_dropout_has_its_gradient():
    layer = fastrnn.torch.GRU(2, 3, 2, dropout=0.4, dtype=torch.float64)
    x = torch.randn(4, 2, 2, dtype=torch.float64, requires_grad=True)

    def run(x, *weights):
        torch.manual_seed(5)
        return layer(x)

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


@pytest.mark.parametrize("name", NAMES)
def test_functionalize_sees_the_operator(name):
    """the one transform of torch.func that needs no look into it"""
    module, x = make(name)
    run = torch.func.functionalize(lambda x: first(module(x)))
    with torch.no_grad():
        graph = make_fx(run)(x)
        assert torch.equal(graph(x), first(module(x)))
    assert any("fastrnn" in str(node.target) for node in graph.graph.nodes)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_jit_trace_records_the_operator():
    layer, x = make("LSTM")
    with torch.no_grad():
        traced = torch.jit.trace(layer, (x,))
        other = torch.randn(5, 3, 4)
        assert torch.equal(traced(other)[0], layer(other)[0])


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_trace_of_packed_rows_takes_others(name, state):
    """the number of rows was that of the recording"""

    class Packed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, _ = make(name, num_layers=2, bidirectional=True)

        def forward(self, data, sizes, h):
            hx = ((h, h) if name == "LSTM" else h) if state else None
            y, final = self.layer(PackedSequence(data, sizes), hx)
            return y.data, *(final if name == "LSTM" else (final,))

    def inputs(*sizes):
        data, h = torch.randn(sum(sizes), 4, requires_grad=True), torch.randn(4, sizes[0], 6)
        return data, torch.tensor(sizes), h

    model = Packed()
    traced = torch.jit.trace(model, inputs(3, 2, 2, 1))
    for sizes in ((3, 2, 2, 1), (5, 1), (1,), (2, 2, 2, 2, 2)):
        given, results = inputs(*sizes), []
        for call in (model, traced):
            out = call(*given)
            wanted = [given[0], *model.parameters()]
            results.append([*out, *torch.autograd.grad(sum(o.sum() for o in out), wanted)])
        assert all(map(torch.equal, *results))


QUIET = """
import warnings, torch, fastrnn.torch
from torch.nn.utils.rnn import pack_padded_sequence

class Model(torch.nn.Module):
    def __init__(self, layer, looks=False):
        super().__init__()
        self.layer, self.looks = layer, looks

    def forward(self, x, lengths):
        if self.looks and x.shape[0] > 9:
            return x
        packed = self.layer(pack_padded_sequence(x, lengths, enforce_sorted=False))[0]
        return packed.data, self.layer(x, lengths=lengths)[0]

x, lengths = torch.randn(4, 3, 2), torch.tensor([4, 1, 2])
for name in ("RNN", "LSTM", "GRU"):
    cell, layer = (getattr(fastrnn.torch, name + kind) for kind in ("Cell", ""))
    layer = layer(2, 3, 2, dropout=0.5).eval()
    torch.jit.trace(cell(2, 3), (x[0],))
    torch.jit.trace(layer, (x,))
    torch.jit.trace(Model(layer), (x, lengths))
    with torch.autocast("cpu"):
        torch.jit.trace(layer, (x,), check_trace=False)
    torch.jit.trace(layer.train(), (x,), check_trace=False)
with warnings.catch_warnings(record=True) as seen:
    warnings.filterwarnings("default", module="__main__")
    torch.jit.trace(Model(layer.eval(), looks=True), (x, lengths))
print([warning.category.__name__ for warning in seen])
"""


def test_jit_trace_warns_of_no_look_of_ours():
    """as it does not of torch's own modules', whatever warnings are"""
    options = ["-W", "error", "-W", "ignore::DeprecationWarning"]  # torch's, of jit.trace itself
    run = subprocess.run(
        [sys.executable, *options, "-c", QUIET], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "['TracerWarning']\n"  # the model's own is seen


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (dict(x=torch.zeros(5, 3, 5)), ValueError, "input: expected 3 axes, the last 4"),
        (dict(x=torch.zeros(5, 3, 4, dtype=torch.int64)), TypeError, "input: expected torch.float"),
        (dict(h=torch.zeros(1, 2, 6)), ValueError, r"h0: expected shape \[1, 3, 6\]"),
        (dict(h=torch.zeros(1, 3, 6).double()), TypeError, "h0: expected dtype torch.float32"),
        (
            dict(sizes=torch.ones(2, dtype=torch.int64)),
            ValueError,
            "batch_sizes: expected with .* got Tensor with layout 0",
        ),
        (
            dict(x=torch.zeros(5, 4), layout=2, lengths=torch.ones(1, dtype=torch.int64)),
            ValueError,
            "lengths: expected None, but .*, got Tensor with layout 2",
        ),
        (dict(lengths=torch.ones(2, dtype=torch.int64)), ValueError, "lengths: expected shape"),
        (dict(lengths=torch.ones(3)), TypeError, "lengths: expected dtype torch.int64"),
        (dict(layout=7), ValueError, "layout: expected 0 to 4, got 7"),
        (dict(dropout=1.5), ValueError, "dropout: expected a number from 0 to 1, got 1.5"),
        (dict(dropout=0.5), ValueError, "seed: expected an int64 tensor"),
        (dict(cell="rnn"), ValueError, "cell: expected one of"),
        (dict(weights=[]), ValueError, "weights: expected weight_ih and weight_hh"),
        (dict(layers=2), ValueError, "weights: expected 8, got 4"),
        (dict(x=torch.zeros(3, 4), layout=3, layers=2), ValueError, "layout: 3, a single step, is"),
    ],
)
def test_bad_calls_of_the_operator(change, error, match):
    layer, x = make("GRU")
    with torch.no_grad():
        a = dict(x=x, h=None, sizes=None, lengths=None, layout=0, dropout=0.0)
        a |= dict(cell="gru", layers=1)
        a |= dict(weights=[w.detach() for w in layer.parameters()]) | change
        with pytest.raises(error, match=match):
            torch.ops.fastrnn.recurrent(
                a["x"], a["h"], None, a["sizes"], 0, a["lengths"], a["layout"], a["dropout"], None,
                a["weights"], a["cell"], a["layers"], True, False,
            )  # fmt: skip
