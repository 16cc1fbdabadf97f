"""What the package shows of itself: names, type hints, stated keys."""

import inspect
import pickle
import pydoc
import re
import subprocess
import sys
import typing

import pytest

import fastrnn
from fastrnn import _explain, _info, _latency, _saving, _spec, functional, layers
from support import CELLS, LAYERS


@pytest.mark.parametrize("module", ["convert", "functional", "layers", "losses", "optim"])
def test_a_star_brings_what_the_module_is_for(module):
    found = {}
    exec(f"from fastrnn.{module} import *", found)
    assert found.keys() - {"__builtins__"} == set(getattr(fastrnn, module).__all__)
    assert all(getattr(v, "__module__", "").startswith("fastrnn.") for v in
               (found[name] for name in found if name != "__builtins__"))  # fmt: skip


def test_other_names_are_errors():
    with pytest.raises(AttributeError, match="module 'fastrnn' has no attribute 'tensorflow'"):
        fastrnn.tensorflow  # noqa: B018


def test_torch_comes_when_it_is_asked_for():
    pytest.importorskip("torch")
    code = "import sys, fastrnn; assert 'torch' not in sys.modules; print(fastrnn.torch.LSTM)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "<class 'fastrnn.torch.layers.LSTM'>\n"


def test_a_stream_is_named_as_it_is_imported():
    assert repr(type(fastrnn.GRU(2, 3).stream())) == "<class 'fastrnn.Stream'>"
    assert pickle.loads(pickle.dumps(fastrnn.Stream)) is fastrnn.Stream


def test_every_cell_is_everywhere():
    """what the core computes has an oracle and a class, and each class its names and functions"""
    assert set(_saving._CLASSES) == set(_spec.CELLS) == set(CELLS)
    names = {kind.__name__ for kind in LAYERS}
    assert names == set(layers.__all__) and names <= set(fastrnn.__all__)
    assert set(_latency.CELLS.values()) == set(LAYERS)
    functions = {name.lower() for name in names} | {f"{name.lower()}_forward" for name in names}
    assert functions | {"backward"} == set(functional.__all__)


OPTIMIZERS = (fastrnn.optim.SGD, fastrnn.optim.Adam, fastrnn.optim.AdamW)


@pytest.mark.parametrize("kind", [*LAYERS, fastrnn.Linear, fastrnn.StreamPool, *OPTIMIZERS])
def test_help_lists_every_argument(kind):
    text = pydoc.render_doc(kind, renderer=pydoc.plaintext)
    described = text[: text.index("Method resolution order")]
    arguments = described[described.index("Args:") :]
    for name in inspect.signature(kind).parameters:
        assert re.search(rf"^ \|  {{4,}}(\w+, )*{name}(, \w+)*: ", arguments, re.MULTILINE), name
    assert "TypeError: " in arguments and "ValueError: " in arguments


@pytest.mark.parametrize("kind", [fastrnn.LSTM, fastrnn.Linear, fastrnn.StreamPool,
                                  fastrnn.optim.Adam])  # fmt: skip
def test_hints_of_methods_can_be_read(kind):
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        assert isinstance(typing.get_type_hints(method), dict), name


def test_types_of_explain_and_info():
    """the stated keys are those there are"""
    answer = fastrnn.LSTM(3, 4).explain(2, 2)
    assert list(answer) == list(typing.get_type_hints(fastrnn.Explanation))
    assert list(answer.layers[0]) == list(typing.get_type_hints(_explain.LayerPlan))
    info, hints = fastrnn.info(), typing.get_type_hints(_info.Info)
    assert list(info) == list(hints)
    for name, hint in hints.items():
        assert isinstance(info[name], typing.get_origin(hint) or hint), name
