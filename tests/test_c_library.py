"""The C library inside the package computes the bits that Python computes, and reads its files."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import fastrnn
import reference

if not (Path(fastrnn.__file__).parent / "lib").is_dir():
    pytest.skip("this package was built without the C library", allow_module_level=True)

import c_library
from weight_files import header_of

CASES = {
    "rnn_tanh": lambda **k: fastrnn.RNN(3, 17, num_layers=2, **k),
    "rnn_relu": lambda **k: fastrnn.RNN(4, 9, nonlinearity="relu", bias=False, **k),
    "lstm": lambda **k: fastrnn.LSTM(5, 24, num_layers=2, proj_size=7, **k),
    "gru": lambda **k: fastrnn.GRU(7, 33, num_layers=2, **k),
}
each = pytest.mark.parametrize("cell", reference.CELLS)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def make(cell, dtype, **more):
    layer = CASES[cell](dtype=dtype, seed=3, **more)
    generator = np.random.default_rng(1)
    x = generator.standard_normal((9, 4, layer.input_size)).astype(dtype)
    return layer, x


@each
@dtypes
def test_sequence_stream_and_pool(cell, dtype):
    layer, x = make(cell, dtype)
    y = np.asarray(layer(x)[0])
    ours = c_library.Layer(layer, cell)
    assert ours.run(x, y.shape[2]).tobytes() == y.tobytes()
    assert ours.stream(x, y.shape[2]).tobytes() == y.tobytes()
    assert ours.pool(x, y.shape[2]).tobytes() == y.tobytes()


@each
@dtypes
def test_training(cell, dtype):
    layer, x = make(cell, dtype, bidirectional=True)
    lengths = np.array([9, 0, 4, 7], np.int64)
    y, _, tape = layer.forward(x, lengths=lengths)
    dy = np.random.default_rng(2).standard_normal(y.shape).astype(dtype)
    expected = layer.backward(tape, dy, step_norms=True)
    norms = np.empty_like(expected.step_norms)
    for step_norms in (norms, None):
        dx, weights = c_library.Layer(layer, cell).gradients(x, dy, lengths, step_norms)
        assert dx.tobytes() == expected.input.tobytes()
        assert list(weights) == list(expected.weights)
        for name, gradient in expected.weights.items():
            assert weights[name].tobytes() == gradient.tobytes(), name
    assert norms.tobytes() == expected.step_norms.tobytes()


def test_messages():
    layer, _ = make("gru", np.float32)
    ours = c_library.Layer(layer, "gru")
    with pytest.raises(ValueError, match="name: expected one of weight_ih_l0, .* got 'nonsense'"):
        c_library.call("fastrnn_layer_set", ours.handle, b"nonsense", b"....", 1)


@each
@dtypes
def test_files_both_ways(cell, dtype, tmp_path):
    layer, x = make(cell, dtype)
    y = np.asarray(layer(x)[0])
    layer.save(tmp_path / "python.safetensors")
    assert c_library.load(tmp_path / "python.safetensors", dtype).run(x, y.shape[2]).tobytes() == (
        y.tobytes()
    )
    fastrnn.save(tmp_path / "many.safetensors", {"a": layer, "head": fastrnn.Linear(2, 1)})
    read = c_library.load(tmp_path / "many.safetensors", dtype, "a.")
    assert read.run(x, y.shape[2]).tobytes() == y.tobytes()
    ours, about = c_library.Layer(layer, cell), {"sample_rate": "48000"}
    ours.save(tmp_path / "c.safetensors", about)
    file = (tmp_path / "c.safetensors").read_bytes()
    assert header_of(tmp_path / "c.safetensors")["__metadata__"].items() > about.items()
    assert ours.serialize(about) == file
    for source in (tmp_path / "c.safetensors", file):
        assert np.asarray(fastrnn.load(source)(x)[0]).tobytes() == y.tobytes()
    with pytest.raises(ValueError, match="expected dtype"):
        other = np.float64 if dtype is np.float32 else np.float32
        c_library.load(tmp_path / "python.safetensors", other)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_whole_model(dtype, tmp_path):
    """layers, arrays and entries in one file of Python's"""
    file, (gru, x) = tmp_path / "model.safetensors", make("gru", dtype)
    head = fastrnn.Linear(gru.hidden_size, 3, dtype=dtype, seed=4)
    norm = {
        "weight": np.arange(6, dtype=dtype).reshape(2, 3),
        "inner.bias": np.float64([7]),
        "half": np.float16([1]),
    }
    model = {"gru": gru, "norm": norm, "head": head}
    fastrnn.save(file, model, {"sample_rate": "16000", "gru.note": "n"})
    y = np.asarray(gru(x)[0])
    assert c_library.load(file, dtype, "gru.").run(x, y.shape[2]).tobytes() == y.tobytes()
    assert c_library.run_linear(file, "head.", y, 3).tobytes() == head(y).tobytes()
    kind = "F64" if dtype is np.float64 else "F32"
    assert c_library.find(file, "norm.weight") == (kind, [2, 3], norm["weight"].tobytes())
    assert c_library.find(file, "norm.inner.bias") == ("F64", [1], np.float64([7]).tobytes())
    assert c_library.find(file, "norm.half") == ("F16", [1], np.float16([1]).tobytes())
    keys = ("sample_rate", "gru.note", "norm.cell", "else")
    assert [c_library.metadata(file, key) for key in keys] == ["16000", "n", "arrays", None]
    with pytest.raises(ValueError, match=r"expected 'norm\.cell' to be .*, got 'arrays'"):
        c_library.load(file, dtype, "norm.")
    with pytest.raises(ValueError, match=r"expected 'norm\.cell' to be linear, got 'arrays'"):
        c_library.run_linear(file, "norm.", y, 3)
    fastrnn.save(file, gru, {"sample_rate": "16000"})
    assert c_library.load(file, dtype).run(x, y.shape[2]).tobytes() == y.tobytes()
    assert c_library.metadata(file, "sample_rate") == "16000"


INCLUDE = f"-I{c_library.path().parents[1] / 'include'}"
compiled = pytest.mark.skipif(
    not shutil.which("c++") or os.name == "nt", reason="needs a C++ compiler like GCC and Clang"
)


def compile_only(folder, standard, source):
    """Return what the compiler has to say, as errors."""
    name = "main.cpp" if "++" in standard else "main.c"
    (folder / name).write_text(source)
    language = "c++" if "++" in standard else "c"
    warnings = "-pedantic", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"
    flags = "-x", language, f"-std={standard}", *warnings
    command = ["c++", *flags, "-fsyntax-only", INCLUDE, folder / name]
    return subprocess.run(command, capture_output=True, text=True).stderr


@compiled
@pytest.mark.parametrize("standard", ["c99", "c11", "c++11", "c++17", "c++20"])
def test_headers_by_themselves(standard, tmp_path):
    headers = ["fastrnn.h", "streams.h"]
    if standard in ("c++17", "c++20"):
        headers += ["fastrnn.hpp", "streams.hpp", "values.hpp"]
    for header in headers:
        assert compile_only(tmp_path, standard, f"#include <fastrnn/{header}>\n") == ""


@compiled
@pytest.mark.parametrize(
    "call",
    [
        "s.step(x, x)",
        "s.process(1, x, 1, x, 1)",
        "s.reset()",
        "s.get_state(x)",
        "s.set_state(x)",
        "p.join(i)",
        "p.leave(0)",
        "p.step(i, 1, x, x)",
        "p.process(i, 1, 1, x, 1, 1, x, 1, 1)",
        "p.reset(0)",
        "p.get_state(0, x)",
        "p.set_state(0, x)",
        "l.step(x, x)",
        "l.process(1, x, 1, x, 1)",
        "n.prepare()",
        "n.stream()",
        "n.pool(1)",
    ],
)
def test_errors_are_not_ignored(call, tmp_path):
    """the compiler warns of a status or result that is dropped"""
    arguments = (
        "fastrnn::Stream<float>& s, fastrnn::StreamPool<float>& p, fastrnn::Linear<float>& l, "
        "fastrnn::Layer<float>& n, float* x, int64_t* i"
    )
    source = f"#include <fastrnn/fastrnn.hpp>\nvoid f({arguments}) {{ {call}; }}\n"
    assert "unused-" in compile_only(tmp_path, "c++17", source)
    assert compile_only(tmp_path, "c++17", source.replace(call, f"(void){call}")) == ""


@compiled
@pytest.mark.parametrize(
    ("code", "fine"),
    [
        ("(void)n.run({5, 1, nullptr, d, 1, 0, d, 1});", True),
        ("(void)n.run({5, 1, nullptr, f, 1, 0, d, 1});", False),
        ("fastrnn::Sequence<float> s; (void)n.run(s);", False),
        ("fastrnn::Sequence<double> s; s.hn = f;", False),
        ("fastrnn::Gradients<double> g; g.dx = f;", False),
        ("fastrnn::Gradients<double> g; g.weights = &d;", True),
        ("fastrnn::Gradients<double> g; g.weights = &f;", False),
    ],
)
def test_arrays_have_the_type_of_their_layer(code, fine, tmp_path):
    arguments = "fastrnn::Layer<double>& n, double* d, float* f"
    source = f"#include <fastrnn/fastrnn.hpp>\nvoid f({arguments}) {{ {code} }}\n"
    said = compile_only(tmp_path, "c++17", source)
    assert said == "" if fine else "float" in said


@compiled
def test_program_of_docs_cpp(tmp_path):
    """docs/cpp.md prints a program: no warning, Python's bits, and no file of other sizes"""
    page = (Path(__file__).parents[1] / "docs" / "cpp.md").read_text()
    (tmp_path / "main.cpp").write_text(re.search(r"```cpp\n(.*?)```", page, re.DOTALL)[1])
    library = c_library.path()
    warnings = "-Wall", "-Wextra", "-Werror"
    command = ["c++", "-std=c++17", *warnings, INCLUDE, "main.cpp", library, "-o", "main"]
    subprocess.run([*command, f"-Wl,-rpath,{library.parent}"], cwd=tmp_path, check=True)
    x = np.sin(np.arange(150, dtype=np.float32))  # blocks of 64, 64 and 22
    samples = "\n".join(map(repr, x.tolist()))

    def run(lstm, head):
        fastrnn.save(tmp_path / "model.safetensors", {"lstm": lstm, "head": head})
        return subprocess.run(
            tmp_path / "main", cwd=tmp_path, input=samples, capture_output=True, text=True
        )

    lstm, head = fastrnn.LSTM(1, 32, seed=1), fastrnn.Linear(32, 1, seed=2)
    stream = lstm.stream()
    y = np.array([head(stream.step(x[i : i + 1]))[0] for i in range(len(x))])
    done = run(lstm, head)
    assert done.returncode == 0
    assert np.array(done.stdout.split(), np.float32).tobytes() == y.tobytes()
    for lstm, head in [
        (fastrnn.LSTM(1, 64), fastrnn.Linear(64, 1)),  # its 64 values on a stack of 32
        (fastrnn.LSTM(2, 32), fastrnn.Linear(32, 1)),
        (fastrnn.LSTM(1, 32), fastrnn.Linear(31, 1)),
        (fastrnn.LSTM(1, 32), fastrnn.Linear(32, 2)),
        (fastrnn.LSTM(1, 32, bidirectional=True), fastrnn.Linear(32, 1)),
    ]:
        done = run(lstm, head)
        assert (done.returncode, done.stdout) == (1, "")
        assert "expected" in done.stderr


@compiled
def test_foreign_files_of_docs_cpp(tmp_path):
    """what docs/cpp.md shows of them: Python's bits, from tensors under other names"""
    page = (Path(__file__).parents[1] / "docs" / "cpp.md").read_text()
    shown = next(b for b in re.findall(r"```cpp\n(.*?)```", page, re.DOTALL) if "assign(" in b)
    (tmp_path / "main.cpp").write_text(
        "#include <fastrnn/fastrnn.hpp>\n#include <cstdio>\n"
        'int failed(const fastrnn::Error& e) { return std::fprintf(stderr, "%s", e.message()), 1; }'
        '\nint main() {\n  auto file = fastrnn::Weights::open("foreign");\n'
        f"  if (!file) return failed(file.error());\n{shown}"
        "  auto stream = gru->stream();\n  const float x[12] = {1, 2, 3};\n  float y[64], z[3];\n"
        "  (void)stream->step(x, y), (void)head->step(y, z);\n"
        '  std::printf("%.9g %.9g %.9g %s %zu", z[0], z[1], z[2], gain->dtype, gain->bytes);\n}\n'
    )
    library = c_library.path()
    command = ["c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", INCLUDE, "main.cpp", library]
    rpath = f"-Wl,-rpath,{library.parent}"
    subprocess.run([*command, rpath, "-o", "main"], cwd=tmp_path, check=True)
    rnn, head = fastrnn.GRU(12, 64, num_layers=2, seed=1), fastrnn.Linear(64, 3, seed=2)
    tensors = {f"rnn.{name}": w for name, w in rnn.state_dict().items()}
    tensors |= {f"head.{name}": w for name, w in head.state_dict().items()}
    fastrnn.save_tensors(tmp_path / "foreign", tensors | {"norm.weight": np.ones(64, np.float32)})
    done = subprocess.run([tmp_path / "main"], cwd=tmp_path, capture_output=True, text=True)
    *z, dtype, size = done.stdout.split()
    wanted = head(rnn.stream().step(np.float32([1, 2, 3] + 9 * [0])))
    assert np.array(z, np.float32).tobytes() == wanted.tobytes() and (dtype, size) == ("F32", "256")
