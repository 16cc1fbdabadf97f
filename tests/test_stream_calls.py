"""How streams and pools are called, and what they say of themselves."""

import ast
import inspect
import pickle
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import _core
from support import DTYPES, KINDS, Net, in_layout, net_of, random

NET = Net("lstm", 5, 7, layers=2)
STUB = Path(fastrnn.__file__).with_name("_core.pyi")


def pool_of(layer, capacity=3):
    pool = fastrnn.StreamPool(layer, capacity)
    return pool, [pool.join() for _ in range(capacity)]


# arguments


X, OUT = random(5), np.zeros(7, np.float32)
WRONG_CALLS = [
    ("step", (), {}, r"step: expected \(x, out=None\), got no argument 'x'"),
    ("step", (), {"out": OUT}, r"step: expected \(x, out=None\), got no argument 'x'"),
    ("step", (X,), {"output": OUT}, r"step: .*, got an unexpected argument 'output'"),
    ("step", (), {"X": X}, r"step: .*, got an unexpected argument 'X'"),
    ("step", (X,), {"x": X}, r"step: .*, got argument 'x' twice"),
    ("step", (X, OUT), {"out": OUT}, r"step: .*, got argument 'out' twice"),
    ("step", (X, OUT, OUT), {}, r"step: expected \(x, out=None\), got 3 arguments"),
    ("step", (X,), {"\udc80": X}, r"step: .*, got an unexpected argument '\\udc80'"),
    ("process", (X[None],), {"output": OUT}, r"process: expected \(block, out=None\), got an unex"),
    ("process", (), {"x": X[None]}, r"process: .*, got an unexpected argument 'x'"),
    ("process", (), {}, r"process: .*, got no argument 'block'"),
    ("reset", (), {"mask": [0]}, r"reset: expected \(rows=None\), got an unexpected argument 'm"),
    ("reset", ([0], [0]), {}, r"reset: expected \(rows=None\), got 2 arguments"),
]


@pytest.mark.parametrize(("method", "given", "named", "message"), WRONG_CALLS)
def test_wrong_calls(method, given, named, message):
    """one line that names the argument, not a dump of arrays; nothing has happened"""
    stream = NET.build().stream()
    with pytest.raises(TypeError, match=f"^{message}[^\n]*$"):
        getattr(stream, method)(*given, **named)
    assert not stream.state[0].any() and not OUT.any()


@pytest.mark.parametrize("method", ["step", "process"])
def test_wrong_calls_of_a_pool(method):
    pool, ids = pool_of(NET.build())
    x = random(3, 5) if method == "step" else random(2, 3, 5)
    for given, named, message in (
        ((), {"ids": ids, "X": x}, "an unexpected argument 'X'"),
        ((ids,), {}, "no argument 'x'"),
        ((), {"x": x}, "no argument 'ids'"),
        ((ids, x, None, None), {}, "4 arguments"),
    ):
        expected = rf"^{method}: expected \(ids, x, out=None\), got "
        with pytest.raises(TypeError, match=expected + f"{message}$"):
            getattr(pool, method)(*given, **named)
    assert not pool.get_state(ids[0])[0].any()


@pytest.mark.parametrize("by_name", [0, 1, 2])
@pytest.mark.parametrize("method", ["step", "process"])
def test_arguments_by_name(method, by_name):
    batch, name = (3, "x") if method == "step" else (1, "block")
    layer, x, out = NET.build(), random(3, 5), np.empty((3, 7), np.float32)
    given = {name: x, "out": out}
    first = list(given.values())[: 2 - by_name]
    rest = dict(reversed(list(given.items())[2 - by_name :]))  # in any order
    assert getattr(layer.stream(batch), method)(*first, **rest) is out
    assert out.tobytes() == getattr(layer.stream(batch), method)(x).tobytes()


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (lambda ids: dict.fromkeys(ids).keys(), "dict_keys"),
        (set, "set"),
        (lambda ids: (i for i in ids), "generator"),
        (lambda ids: map(int, ids), "map"),
    ],
)
def test_collections_that_numpy_does_not_read(form, name):
    pool, ids = pool_of(NET.build())
    with pytest.raises(TypeError, match=rf"^ids: expected .*, got {name}; try list\(ids\)$"):
        pool.step(form(ids), random(3, 5))
    with pytest.raises(TypeError, match=rf"^rows: expected .*, got {name}; try list\(rows\)$"):
        NET.build().stream(3).reset(form([0, 1]))


@pytest.mark.parametrize(
    ("ids", "shown"),
    [(None, "NoneType"), ("a", "str"), (["a"], "list of <U1"), ([0.5], "list of float64"),
     (1.0, "float"), (np.ones(1), "dtype float64"), ([None], "list of object")],
)  # fmt: skip
def test_what_came_instead_of_integers(ids, shown):
    pool, _ = pool_of(NET.build())
    with pytest.raises(TypeError, match=f"^ids: expected integers .*, got {shown}$"):
        pool.step(ids, random(1, 5))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_list_in_place_of_an_array_names_the_dtype(dtype):
    layer = fastrnn.GRU(2, 3, dtype=dtype)
    stream, pool = layer.stream(), fastrnn.StreamPool(layer, 1)
    x, hint = [[1.0, 2.0]], rf"got list; try np\.asarray\({{}}, dtype=np\.{dtype}\)$"
    for name, call in (
        ("x", lambda: stream.step(x)),
        ("block", lambda: stream.process(x)),
        ("x", lambda: pool.step([pool.join()], x)),
        ("x", lambda: layer([x])),
    ):
        with pytest.raises(TypeError, match=f"^{name}: expected an array, " + hint.format(name)):
            call()


@pytest.mark.parametrize("method", ["step", "process"])
def test_what_is_wrong_with_out(method):
    stream, x = NET.build().stream(), random(1, 5)
    start = "^out: expected a C-contiguous aligned array, got one "
    gaps = np.zeros((1, 14), np.float32)[:, ::2]
    with pytest.raises(ValueError, match=start + r"of shape \[1, 7\] with strides of \[56, 8\] b"):
        getattr(stream, method)(x, gaps)
    with pytest.raises(ValueError, match=start + "at an address that is no multiple of its"):
        getattr(stream, method)(x, in_layout(np.zeros((1, 7), np.float32), "misaligned"))
    assert not stream.state[0].any()


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (fastrnn.Stream.step, "(self, /, x, out=None)"),
        (fastrnn.Stream.process, "(self, /, block, out=None)"),
        (fastrnn.Stream.reset, "(self, /, rows=None)"),
        (fastrnn.StreamPool.step, "(self, /, ids, x, out=None)"),
        (fastrnn.StreamPool.process, "(self, /, ids, x, out=None)"),
    ],
)
def test_signatures(method, text):
    assert str(inspect.signature(method)) == text
    layer = NET.build()
    owner = fastrnn.StreamPool(layer, 1) if "ids" in text else layer.stream()
    bound = getattr(owner, method.__name__)
    assert str(inspect.signature(bound)) == text.replace("self, /, ", "")


def test_methods_of_something_else():
    with pytest.raises(TypeError, match="Stream"):
        fastrnn.Stream.step(fastrnn.StreamPool(NET.build(), 1), X)


class Child(_core.Stream, _core.Network):
    """of two C++ classes, which pybind11 lays out otherwise"""

    def __init__(self, network):
        _core.Stream.__init__(self, network)
        _core.Network.__init__(self, *network.config)


def test_streams_of_several_classes():
    stream, x = NET.build().stream(), random(4, 5)
    child = Child(stream._network)
    assert child.process(x).tobytes() == stream.process(x).tobytes()
    assert child.step(x[0]).tobytes() == stream.step(x[0]).tobytes()


# what they say of themselves


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_sizes(kind, dtype):
    net = net_of(kind, 5, 7, layers=2, dtype=dtype)
    layer = net.build()
    stream = pickle.loads(pickle.dumps(layer.stream(3, num_threads=2)))  # without its layer
    for any in (stream, fastrnn.StreamPool(layer, 3, num_threads=2)):
        assert (any.input_size, any.output_size, any.num_layers) == (5, net.width, 2)
        assert any.dtype == np.dtype(dtype) and isinstance(any.dtype, np.dtype)
        assert any.num_threads == 2
        for name in ("input_size", "output_size", "num_layers", "dtype", "num_threads"):
            with pytest.raises(AttributeError):
                setattr(any, name, 1)
    y = stream.step(np.zeros((stream.batch_size, stream.input_size), stream.dtype))
    assert y.shape == (3, stream.output_size) and y.dtype == stream.dtype


def test_repr():
    layer = fastrnn.LSTM(5, 7, num_layers=2, proj_size=3, bias=False, dtype="float64")
    sizes = "lstm(5, 7, num_layers=2, bias=False, proj_size=3) in float64"
    assert repr(layer.stream(4)) == f"<Stream of {sizes}, batch_size=4>"
    assert repr(fastrnn.GRU(1, 2).stream()) == "<Stream of gru(1, 2) in float32, batch_size=1>"
    pool = fastrnn.StreamPool(layer, 3)
    pool.join()
    assert repr(pool) == f"<StreamPool of {sizes}: 1 of 3 streams>"
    for cls in (fastrnn.Stream, fastrnn.StreamPool):
        assert repr(cls.__new__(cls)) == f"<{cls.__name__}, never initialised>"


PUBLIC = {"batch_size", "dtype", "input_size", "num_layers", "num_threads", "output_size",
          "process", "reset", "state", "step"}  # fmt: skip
PUBLIC_OF_POOLS = {"capacity", "dtype", "get_state", "ids", "input_size", "join", "leave",
                   "num_layers", "num_threads", "output_size", "process", "reset", "set_state",
                   "step"}  # fmt: skip


def test_public_names_have_docstrings():
    for cls, names in ((fastrnn.Stream, PUBLIC), (fastrnn.StreamPool, PUBLIC_OF_POOLS)):
        assert {name for name in dir(cls) if not name.startswith("_")} == names
        for name in names:
            assert len(inspect.getdoc(getattr(cls, name))) > 20, name


def docstrings(node):
    """of a class of the stub and its members, where they have one"""
    found = {"": ast.get_docstring(node)}
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and ast.get_docstring(member):
            found[member.name] = ast.get_docstring(member)
    return found


def test_docstrings_of_the_stub():
    """editors read those, help() the compiled ones"""
    classes = {n.name: n for n in ast.parse(STUB.read_text()).body if isinstance(n, ast.ClassDef)}
    stated = docstrings(classes["Stream"])
    assert stated == {n: inspect.getdoc(getattr(_core.Stream, n) if n else _core.Stream)
                      for n in ("", *PUBLIC)}  # fmt: skip
    for name, text in docstrings(classes["StreamPool"]).items():
        if name:
            assert text == inspect.getdoc(getattr(_core.StreamPool, name)), name
    assert {"step", "process"} <= docstrings(classes["StreamPool"]).keys()
