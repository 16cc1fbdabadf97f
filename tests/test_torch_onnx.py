"""Models with layers of fastrnn.torch exported to ONNX, and run there."""

import io

import pytest

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fastrnn.torch
from torch_support import CELLS, LAYERS, NAMES, leaves, numbers, twins

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, of what it exports and how
OPTIONS = (dict(num_layers=2, bidirectional=True), dict(bias=False, batch_first=True))


@pytest.fixture(params=[False, True], ids=["dynamo=False", "dynamo=True"])
def dynamo(request):
    if request.param:
        pytest.importorskip("onnxscript")
    return request.param


def exported(model, inputs, dynamo):
    """The model as ONNX Runtime computes it"""
    file = io.BytesIO()
    if dynamo:
        torch.onnx.export(model, inputs, dynamo=True, verbose=False).save(file)
    else:
        torch.onnx.export(model, inputs, file, dynamo=False)
    session = onnxruntime.InferenceSession(file.getvalue())
    names = [wanted.name for wanted in session.get_inputs()]

    def run(*inputs):
        given = dict(zip(names, [t.numpy() for t in leaves(inputs)], strict=True))
        return [torch.from_numpy(result) for result in session.run(None, given)]

    return run


def check(model, inputs, dynamo):
    model.eval()
    with torch.no_grad():
        before = leaves(model(*inputs))
        found = exported(model, inputs, dynamo)(*inputs)
        after = leaves(model(*inputs))
    torch.testing.assert_close(found, before, rtol=1e-5, atol=1e-5)
    assert all(map(torch.equal, before, after))  # ours again


class Model(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.first, self.inner, self.last = torch.nn.Linear(4, 4), inner, torch.nn.Linear(6, 2)

    def forward(self, x, *state):
        result = self.inner(self.first(x), *state)
        if isinstance(self.inner, torch.nn.RNNCellBase):
            return self.last(leaves(result)[0]), result
        return self.last(result[0]), result[1]


def inputs_of(name, state):
    x, h = (numbers(3, 4), numbers(3, 6)) if name in CELLS else (numbers(5, 3, 4), numbers(1, 3, 6))
    return (x, (h, h / 2) if "LSTM" in name else h) if state else (x,)


@pytest.mark.parametrize("name", LAYERS)
def test_the_way_out_of_a_layer_without_torch(name):
    """as docs/api.md has it: any T and B"""
    layer = getattr(fastrnn, name)(4, 6, num_layers=2, dropout=0.5, seed=1).eval()
    theirs, file = getattr(torch.nn, name)(4, 6, num_layers=2, dropout=0.5), io.BytesIO()
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in layer.state_dict().items()})
    options = dict(dynamo=False, input_names=["x"], dynamic_axes={"x": [0, 1]})
    torch.onnx.export(theirs.eval(), (numbers(5, 3, 4),), file, **options)
    session = onnxruntime.InferenceSession(file.getvalue())
    for shape in ((5, 3, 4), (9, 2, 4), (1, 1, 4)):
        x = numbers(*shape).numpy()
        found = session.run(None, {"x": x})[0]
        torch.testing.assert_close(found, layer(x)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer(name, options, dynamo):
    _, ours = twins(name, 4, 6, **options)
    check(ours, (numbers(5, 3, 4),), dynamo)


@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_an_accelerated_model(name, state, dynamo):
    model = Model(getattr(torch.nn, name)(4, 6))
    assert len(fastrnn.torch.accelerate(model).replaced) == 1
    check(model, inputs_of(name, state), dynamo)


@pytest.mark.parametrize("name", CELLS)
def test_a_cell(name, dynamo):
    _, ours = twins(name, 4, 6)
    check(ours, inputs_of(name, False), dynamo)


def test_in_training_mode(dynamo):
    """the seed of our dropout is no part of it"""
    model = fastrnn.torch.GRU(4, 6, 2, dropout=0.5)
    x = numbers(5, 3, 4)
    state = torch.get_rng_state()
    run = exported(model, (x,), dynamo)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        torch.testing.assert_close(run(x), leaves(model.eval()(x)), rtol=1e-5, atol=1e-5)


def test_packed(dynamo):
    class Packed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = fastrnn.torch.LSTM(4, 6)

        def forward(self, x, lengths):
            y, state = self.layer(pack_padded_sequence(x, lengths))
            return pad_packed_sequence(y)[0], state

    model, inputs = Packed(), (numbers(5, 3, 4), torch.tensor([5, 3, 2]))
    if not dynamo:
        check(model, inputs, dynamo)
        return
    with pytest.raises(Exception, match="got a PackedSequence, for which .* need dynamo=False"):
        exported(model, inputs, dynamo)


@pytest.mark.parametrize("top", [False, True])
def test_lengths_are_refused(top, dynamo):
    class Ragged(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = fastrnn.torch.LSTM(4, 6)

        def forward(self, x, lengths):
            return self.layer(x, lengths=lengths)

    x, lengths = numbers(5, 3, 4), torch.tensor([5, 3, 2])
    layer = fastrnn.torch.GRU(4, 6)
    model, given = (layer, (x, None, {"lengths": lengths})) if top else (Ragged(), (x, lengths))
    with pytest.raises(Exception, match="lengths: expected None in an export to ONNX"):
        exported(model, given, dynamo)


def test_what_was_recorded_before():
    pytest.importorskip("onnxscript")
    program = torch.export.export(fastrnn.torch.LSTM(4, 6), (numbers(5, 3, 4),))
    with pytest.raises(Exception, match="expected a module, got what torch.export"):
        torch.onnx.export(program, verbose=False)
