"""What explain() says: its entries agree with each other, and its text is a table."""

import copy
import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn import _threads
from fastrnn._explain import show


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("steps", "batch", "size"), [(100, 16, 128), (20, 1, 8), (50, 2, 300)])
def test_the_steps_of_all_layers_are_the_whole(steps, batch, size, bidirectional, training):
    layer = fastrnn.GRU(size, size, 3, bidirectional=bidirectional, num_threads=2)
    answer = layer.explain(steps, batch, training)
    total = sum(plan["step_ns"] for plan in answer.layers) * steps * (3 if training else 1)
    assert total / 1e3 == pytest.approx(answer.expected_us)


def test_threads_are_the_layers_or_the_librarys(monkeypatch):
    monkeypatch.setattr(_threads, "default", 1)
    layer, alone = (fastrnn.GRU(128, 128, num_threads=n) for n in (2, None))
    assert [each.explain(100, 64).layers[0]["threads"] for each in (layer, alone)] == [2, 1]


def plan(**entries):
    usual = {"threads": 1, "split": "none", "threads_from": "caller", "why": "one is enough"}
    return usual | {"weights": "float64", "step_ns": 1234.5} | entries


def test_the_text_is_a_table():
    shared = plan(threads=12, split="rows", threads_from="helpers", why="many rows")
    shared |= {"weights": "bfloat16", "step_ns": 1.2e6}
    answer = fastrnn.Explanation({"kernel": "a b", "layers": [plan(), shared, plan()], "flops": 7})
    assert str(answer).split("\n") == [
        "kernel  a b",
        "flops   7",
        "",
        "layer  threads  split  from     weights   us a step",
        "    1        1  none   caller   float64       1.234",
        "    2       12  rows   helpers  bfloat16  1,200.000",
        "    3        1  none   caller   float64       1.234",
        "1, 3: one is enough",
        "2: many rows",
    ]


def test_values_read_well():
    values = {"off": False, "on": True, "none": [], "a few": [1, "b"], "nothing": ()}
    values |= {"large_int": 1234567, "large": -1000.0, "small": 999.4, "tiny": 1.23456e-5}
    assert [line.split("  ")[-1].strip() for line in show(values).split("\n")] == [
        "no", "yes", "none", "1, b", "none", "1,234,567", "-1,000", "999.4", "1.235e-05",
    ]  # fmt: skip
    assert show({}) == "" and show({"large_int": 7}) == "large int  7"


def test_an_answer_is_a_mapping():
    answer = fastrnn.LSTM(3, 4).explain(2, 2)
    assert dict(answer) == {name: getattr(answer, name) for name in answer}
    assert len(answer) == len(list(answer)) and answer["layers"] is answer.layers
    assert repr(answer) == f"Explanation({dict(answer)!r})"
    with pytest.raises(KeyError, match="nonsense"):
        answer["nonsense"]


def test_the_text_of_a_real_one_is_narrow():
    text = str(fastrnn.LSTM(64, 128, 2, num_threads=2).explain(np.int64(100), 16))
    lines = text.split("\n")
    assert max(map(len, lines)) < 120
    start = next(i for i, line in enumerate(lines) if line.startswith("layer"))
    assert [line.split()[0] for line in lines[start + 1 : start + 3]] == ["1", "2"]
    assert lines[start].split()[4:] == ["weights", "us", "a", "step"]
    assert [line.split()[4] for line in lines[start + 1 : start + 3]] == ["float32"] * 2


def test_the_entries_are_among_the_attributes():
    answer = fastrnn.LSTM(3, 4).explain(2, 2)
    assert set(answer) <= set(dir(answer)) and "keys" in dir(answer)
    with pytest.raises(AttributeError, match="^Explanation has no attribute 'nonsense'") as caught:
        _ = answer.nonsense
    assert caught.value.__suppress_context__, "not the lookup's error before it"


def test_copies_and_pickles():
    """made without the constructor, they are asked for attributes before they have entries"""
    answer = fastrnn.LSTM(3, 4).explain(2, 2)
    for twin in (copy.copy(answer), copy.deepcopy(answer), pickle.loads(pickle.dumps(answer))):
        assert type(twin) is type(answer) and twin == answer and str(twin) == str(answer)
