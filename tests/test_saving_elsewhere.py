"""Saving into file objects, and arrays that belong to no module."""

import gzip
import io
import json
import tempfile
import zipfile
from types import MappingProxyType

import numpy as np
import pytest

import fastrnn
from fastrnn import _safetensors_writer
from support import assert_same_bits, random
from weight_files import header_of

MODULES = {"lstm": fastrnn.LSTM(3, 4), "head": fastrnn.Linear(4, 2, dtype=np.float64)}
TENSORS = {
    "a": random(3, 2),
    "b.c": random(5, dtype=np.float64),
    "scalar": np.float64(3) * np.ones(()),
    "empty": np.zeros((0, 3), np.float32),
    "strided": random(4, 6)[::2, 1:4],
    "deep": random(*32 * (1,)),
    "": random(1),
}
SAVES = {
    "module": lambda path: MODULES["lstm"].save(path),
    "modules": lambda path: fastrnn.save(path, MODULES),
    "tensors": lambda path: fastrnn.save_tensors(path, TENSORS, {"key": "value"}),
}
each_save = pytest.mark.parametrize("save", SAVES.values(), ids=SAVES)


# file objects


@each_save
def test_a_file_object_gets_what_a_file_would(save, tmp_path):
    save(tmp_path / "file")
    wanted = (tmp_path / "file").read_bytes()
    buffer = io.BytesIO(b"before")
    buffer.seek(6)
    save(buffer)
    buffer.write(b"after")  # it is the caller's to go on with, and to close
    assert buffer.getvalue() == b"before" + wanted + b"after"
    with open(tmp_path / "open", "wb") as file:
        save(file)
    assert (tmp_path / "open").read_bytes() == wanted
    with gzip.open(tmp_path / "packed", "wb") as file:
        save(file)
    assert gzip.decompress((tmp_path / "packed").read_bytes()) == wanted
    with tempfile.NamedTemporaryFile(dir=tmp_path) as file:
        save(file)
        file.seek(0)
        assert file.read() == wanted
    with tempfile.SpooledTemporaryFile() as file:
        save(file)
        file.seek(0)
        assert file.read() == wanted


def test_a_round_trip_in_memory():
    buffer = io.BytesIO()
    MODULES["lstm"].save(buffer)
    again = fastrnn.load(buffer.getvalue())
    assert_same_bits(again.state_dict(), MODULES["lstm"].state_dict())


@each_save
def test_a_file_that_takes_a_part_at_a_time(save):
    """as one without a buffer may"""

    class Part:
        def __init__(self, most):
            self.most, self.parts = most, []

        def write(self, data):
            self.parts.append(bytes(data[: self.most]))
            return len(self.parts[-1])

    class Slow(Part, io.RawIOBase):
        def writable(self):
            return True

    class Full(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            return None

    class Silent:
        def __init__(self):
            self.parts = []

        def write(self, data):
            self.parts.append(bytes(data))

    files, buffer = [Part(7), Slow(7), Silent()], io.BytesIO()
    for file in (*files, buffer):
        save(file)
    for file in files:
        assert b"".join(file.parts) == buffer.getvalue()
    for file in (Part(0), Slow(0), Full()):
        with pytest.raises(BlockingIOError, match=r"expected a file that takes \d+ more bytes"):
            save(file)


def test_open_files_are_read_to_their_end(tmp_path):
    layer = fastrnn.GRU(3, 4, seed=1)
    with zipfile.ZipFile(tmp_path / "z", "w") as archive, archive.open("m", "w") as member:
        layer.save(member)
    with zipfile.ZipFile(tmp_path / "z") as archive, archive.open("m") as member:
        assert_same_bits(fastrnn.load(member).state_dict(), layer.state_dict())
    buffer = io.BytesIO(b"before")
    buffer.seek(6)
    fastrnn.save_tensors(buffer, TENSORS, {"a": "b"})
    for load, expected in ((fastrnn.load_metadata, {"a": "b"}), (fastrnn.load_tensors, TENSORS)):
        buffer.seek(6)
        found = load(buffer)
        assert found.keys() == expected.keys()
    assert_same_bits(found, TENSORS)
    with pytest.raises(ValueError, match="^<bytes>: not a valid safetensors file: .* got 0"):
        fastrnn.load(buffer)
    for text in (io.StringIO("{}"), open(__file__)):  # noqa: SIM115 (closed below)
        with text, pytest.raises(TypeError, match=r"^path: expected .*, whose read\(\) gives str"):
            fastrnn.load(text)


@each_save
def test_what_cannot_be_written_to(save, tmp_path):
    for wrong in (None, 3, b"name", [], MODULES):
        with pytest.raises(TypeError, match="^path: expected str, os.PathLike.* or a writable bin"):
            save(wrong)
    with pytest.raises(TypeError, match="^path: expected .*, got StringIO, one of text"):
        save(io.StringIO())
    for make in (tempfile.NamedTemporaryFile, tempfile.SpooledTemporaryFile):
        with make(mode="w") as text, pytest.raises(TypeError, match="^path: .*, one of text"):
            save(text)
    (tmp_path / "file").write_bytes(b"kept")
    with (
        open(tmp_path / "file", "rb") as file,
        pytest.raises(ValueError, match="^path: expected a file that is open for writing"),
    ):
        save(file)
    assert (tmp_path / "file").read_bytes() == b"kept"


# arrays


def test_tensors_come_back(reader, tmp_path):
    fastrnn.save_tensors(tmp_path / "file", TENSORS, {"key": "value", "ä": ""})
    again = fastrnn.load_tensors(tmp_path / "file")
    assert again.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert (again[name].dtype, again[name].shape) == (array.dtype, array.shape)
        assert again[name].tobytes() == array.tobytes()
    assert fastrnn.load_metadata(tmp_path / "file") == {"key": "value", "ä": ""}
    content = (tmp_path / "file").read_bytes()
    assert fastrnn.load_metadata(content) == {"key": "value", "ä": ""}
    fastrnn.save_tensors(tmp_path / "file", TENSORS)
    assert fastrnn.load_metadata(tmp_path / "file") == {}
    assert "__metadata__" not in header_of(tmp_path / "file")
    buffer = io.BytesIO()  # dicts of other kinds
    fastrnn.save_tensors(
        buffer, MappingProxyType(TENSORS), MappingProxyType({"key": "value", "ä": ""})
    )
    assert buffer.getvalue() == content


def test_a_prefix_is_the_start_of_a_name(reader, tmp_path):
    arrays = {name: random(2, seed=k) for k, name in enumerate(("b", "b.a", "a.b", "bb.b"))}
    fastrnn.save_tensors(tmp_path / "f", arrays)
    assert_same_bits(
        fastrnn.load_tensors(tmp_path / "f", "b"),
        {"": arrays["b"], ".a": arrays["b.a"], "b.b": arrays["bb.b"]},
    )
    with pytest.raises(ValueError, match=r"got '\.b'"):
        fastrnn.load_tensors(tmp_path / "f", ".b")
    with pytest.raises(ValueError, match="^prefix: ") as caught:
        fastrnn.load_tensors((tmp_path / "f").read_bytes(), "b" * 1000)
    assert len(str(caught.value)) < 200


def test_tensors_of_others(tmp_path):
    """what DLPack hands over is read as arguments of layers are"""

    class Foreign:
        def __dlpack__(self, **options):
            return TENSORS["a"].__dlpack__(**options)

        def __dlpack_device__(self):
            return TENSORS["a"].__dlpack_device__()

    buffer = io.BytesIO()
    fastrnn.save_tensors(buffer, {"a": Foreign()})
    assert fastrnn.load_tensors(buffer.getvalue())["a"].tobytes() == TENSORS["a"].tobytes()


def test_metadata_of_modules(tmp_path):
    fastrnn.save(tmp_path / "model", MODULES)
    told = fastrnn.load_metadata(tmp_path / "model")
    assert told["format"] == "fastrnn" and told["lstm.cell"] == "lstm"
    assert told["head.out_features"] == "2"


@pytest.mark.parametrize(
    ("tensors", "metadata", "error", "message"),
    [
        ([random(2)], None, TypeError, "tensors: expected a dict of arrays by name, got list"),
        ({1: random(2)}, None, TypeError, "tensors: expected names of text, got 1"),
        ({"a\ud800": random(2)}, None, ValueError, r"tensors: expected names of text, got 'a"),
        ({"__metadata__": random(2)}, None, ValueError, "tensors: expected another name"),
        ({"a": [1.0]}, None, TypeError, r"tensors\['a'\]: expected an array, got list"),
        ({"a": np.ones(2, int)}, None, TypeError,
         r"tensors\['a'\]: expected dtype float16 or float32 or float64, got int64"),
        ({}, ["a"], TypeError, "metadata: expected a dict of strings, got list"),
        ({}, {"a": 1}, TypeError, "metadata: expected strings by name, got 'a': 1"),
        ({}, {1: "a"}, TypeError, "metadata: expected strings by name, got 1: 'a'"),
        ({}, {"a": "\ud800"}, ValueError, "metadata: expected strings of text, got"),
        ({}, {"\ud800": "a"}, ValueError, "metadata: expected strings of text, got"),
    ],
)  # fmt: skip
def test_tensors_are_checked(tensors, metadata, error, message, tmp_path):
    with pytest.raises(error, match=f"^{message}") as caught:
        fastrnn.save_tensors(tmp_path / "file", tensors, metadata)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(np.__version__ < "2", reason="NumPy 1 has no more axes")
def test_more_axes_than_can_be_read_everywhere():
    deep = np.ones(1, np.float32).reshape(33 * (1,))
    with pytest.raises(ValueError, match=r"^tensors\['a'\]: expected at most 32 axes, got 33"):
        fastrnn.save_tensors(io.BytesIO(), {"a": deep})


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([f"{k}.x" for k in range(6)], "it has '0.', '1.', '2.', '3.', '4.', ..."),
        ([f"{k}.x" for k in range(5)], "it has '0.', '1.', '2.', '3.', '4.'"),
        (["c", "a.b.x", "a.b.y", "a.x"], "it has 'a.b.', 'a.'"),
        ([100 * "a" + ".x"], f"it has '{79 * 'a'}"),
        (["a"], "its names have no dot"),
        ([], "its names have no dot"),
    ],
)
def test_the_prefixes_are_told(names, told):
    """a few of them"""
    buffer = io.BytesIO()
    fastrnn.save_tensors(buffer, dict.fromkeys(names, random(1)))
    with pytest.raises(ValueError) as caught:
        fastrnn.load_tensors(buffer.getvalue(), "gru.")
    assert str(caught.value) == (
        f"prefix: expected the start of a tensor's name in <bytes>, got 'gru.'; {told}"
    )


@pytest.mark.parametrize("which", ["torch", "numpy"])
def test_files_of_torch_and_numpy(which, tmp_path):
    """which are zips"""
    if which == "torch":
        torch = pytest.importorskip("torch")
        torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "f")
    else:
        with open(tmp_path / "f", "wb") as file:
            np.savez(file, a=random(3))
    for work in (fastrnn.load, fastrnn.load_tensors, fastrnn.load_metadata):
        for source in (tmp_path / "f", (tmp_path / "f").read_bytes()):
            with pytest.raises(
                ValueError, match=r"a zip, as torch\.save and .*: fastrnn.save_tens"
            ):
                work(source)
    if which == "torch":  # what the message says
        state = torch.load(tmp_path / "f", map_location="cpu")
        fastrnn.save_tensors(tmp_path / "g", state)
        assert_same_bits(
            fastrnn.load_tensors(tmp_path / "g"), {k: v.numpy() for k, v in state.items()}
        )


def test_too_many_names(monkeypatch):
    buffer = io.BytesIO()
    fastrnn.save_tensors(buffer, TENSORS)
    size = int.from_bytes(buffer.getvalue()[:8], "little")
    monkeypatch.setattr(_safetensors_writer, "MOST_HEADER", size)
    fastrnn.save_tensors(io.BytesIO(), TENSORS)
    monkeypatch.setattr(_safetensors_writer, "MOST_HEADER", size - 1)
    expected = f"^tensors: expected names that fit a header of {size - 1} bytes, got {size}$"
    with pytest.raises(ValueError, match=expected):
        fastrnn.save_tensors(io.BytesIO(), TENSORS)


@pytest.mark.parametrize("rule", ["SGD", "Adam"])
def test_a_checkpoint_in_files(rule, tmp_path):
    """as docs/api.md shows it, for an optimizer that remembers nothing, too"""
    layer = fastrnn.GRU(2, 3, seed=1)
    optimizer = getattr(fastrnn.optim, rule)(layer, lr=0.1)
    ones = {name: np.ones_like(w) for name, w in layer.parameters().items()}
    optimizer.step(ones)
    state = optimizer.state_dict()
    memory = state.pop("memory")
    flat = {f"{k}.{name}": a for k, part in enumerate(memory) for name, a in part.items()}
    fastrnn.save_tensors(tmp_path / "file", flat, {"rest": json.dumps(state)})
    layer.save(tmp_path / "layer")
    optimizer.step(ones)

    twin = fastrnn.load(tmp_path / "layer")
    again = getattr(fastrnn.optim, rule)(twin)
    found = fastrnn.load_tensors(tmp_path / "file")
    memory = [{name.removeprefix("0."): a for name, a in found.items()}]
    rest = json.loads(fastrnn.load_metadata(tmp_path / "file")["rest"])
    again.load_state_dict(rest | {"memory": memory})
    again.step(ones)
    assert_same_bits(twin.state_dict(), layer.state_dict())
