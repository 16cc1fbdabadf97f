"""What accelerate() leaves alone, and the reason it gives; what its report looks like."""

import copy

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.nn.utils import parametrize

import fastrnn.torch as ours
from torch_models import Output, normed, tensor_of
from torch_support import NAMES

AGING = pytest.mark.filterwarnings(  # torch's own words about its quantization and TorchScript
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:torch.quantize_per_tensor"
)


class Peephole(nn.LSTM):
    """a subclass may compute anything"""


class LSTMHead(nn.Linear):
    """whose name begins as a recurrent layer's does"""


class OfOurs(ours.LSTM):
    """what it calls of ours computes with fastrnn before accelerate() sees it"""


class CellOfOurs(ours.GRUCell):
    """our cells are subclasses of torch's, too"""


def with_own_forward():
    module = nn.GRU(3, 4)
    module.forward = lambda *args: "own"
    return module


def with_a_tensor_subclass():
    class Tracked(torch.Tensor):
        pass

    module = nn.GRUCell(3, 4)
    module.weight_ih = nn.Parameter(torch.randn(12, 3).as_subclass(Tracked))
    return module


def with_mixed_dtypes():
    module = nn.GRUCell(3, 4)
    module.bias_ih = nn.Parameter(module.bias_ih.double())
    return module


def with_a_sparse_weight():
    module = nn.GRUCell(3, 4)
    module.weight_ih = nn.Parameter(module.weight_ih.detach().to_sparse())
    return module


def without_a_bias():
    module = nn.GRUCell(3, 4)
    module.register_parameter("bias_hh", None)
    return module


def with_a_parametrization_on_meta():
    module = normed(nn.GRU(3, 4))
    original = nn.Parameter(torch.empty(12, 4, device="meta"))
    module.parametrizations.weight_hh_l0.original1 = original
    return module


def with_a_parametrized_buffer():
    module = nn.GRU(3, 4)
    weight = module.weight_hh_l0.detach()
    del module.weight_hh_l0
    module.register_buffer("weight_hh_l0", weight)
    parametrize.register_parametrization(module, "weight_hh_l0", nn.Identity())
    module.parametrizations.weight_hh_l0.original = weight.bfloat16()
    return module


def without_a_weight():
    module = nn.LSTM(3, 4)
    del module.weight_hh_l0
    return module


OF_OURS = "a subclass of fastrnn.torch.{}, which computes with fastrnn already"
LEFT = {
    "subclass": (lambda: Peephole(3, 4), "a subclass"),
    "parametrized subclass": (lambda: normed(Peephole(3, 4)), "a subclass"),
    "subclass of ours": (lambda: OfOurs(3, 4), OF_OURS.format("LSTM")),
    "subclass of our cell": (lambda: CellOfOurs(3, 4), OF_OURS.format("GRUCell")),
    "forward": (with_own_forward, "forward was replaced"),
    "meta": (lambda: nn.LSTM(3, 4, device="meta"), "weight_ih_l0 is on meta"),
    "bfloat16": (lambda: nn.GRU(3, 4, dtype=torch.bfloat16), "weight_ih_l0 is torch.bfloat16"),
    "half": (lambda: nn.GRUCell(3, 4).half(), "weight_ih is torch.float16"),
    "mixed": (
        with_mixed_dtypes,
        "dtypes differ: bias_hh is torch.float32, bias_ih is torch.float64",
    ),
    "tensor subclass": (with_a_tensor_subclass, "weight_ih is a Tracked"),
    "None": (without_a_bias, "bias_hh is None"),
    "deleted": (without_a_weight, "weight_hh_l0 is None"),
    "original": (with_a_parametrization_on_meta, "weight_hh_l0.original1 is on meta"),
    "buffer": (with_a_parametrized_buffer, "weight_hh_l0.original is torch.bfloat16"),
    "sparse": (with_a_sparse_weight, "torch.sparse_coo"),
}


@pytest.mark.parametrize("case", LEFT)
def test_left_with_its_reason(case):
    make, reason = LEFT[case]
    model = nn.Sequential(nn.LSTM(2, 2), make())
    kind, content = type(model[1]), dict(vars(model[1]))
    report = ours.accelerate(model)
    assert [e.path for e in report.replaced] == ["0"]
    (entry,) = report.left
    assert entry.path == "1" and reason in entry.reason, report
    assert reason in repr(report)
    assert type(model[1]) is kind and vars(model[1]) == content
    assert [e.path for e in ours.restore(model).replaced] == ["0"]


@pytest.mark.parametrize("cls", [nn.LSTM, nn.RNNCell])
def test_tensors_beside_the_weights_do_not_matter(cls):
    module, x = cls(3, 4), torch.randn(2, 3)
    module.steps_seen, module.last = torch.tensor(0), x.bfloat16()
    module.register_buffer("mean", torch.zeros(3, device="meta"))
    module.register_parameter("scale", nn.Parameter(torch.ones(1).half()))
    module.head = nn.Linear(4, 2).double()
    assert len(ours.accelerate(normed(module, next(iter(module._parameters)))).replaced) == 1
    module(x)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("bias", ["bias_ih", "bias_hh"])
def test_a_bias_that_goes_later_is_torchs_matter(name, bias):
    """its cells compute without one, its layers refuse"""
    module, x, results = getattr(nn, name)(3, 4), torch.randn(2, 3), []
    accelerated = copy.deepcopy(module)
    ours.accelerate(accelerated)
    for m in (module, accelerated):
        setattr(m, bias + ("" if "Cell" in name else "_l0"), None)
        try:
            results.append(tensor_of(m(x)))
        except TypeError as error:
            results.append(str(error))
    if "Cell" in name:
        assert torch.equal(*results)
    else:
        assert results[0] == results[1] and isinstance(results[0], str)


def test_a_forward_replaced_in_the_class(monkeypatch):
    monkeypatch.setattr(nn.GRU, "forward", lambda self, x: x)
    assert "forward was replaced" in ours.accelerate(nn.GRU(2, 3)).left[0].reason


@AGING
def test_quantized_and_scripted_ones_are_left():
    plain = nn.ModuleDict(
        {"lstm": nn.LSTM(3, 4), "cell": nn.GRUCell(3, 4), "head": nn.Linear(4, 2)}
    )
    quantized = torch.ao.quantization.quantize_dynamic(plain, {nn.LSTM, nn.GRUCell})
    report = ours.accelerate(quantized)
    assert not report.replaced and {e.reason for e in report.left} == {"quantized"}
    assert [e.path for e in report.left] == ["lstm", "cell"]
    scripted = torch.jit.script(nn.Sequential(nn.LSTM(3, 4), Output(), LSTMHead(4, 2)))
    (entry,) = ours.accelerate(scripted).left
    assert entry.path == "0" and entry.cls == "scripted LSTM" and "TorchScript" in entry.reason


@AGING
def test_restored_models_can_be_scripted_and_quantized():
    model, x = nn.Sequential(nn.LSTM(3, 4), Output()), torch.randn(5, 2, 3)
    wanted = model(x)
    ours.accelerate(model)
    ours.restore(model)
    assert torch.equal(torch.jit.script(model)(x), wanted)
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.LSTM})
    assert type(quantized[0]).__module__.startswith("torch.ao")


@AGING
@pytest.mark.parametrize("name", NAMES)
def test_scripting_says_what_to_do(name):
    model = nn.Sequential(getattr(nn, name)(3, 4), Output())
    ours.accelerate(model)
    for part in (model, model[0]):
        with pytest.raises(RuntimeError, match=rf"got fastrnn\.torch\.{name}; call .*restore\("):
            torch.jit.script(part)
    assert type(model[0]) is getattr(ours, name)


class WithState(nn.Module):
    """a layer or cell that is given its state"""

    def __init__(self, name):
        super().__init__()
        self.is_lstm = "LSTM" in name
        self.inner = getattr(nn, name)(3, 4)

    def forward(self, x, h):
        return self.inner(2 * x, (h, h) if self.is_lstm else h)


@pytest.mark.parametrize("name", NAMES)
def test_fx_records_a_layer_as_torchs_own(name):
    """torch.fx.symbolic_trace looks into all modules but torch's"""
    x, h = torch.randn(2, 3), torch.randn(2 if "Cell" in name else 1, 4)
    for plain, given in (
        (nn.Sequential(nn.Linear(3, 3), getattr(nn, name)(3, 4)), (x,)),
        (WithState(name), (x, h)),
    ):
        model = copy.deepcopy(plain)
        ours.accelerate(model)
        recorded = torch.fx.symbolic_trace(model)
        assert str(recorded.graph) == str(torch.fx.symbolic_trace(plain).graph)
        assert torch.equal(tensor_of(recorded(*given)), tensor_of(model(*given)))


class Started(nn.Module):
    """calls a cell or layer with a tensor of its own, and a state that is recorded"""

    def __init__(self, name):
        super().__init__()
        self.inner = getattr(nn, name)(3, 4)
        self.start = torch.randn(2, 3) if "Cell" in name else torch.randn(1, 2, 3)

    def forward(self, h):
        return self.inner(self.start, (h, h) if "LSTM" in str(type(self.inner)) else h)


@pytest.mark.parametrize("name", NAMES)
def test_fx_records_a_call_of_which_the_state_alone_is_recorded(name):
    plain, h = Started(name), torch.randn(2, 4) if "Cell" in name else torch.randn(1, 2, 4)
    model = copy.deepcopy(plain)
    ours.accelerate(model)
    recorded = torch.fx.symbolic_trace(model)
    assert str(recorded.graph) == str(torch.fx.symbolic_trace(plain).graph)
    assert torch.equal(tensor_of(recorded(h)), tensor_of(model(h)))


@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("name", ["GRU", "GRUCell"])
def test_fx_refuses_hooks(name, kind):
    """it records them, and would run them again with the module"""
    model = nn.Sequential(getattr(nn, name)(3, 4))
    getattr(model[0], kind)(lambda module, *given: None)
    ours.accelerate(model)
    with pytest.raises(RuntimeError, match=r"^torch.fx: expected modules without .* got 0, a "):
        torch.fx.symbolic_trace(model)
    ours.restore(model)
    torch.fx.symbolic_trace(model)


@pytest.mark.parametrize("name", NAMES)
def test_fx_of_a_layer_alone_is_torchs_error(name):
    module = getattr(nn, name)(3, 4)
    ours.accelerate(module)
    others = ("hx",) if "Cell" in name else ("hx", "lengths")
    with pytest.raises(torch.fx.proxy.TraceError):
        torch.fx.Tracer().trace(module, dict.fromkeys(others))


@pytest.mark.parametrize("function", [ours.accelerate, ours.restore])
@pytest.mark.parametrize("model", [None, [nn.LSTM(2, 2)], nn.LSTM])
def test_not_a_module(function, model):
    with pytest.raises(TypeError, match="model: expected a torch.nn.Module, got "):
        function(model)


def test_a_model_without_recurrent_layers():
    report = ours.accelerate(nn.Sequential(nn.Linear(2, 2)))
    assert repr(report) == "accelerate: 0 replaced, 0 left"


def test_a_report_has_a_line_for_each_module():
    model = nn.ModuleDict(
        {"encoder": nn.GRU(2, 2), "odd": Peephole(2, 2), "other": nn.Linear(2, 2)}
    )
    model["again"] = Peephole(2, 2)
    odd = "test_torch_accelerate_left.Peephole"
    assert repr(ours.accelerate(model)).splitlines() == [
        "accelerate: 1 replaced, 2 left",
        f"  replaced  encoder  {'torch.nn.GRU':{len(odd)}}  now fastrnn.torch.GRU",
        f"  left      odd      {odd}  a subclass: it may compute something else",
        f"  left      again    {odd}  a subclass: it may compute something else",
    ]
    assert repr(ours.restore(model)).splitlines() == [
        "restore: 1 replaced, 0 left",
        "  replaced  encoder  fastrnn.torch.GRU  now torch.nn.GRU",
    ]
