"""The Python in the documents runs as it stands."""

import importlib.resources
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fastrnn
from support import random

ROOT = Path(__file__).resolve().parents[1]


def of_api():
    """what the blocks of docs/api.md are about, block by block"""
    lstm, head = fastrnn.LSTM(3, 5, seed=1), fastrnn.Linear(5, 2, seed=1)
    x, target = random(4, 2, 3), random(4, 2, 5)
    yield dict(lstm=lstm, x=x, state=None, target=target, optimizer=fastrnn.optim.Adam(lstm))

    app = Path("app")
    app.mkdir()
    (app / "__init__.py").touch()
    fastrnn.save(app / "model.safetensors", {"lstm": lstm})
    fastrnn.save("other.safetensors", {"encoder.lstm": lstm})
    yield dict(lstm=lstm, head=head, importlib=importlib, mean=random(3), std=random(3))

    optimizer = fastrnn.optim.Adam([lstm, head])
    optimizer.step([{k: np.ones_like(w) for k, w in m.parameters().items()} for m in (lstm, head)])
    yield dict(lstm=lstm, optimizer=optimizer, json=json)

    # Stand-ins for the layer of Keras, and for torch where it is not installed.
    try:
        import torch
    except ImportError:
        torch = SimpleNamespace(from_numpy=np.asarray, nn=SimpleNamespace(LSTM=fastrnn.LSTM))
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
    """and of docs/streaming.md"""
    lstm = fastrnn.LSTM(3, 5, num_layers=2, seed=1)
    yield dict(lstm=lstm, x=random(3), out=random(5), block=random(4, 3))
    yield dict(lstm=lstm, x=random(2, 3), out=random(2, 5))


@pytest.mark.parametrize(("name", "given"), [("api", of_api), ("streaming", of_streaming)])
def test_every_block_runs(name, given, tmp_path, monkeypatch):
    page = ROOT / "docs" / f"{name}.md"
    if not page.is_file():
        pytest.skip("a test of the source tree")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    text = page.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert blocks
    for block, names in zip(blocks, given(), strict=True):
        line = text.count("\n", 0, block.start()) + 1
        code = compile("\n" * line + block[1], str(page), "exec")  # errors name the page's line
        exec(code, {"fastrnn": fastrnn, "np": np} | names)
