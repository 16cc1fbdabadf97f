"""accelerate() changes what computes and nothing else; restore() undoes it."""

import abc
import copy
import importlib.util
import io
import pickle

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.nn.modules.rnn import RNNBase, RNNCellBase

import fastrnn.torch as ours
from torch_models import MODELS, Chain, First, assert_near, tensor_of
from torch_support import NAMES

pytestmark = pytest.mark.usefixtures("one_thread_of_torch")


@pytest.mark.parametrize("name", NAMES)
def test_the_same_object_parameters_and_names(name):
    module = getattr(nn, name)(3, 5)
    before, parameters = dict(vars(module)), list(module.named_parameters())
    state = list(module.state_dict())
    report = ours.accelerate(module)
    assert type(module) is getattr(ours, name)
    assert isinstance(module, RNNCellBase if "Cell" in name else RNNBase)
    assert [e.path for e in report.replaced] == [""] and "(the model)" in repr(report)
    after = list(module.named_parameters())
    assert [(n, id(p)) for n, p in after] == [(n, id(p)) for n, p in parameters]
    assert list(module.state_dict()) == state
    module(torch.randn(4, 3))
    ours.restore(module)
    assert type(module) is getattr(nn, name)
    assert vars(module).keys() == before.keys()


@pytest.mark.parametrize("model", MODELS)
def test_restored_is_bit_for_bit_what_it_was(model):
    plain = model()
    x = torch.randn(*model.example)
    plain.eval()
    wanted = tensor_of(plain(x))
    ours.accelerate(plain)
    plain(x)
    report = ours.restore(plain)
    assert report.replaced and not report.left
    assert torch.equal(tensor_of(plain(x)), wanted)
    assert not any(type(m).__module__.startswith("fastrnn") for m in plain.modules())


@pytest.mark.parametrize("name", NAMES)
def test_libraries_can_derive_from_the_class_of_a_module(name):
    """as from torch's: higher adds a base of its own, Pyro a metaclass"""

    class Patch(abc.ABC):  # noqa: B024
        pass

    class Meta(type):
        pass

    cls = getattr(ours, name)
    for derived in (abc.ABCMeta("Patched", (cls, Patch), {}), Meta("Derived", (cls,), {})):
        assert tensor_of(derived(3, 4)(torch.randn(2, 3))).shape == (2, 4)


@pytest.mark.parametrize("name", ours.__all__)
def test_no_file_has_the_name_of_what_it_holds(name):
    """`import fastrnn.torch.accelerate as a` gave the function"""
    assert importlib.util.find_spec(f"fastrnn.torch.{name}") is None


def test_twice_is_once():
    model = Chain()
    first = ours.accelerate(model)
    second = ours.accelerate(model)
    assert [e.path for e in first.replaced] == ["0", "3"] and not second.replaced
    assert {e.reason for e in second.left} == {
        "is fastrnn.torch.RNN already",
        "is fastrnn.torch.LSTM already",
    }
    assert len(ours.restore(model).replaced) == 2
    assert not ours.restore(model).replaced and not ours.restore(model).left


def test_layers_made_as_ours_stay_ours():
    model = nn.Sequential(ours.GRU(3, 4), First(), nn.GRU(4, 4))
    ours.accelerate(model)
    report = ours.restore(model)
    assert [e.path for e in report.replaced] == ["2"] and [e.path for e in report.left] == ["0"]
    assert type(model[0]) is ours.GRU and type(model[2]) is nn.GRU


@pytest.mark.parametrize("name", NAMES)
def test_layers_made_as_ours_can_become_torchs(name):
    model, x = nn.Sequential(getattr(ours, name)(3, 4), First()), torch.randn(5, 3)
    wanted, parameters = model(x), list(map(id, model.parameters()))
    with pytest.raises(TypeError, match="^made: expected True or False, got 'yes'"):
        ours.restore(model, made="yes")
    report = ours.restore(model, made=True)
    assert [e.path for e in report.replaced] == ["0"] and not report.left
    assert type(model[0]) is getattr(nn, name)
    assert vars(model[0]).keys() == vars(getattr(nn, name)(3, 4)).keys()
    assert list(map(id, model.parameters())) == parameters
    assert_near(model(x), wanted, 1e-6)
    assert not ours.restore(model, made=True).replaced
    ours.accelerate(model)
    assert torch.equal(model(x), wanted)


@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_forward_that_was_wrapped_since_keeps_what_it_calls(name, made):
    """profilers wrap so; torch's class has not what our forward needs"""
    module, x = getattr(nn, name)(3, 4), torch.randn(5, 3)
    ours.accelerate(module)
    wanted, inner = tensor_of(module(x)), module.forward
    module.forward = lambda *args: inner(*args)
    report = ours.restore(module, made=made)
    assert not report.replaced and "its forward was replaced" in report.left[0].reason
    assert torch.equal(tensor_of(module(x)), wanted)
    del module.forward
    assert len(ours.restore(module).replaced) == 1 and type(module) is getattr(nn, name)


def test_subclasses_of_ours_are_named():
    """who asks for torch's own layers learns what is left"""

    class Own(ours.GRU):
        pass

    report = ours.restore(nn.Sequential(Own(3, 4)), made=True)
    cls = f"{__name__}.test_subclasses_of_ours_are_named.<locals>.Own"
    assert not report.replaced and [(e.path, e.cls, e.reason) for e in report.left] == [
        ("0", cls, "a subclass: torch has no class for it")
    ]


def test_shared_modules_and_tied_weights():
    model = nn.ModuleDict({"a": nn.GRUCell(4, 4), "b": nn.GRUCell(4, 4)})
    model["c"] = model["a"]
    model["b"].weight_hh = model["a"].weight_hh
    alias = [model["a"]]
    report = ours.accelerate(model)
    assert [(e.path, e.also) for e in report.replaced] == [("a", ("c",)), ("b", ())]
    assert model["c"] is model["a"] is alias[0] and type(alias[0]) is ours.GRUCell
    assert model["b"].weight_hh is model["a"].weight_hh
    assert "a, c" in repr(report)
    x = torch.randn(2, 4)
    wanted = nn.GRUCell(4, 4)
    wanted.load_state_dict(model["b"].state_dict())
    model["b"](x)
    with torch.no_grad():
        for cell in (wanted, model["a"]):  # through the other one's name
            cell.weight_hh.mul_(0.5)
    assert_near(model["b"](x), wanted(x), 1e-6)


def test_hooks_keep_firing():
    model, seen = nn.LSTM(3, 4), []
    model.register_forward_pre_hook(lambda m, args: seen.append("pre"))
    model.register_forward_hook(lambda m, args, out: seen.append("forward"))
    model.register_full_backward_hook(lambda m, gi, go: seen.append("backward"))
    model.register_state_dict_post_hook(lambda m, state, prefix, meta: seen.append("state"))
    model.weight_hh_l0.register_hook(lambda g: seen.append("weight"))
    ours.accelerate(model)
    model(torch.randn(5, 2, 3, requires_grad=True))[0].sum().backward()
    model.state_dict()
    assert sorted(seen) == ["backward", "forward", "pre", "state", "weight"]


def test_copies_and_pickles_can_be_restored():
    model, x = Chain(), torch.randn(9, 6, 3)
    plain = model(x)
    ours.accelerate(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    with torch.no_grad():
        wanted = model(x)
    copies = (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    )
    for twin in copies:
        assert type(twin[3]) is ours.LSTM and twin[3].weight_hh_l0 is not model[3].weight_hh_l0
        assert torch.equal(twin(x), wanted)
        assert len(ours.restore(twin).replaced) == 2
        assert type(twin[3]) is nn.LSTM and torch.equal(twin(x), plain)
    assert type(model[3]) is ours.LSTM


@torch.no_grad()
def test_a_compiled_model_can_be_accelerated():
    model, x = Chain(), torch.randn(9, 6, 3)
    wanted = model(x)
    compiled = torch.compile(model, backend="eager")
    assert_near(compiled(x), wanted, 1e-6)
    assert [e.path for e in ours.accelerate(compiled).replaced] == ["_orig_mod.0", "_orig_mod.3"]
    assert torch.equal(compiled(x), model(x))
    whole = torch.compile(model, backend="eager", fullgraph=True)  # torch's own would break it
    assert torch.equal(whole(x), model(x))
