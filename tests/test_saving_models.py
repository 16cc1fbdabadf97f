"""Whole models in one file: modules, dicts of arrays among them, and entries of the caller's."""

import io
import time

import numpy as np
import pytest

import fastrnn
from fastrnn import _safetensors_writer, _saving
from support import assert_same_bits, random
from weight_files import assemble, entry, header_of

GRU, HEAD = fastrnn.GRU(3, 4, num_layers=2, seed=0), fastrnn.Linear(4, 2, dtype=np.float64, seed=1)
NORM = {"weight": random(4), "bias": random(4, dtype=np.float64)}
FORMAT = {"format": "fastrnn", "format_version": "1"}


def assert_same_model(found, wanted):
    assert list(found) == list(wanted)
    for name, part in wanted.items():
        if isinstance(part, dict):
            assert type(found[name]) is dict
            assert_same_bits(found[name], part)
        else:
            assert repr(found[name]) == repr(part)
            assert_same_bits(found[name].state_dict(), part.state_dict())


def test_arrays_among_modules(reader, tmp_path):
    model = {"gru": GRU, "norm": NORM, "head": HEAD}
    about = {"sample_rate": "16000", "gru.note": "ä", "org.example.version": "", ".x": "y"}
    fastrnn.save(tmp_path / "f", model, about)
    again = fastrnn.load(tmp_path / "f")
    assert_same_model(again, model)
    again["norm"]["weight"] *= 2  # arrays of one's own
    assert fastrnn.load_metadata(tmp_path / "f").items() > about.items()
    assert_same_bits(fastrnn.load_tensors(tmp_path / "f", "norm."), NORM)
    assert header_of(tmp_path / "f")["__metadata__"]["norm.cell"] == "arrays"
    assert_same_model(fastrnn.load((tmp_path / "f").read_bytes()), model)


def test_arrays_of_any_form(reader, tmp_path):
    odd = {
        "": random(1), "a.b": random(2), ".": random(2), "scalar": np.array(3.0),
        "none": np.zeros((0, 3), np.float32), "strided": random(4, 6)[::2, 1:4],
        "bits": np.array([0x7FC12345, 0x80000000, 1], np.uint32).view(np.float32),
    }  # fmt: skip
    model = {"odd": odd, "empty": {}, "odd.x": {"a": random(3)}, "oddly": {"a": random(3)}}
    fastrnn.save(tmp_path / "f", model)
    assert_same_model(fastrnn.load(tmp_path / "f"), model)
    fastrnn.save(tmp_path / "f", {"empty": {}})
    assert fastrnn.load(tmp_path / "f") == {"empty": {}}


def test_names_within_names(reader, tmp_path):
    """a tensor is of the longest name before it"""
    model = {
        "encoder": {"gate": random(2), "gru2.x": random(2)},
        "encoder.gru": GRU,
        "encoder.norm": NORM,
        "encoder.norm.inner": {"weight": random(3), "deeper.weight": random(3)},
    }
    for order in (model, dict(reversed(model.items()))):
        fastrnn.save(tmp_path / "f", order)
        assert_same_model(fastrnn.load(tmp_path / "f"), order)


@pytest.mark.parametrize(
    ("key", "other", "inside"),
    [
        ("gru.weight_ih_l0", "a.gru", GRU),
        ("gru.own", "a.gru", GRU),
        ("n.x", "a.n", {"y": random(1)}),
        ("n.x", "a.n", {}),
        (".x", "a.", {"y": random(1)}),
        ("n.", "a.n", {"": random(1)}),
    ],
)
def test_names_that_would_be_taken_for_others(key, other, inside, tmp_path):
    arrays = {"fine": random(1), key: random(2)}
    for model in ({"a": arrays, other: inside}, {other: inside, "a": arrays}):
        with pytest.raises(ValueError) as caught:
            fastrnn.save(tmp_path / "f", model)
        assert str(caught.value) == (
            f"modules['a']: expected names apart from those of {other!r}, got {key!r}"
        )
    assert not list(tmp_path.iterdir())


def test_halves_become_float32(reader, tmp_path):
    half = {"weight": random(3, 5).astype(np.float16), "bias": random(3)}
    fastrnn.save(tmp_path / "f", {"a": half})
    assert header_of(tmp_path / "f")["a.weight"]["dtype"] == "F16"
    again = fastrnn.load(tmp_path / "f")["a"]
    assert_same_bits(again, {"bias": half["bias"], "weight": half["weight"].astype(np.float32)})


def test_what_an_optimizer_trains(tmp_path):
    """its modules as they are"""
    own = {"table": random(3, 2)}
    optimizer = fastrnn.optim.SGD([own, GRU])
    fastrnn.save(tmp_path / "f", dict(zip(("own", "gru"), optimizer.modules, strict=True)))
    assert_same_model(fastrnn.load(tmp_path / "f"), {"own": own, "gru": GRU})


def test_a_module_alone(reader, tmp_path):
    fastrnn.save(tmp_path / "f", HEAD, {"note": "n", "a.b": "c"})
    again = fastrnn.load(tmp_path / "f")
    assert repr(again) == repr(HEAD)
    assert_same_bits(again.state_dict(), HEAD.state_dict())
    assert fastrnn.load_metadata(tmp_path / "f")["note"] == "n"
    fastrnn.save(tmp_path / "f", HEAD)
    HEAD.save(tmp_path / "g")
    assert (tmp_path / "f").read_bytes() == (tmp_path / "g").read_bytes()


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ({"a": {"b": [1.0]}}, TypeError, r"modules\['a'\]\['b'\]: expected an array, got list"),
        ({"a": {"b": np.ones(2, int)}}, TypeError, r"modules\['a'\]\['b'\]: .*, got int64"),
        ({"a": {"b": GRU}}, TypeError, r"modules\['a'\]\['b'\]: .*got GRU; a model is flat"),
        ({"a": {"b": {"c": random(1)}}}, TypeError, r"modules\['a'\]\['b'\]: .*got dict; a model"),
        ({"a": {1: random(1)}}, TypeError, r"modules\['a'\]: expected names of text, got 1"),
        ({"a": {"\ud800": random(1)}}, ValueError, r"modules\['a'\]: expected names of text, got"),
        ({"a": {"__metadata__": random(1)}}, ValueError, r"modules\['a'\]: expected another name"),
        ({"a": random(1)}, TypeError, "modules: .*'a': ndarray; arrays stand in a dict$"),
        ({"a": None}, TypeError, "modules: .* got 'a': NoneType$"),
        ({"": NORM}, ValueError, "modules: expected names that are not empty"),
    ],
)
def test_wrong_models(model, error, message, tmp_path):
    with pytest.raises(error, match=f"^{message}"):
        fastrnn.save(tmp_path / "f", {"gru": GRU} | model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        ([], TypeError, "metadata: expected a dict of strings, got list"),
        ({"a": 1}, TypeError, "metadata: expected strings by name, got 'a': 1"),
        ({"a": "\ud800"}, ValueError, "metadata: expected strings of text"),
        ({"format": "pt"}, ValueError, "metadata: expected a key that .* got 'format'"),
        ({"format_version": "2"}, ValueError, "metadata: expected a key that .* got 'format_ver"),
        ({"cell": "x"}, ValueError, "metadata: expected a key that .* got 'cell'"),
        ({"other.cell": "x"}, ValueError, "metadata: expected a key that .* got 'other.cell'"),
        ({".cell": "x"}, ValueError, r"metadata: expected a key that .* got '\.cell'"),
        ({"gru.bias": "x"}, ValueError, "metadata: expected a key that .* got 'gru.bias'"),
    ],
)
def test_entries_are_checked(metadata, error, message, tmp_path):
    with pytest.raises(error, match=f"^{message}"):
        fastrnn.save(tmp_path / "f", {"gru": GRU}, metadata)
    with pytest.raises(ValueError, match="^metadata: expected a key that .* got 'hidden_size'"):
        fastrnn.save(tmp_path / "f", GRU, {"hidden_size": "x"})
    assert not list(tmp_path.iterdir())


def test_each_tensor_has_an_owner(reader):
    """in a file of other hands, too"""

    def load(metadata, *names):
        entries = {n: entry(offsets=(8 * k, 8 * k + 8)) for k, n in enumerate(names)}
        header = {"__metadata__": FORMAT | metadata} | entries
        return fastrnn.load(assemble(header, bytes(8 * len(names))))

    arrays = {"a.cell": "arrays"}
    assert list(load(arrays, "a.x", "a.y.z", "a.")["a"]) == ["x", "y.z", ""]
    assert load(arrays | {"note": "", "b.bias": "x"}) == {"a": {}}
    for stray in ("ab.x", "x", "b.a.x", ""):
        with pytest.raises(ValueError, match=f"'{stray}': expected a tensor of a module"):
            load(arrays, "a.x", stray)
    for metadata, message in (
        ({"cell": "arrays"}, "cell: expected one of .* 'linear', got 'arrays'"),
        ({"a.cell": "Arrays"}, "a: .*|cell: expected one of .* 'arrays', got 'Arrays'"),
        (arrays | {"cell": "arrays"}, "one module without a name, or several"),
        ({".cell": "arrays"}, "expected at least one module in the metadata, got no 'cell'"),
        ({"a.bias": "true"}, "expected at least one module in the metadata, got no 'cell'"),
    ):
        with pytest.raises(ValueError, match=message):
            load(metadata, "a.x")


def test_arrays_of_other_dtypes(reader):
    header = {"__metadata__": FORMAT | {"a.cell": "arrays"}, "a.x": entry("I32")}
    with pytest.raises(ValueError, match="'a.x': expected dtype F32, F64, F16, BF16, got I32"):
        fastrnn.load(assemble(header, bytes(8)))


def test_names_made_to_take_time():
    """who looks at all of them for each tensor, or at all starts of a name, does not end"""
    started = time.process_time()
    for names in (["a" + 99 * k * ".a" for k in range(900)], [f"{k}" for k in range(100_000)]):
        found = _saving._owners([f"{name}.x" for name in names], names)
        assert found == {f"{name}.x": name for name in names}
    assert time.process_time() - started < 10  # a quarter of a second


def test_a_header_nobody_could_read(monkeypatch):
    monkeypatch.setattr(_safetensors_writer, "MOST_HEADER", 64)
    with pytest.raises(ValueError, match="^modules: expected names that fit a header of 64 bytes"):
        fastrnn.save(io.BytesIO(), {"a": NORM})
