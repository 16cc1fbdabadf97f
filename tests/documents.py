"""The pages whose Python is run by tests, and what they find there."""

import importlib.resources
import json
import re
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fastrnn
from support import random

ROOT = Path(__file__).resolve().parents[1]


# What the blocks of a page are about, block by block: names that they find beside those of the
# blocks above them, or the name of a package that a block cannot do without.


def torch_or_stand_in():
    """where torch is not installed, what a page asks of it"""
    if find_spec("torch"):
        import torch

        return torch
    lstm = type("LSTM", (fastrnn.LSTM,), {"__module__": "torch.nn.modules.rnn"})
    return SimpleNamespace(from_numpy=np.asarray, nn=SimpleNamespace(LSTM=lstm))


def of_readme():
    yield {}
    torch = torch_or_stand_in()
    yield dict(layer=fastrnn.LSTM(3, 5), torch=torch, torch_lstm=torch.nn.LSTM(3, 5))


def of_api():
    lstm, head = fastrnn.LSTM(3, 5, seed=1), fastrnn.Linear(5, 2, seed=1)
    x, target = random(4, 2, 3), random(4, 2, 5)
    yield dict(lstm=lstm, x=x, state=None, target=target, optimizer=fastrnn.optim.Adam(lstm))

    app = Path("app")
    app.mkdir()
    (app / "__init__.py").touch()
    fastrnn.save(app / "model.safetensors", {"lstm": lstm})
    fastrnn.save("other.safetensors", {"encoder.lstm": lstm})
    arrays = {name: random(3) for name in ("gain", "offset", "mean", "std")}
    yield dict(lstm=lstm, head=head, importlib=importlib, **arrays)
    yield {}

    optimizer = fastrnn.optim.Adam([lstm, head])
    optimizer.step([{k: np.ones_like(w) for k, w in m.parameters().items()} for m in (lstm, head)])
    yield dict(lstm=lstm, optimizer=optimizer, json=json)

    torch = torch_or_stand_in()
    yield dict(
        lstm=lstm,
        gru=fastrnn.GRU(3, 5),
        head=head,
        torch=torch,
        torch_lstm=torch.nn.LSTM(3, 5),
        keras_lstm=SimpleNamespace(get_weights=lambda: [random(3, 20), random(5, 20), random(20)]),
        W=random(1, 15, 3),
        R=random(1, 15, 5),
        B=random(1, 30),
        kernel=random(5, 2),
        bias=random(2),
    )


def of_streaming():
    lstm = fastrnn.LSTM(3, 5, num_layers=2, seed=1)
    yield dict(lstm=lstm, x=random(3), out=random(5), block=random(4, 3))
    yield dict(lstm=lstm, x=random(2, 3), out=random(2, 5), blocks=random(4, 2, 3))
    pool, lengths = fastrnn.StreamPool(lstm, 6), (4, 0, 7, 4, 1, 7)
    yield dict(pool=pool, waiting={pool.join(): random(T, 3, seed=T) for T in lengths})
    trained = fastrnn.LSTM(3, 5, num_layers=2, seed=2)
    ids = {str(id): id for id in pool.ids.tolist()}
    yield dict(pool=pool, ids=ids, lstm=trained)


def of_torch():
    torch = pytest.importorskip("torch")
    yield dict(x=torch.randn(2, 5, 64))
    yield dict(lengths=[5, 2])
    yield dict(model=torch.nn.Sequential(torch.nn.LSTM(3, 4)))
    model = fastrnn.torch.GRU(3, 4)
    yield dict(torch=torch, model=model, frames=torch.randn(5, 1, 1, 3), state=None)


def of_howto():
    yield from of_shipping()
    yield from of_halves()
    yield from of_training()
    yield from of_characters()
    yield {}  # of gradients that reach back
    yield {}
    yield {}
    yield {}
    yield {}
    yield {}
    yield of_onnx() if find_spec("onnx") else "onnx"
    yield dict(keras_model=keras_model())


def of_shipping():
    x = random(6, 2, 3)
    if not find_spec("torch"):
        yield "torch"
        parts = {"lstm": fastrnn.LSTM(3, 5), "head": fastrnn.Linear(5, 2)}
        fastrnn.save("model.safetensors", parts)
        yield dict(x=x)
        return
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = torch.nn.LSTM(3, 5, num_layers=2, dropout=0.3)
            self.head = torch.nn.Linear(5, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    yield dict(net=Net(), torch=torch, x=x)
    yield {}


def of_halves():
    yield {}
    if not find_spec("torch"):
        yield "torch"
        return
    import torch

    model = torch.nn.Linear(2, 1, bias=False)
    model.load_state_dict({"weight": torch.tensor([[1.0, 3.14159]])})
    yield dict(torch=torch, model=model)


def of_training():
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 3
    sequences = [random(rng.integers(3, 9), 8, seed=i) + label for i, label in enumerate(labels)]
    yield {}
    yield dict(
        sequences=sequences[:45],
        labels=labels[:45],
        valid_sequences=sequences[45:],
        valid_labels=labels[45:],
    )


def of_characters():
    yield dict(text="how much wood would a woodchuck chuck if a woodchuck could chuck wood? " * 20)
    yield {}
    yield {}
    yield {}


def of_onnx(inputs=("X", "W", "R", "B"), **options):
    """a graph of one LSTM node, which has these inputs and attributes"""
    from onnx import TensorProto, helper, numpy_helper, save

    weights = {"W": random(2, 20, 3), "R": random(2, 20, 5), "B": random(2, 40)}
    given = [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["T", "B", 3])]
    outputs = [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["T", 2, "B", 5])]
    options = dict(hidden_size=5, direction="bidirectional") | options
    node = helper.make_node("LSTM", inputs, ["Y"], **options)
    stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph([node], "graph", given, outputs, stored)
    save(helper.make_model(graph), "model.onnx")
    return {}


def keras_model():
    """the attributes of Keras that the page reads, without Keras"""

    def layer(kind, *weights, **attributes):
        made = type(kind, (), attributes | {"use_bias": True})()
        made.get_weights = lambda: [random(*shape) for shape in weights]
        return made

    functions = {name: SimpleNamespace(__name__=name) for name in ("tanh", "sigmoid")}
    usual = dict(activation=functions["tanh"], recurrent_activation=functions["sigmoid"])
    usual |= dict(go_backwards=False)
    gru = layer("GRU", units=4, return_sequences=True, reset_after=True, **usual)
    twice = [(3, 12), (4, 12), (2, 12)] * 2
    both = layer("Bidirectional", *twice, forward_layer=gru, merge_mode="concat")
    lstm = layer("LSTM", (8, 20), (5, 20), (20,), units=5, return_sequences=False, **usual)
    dense = layer("Dense", (5, 2), (2,))
    return SimpleNamespace(layers=[layer("Masking", mask_value=0.0), both, lstm, dense])


PAGES = {
    "README.md": of_readme,
    "docs/api.md": of_api,
    "docs/howto.md": of_howto,
    "docs/streaming.md": of_streaming,
    "docs/torch.md": of_torch,
}


def compiled(name, folder, monkeypatch):
    """the Python of a page, block by block, which is to run in an empty folder"""
    page = ROOT / name
    if not page.is_file():
        pytest.skip("a test of the source tree")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    text = page.read_text(encoding="utf-8")
    found = []
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, block.start()) + 1
        found.append(compile("\n" * line + block[1], str(page), "exec"))  # errors name the line
    return found


def run(blocks, given, **more):
    """one block after the other; the names that are there then, and the packages that are not"""
    space, missing = {"fastrnn": fastrnn, "np": np} | more, []
    for block, names in zip(blocks, given, strict=True):
        if isinstance(names, str):
            missing.append(names)
        else:
            space.update(names)
            exec(block, space)
    return space, missing
