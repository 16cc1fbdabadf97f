"""examples/train_amp.py and examples/cpp/amp: trained here, run in C++, the same bits.

Needs the extra `examples`, data.txt, CMake and a C++ compiler.
"""

import os
import shutil
import struct
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from support import example

train_amp = example("train_amp", "scipy", "audioflux")

import scipy.integrate  # noqa: E402 (the line above skips where it is missing)
import scipy.io.wavfile  # noqa: E402

SOURCE = Path(__file__).parent.parent / "examples" / "cpp" / "amp"
RATE = 32_000
needs_compiler = pytest.mark.skipif(
    not shutil.which("cmake") or not (shutil.which("c++") or os.environ.get("CXX")),
    reason="examples/cpp/amp needs CMake and a C++ compiler",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, error to signal held out) after six epochs of a small layer"""
    folder = tmp_path_factory.mktemp("amp")
    return folder, train_amp.main(folder, hidden=16, epochs=6, lr=1e-2)


def build(folder, *options):
    package = subprocess.run(
        [sys.executable, "-m", "fastrnn", "cmake-dir"], check=True, capture_output=True, text=True
    ).stdout.strip()
    warnings = "-Wall -Wextra -Wconversion -Wno-sign-conversion -Werror"
    configure = ["cmake", "-S", SOURCE, "-B", folder, f"-Dfastrnn_DIR={package}"]
    flags = " ".join([warnings, *options])
    for command in ([*configure, f"-DCMAKE_CXX_FLAGS={flags}"], ["cmake", "--build", folder]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "amp"


@pytest.fixture(scope="module")
def amp(tmp_path_factory):
    return build(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def sanitized_amp(tmp_path_factory):
    options = "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"
    return build(tmp_path_factory.mktemp("sanitized"), *options)


def run(program, *arguments, **environment):
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, env=os.environ | environment
    )


def played(program, weights, samples, folder, **environment):
    """what the program makes of [frames] or [frames, C]"""
    scipy.io.wavfile.write(folder / "in.wav", RATE, samples)
    done = run(program, weights, folder / "in.wav", folder / "out.wav", **environment)
    assert done.returncode == 0, done.stderr
    rate, out = scipy.io.wavfile.read(folder / "out.wav")
    assert rate == RATE and out.dtype == np.float32
    return out


def test_training_learns_the_circuit(trained):
    _, error = trained
    _, dry = scipy.io.wavfile.read(trained[0] / "dry.wav")
    _, wet = scipy.io.wavfile.read(trained[0] / "wet.wav")
    assert train_amp.error_to_signal(dry, wet) > 0.5  # what there is to learn
    assert error < 0.17  # half of what the best curve without memory leaves


def test_weights_come_back(trained):
    modules = fastrnn.load(trained[0] / "amp.safetensors")
    assert set(modules) == {"lstm", "head"}
    _, dry = scipy.io.wavfile.read(trained[0] / "dry.wav")
    _, expected = scipy.io.wavfile.read(trained[0] / "model.wav")
    stream, head = modules["lstm"].stream(), modules["head"]
    y = [head(stream.step(np.array([x])))[0] + x for x in dry[:2000]]
    assert np.array(y).tobytes() == expected[:2000].tobytes()


def test_clipper_solves_its_equation():
    """against SciPy's implicit Runge-Kutta, on a tone that drives the diodes hard"""
    R, C, Is, Vt = 2.2e3, 10e-9, 2.52e-9, 45.3e-3
    time = np.arange(1600) / (8 * RATE)

    def source(t):
        return 5 * np.sin(2 * np.pi * 700 * t)

    def slope(t, v):
        return ((source(t) - v) / R - Is * (np.exp(v / Vt) - np.exp(-v / (2 * Vt)))) / C

    solution = scipy.integrate.solve_ivp(
        slope, (0, time[-1]), [0.0], "Radau", time, rtol=1e-9, atol=1e-10
    )
    exact = solution.y[0]
    assert exact.max() < 0.7 and exact.min() < -1.1  # one diode up, two down
    errors = []
    for finer in (1, 2, 4):
        times = np.arange(1600 * finer) / (8 * RATE * finer)
        solved = train_amp.diode_clipper(source(times), times[1])[::finer]
        errors.append(np.abs(solved - exact).max())
    assert errors[0] < 0.005  # of 1.2 V, at the kinks, where v turns within a few steps
    assert 3.5 < errors[0] / errors[1] < 4.5  # second order: half the step
    assert 3.5 < errors[1] / errors[2] < 4.5


def test_oversampling_is_enough():
    _, dry = train_amp.recording("guitar_chord1")
    dry = dry[:RATE]
    eight, more = (train_amp.amplifier(dry, RATE, factor) for factor in (8, 24))
    assert train_amp.error_to_signal(eight, more) < 1e-6  # 60 dB below what training leaves


@needs_compiler
def test_cpp_gives_pythons_bits(isa, amp, trained, tmp_path):
    folder, _ = trained
    modules = fastrnn.load(folder / "amp.safetensors")
    model = train_amp.Model(16)
    model.lstm.load_state_dict(modules["lstm"].state_dict())
    model.head.load_state_dict(modules["head"].state_dict())
    _, dry = scipy.io.wavfile.read(folder / "dry.wav")
    out = played(amp, folder / "amp.safetensors", dry, tmp_path, FASTRNN_ISA=isa)
    assert len(out) == len(dry) > 80_000
    assert out.tobytes() == model.stream(dry).tobytes()


@needs_compiler
def test_cpp_channels_are_independent(amp, trained, tmp_path):
    folder, _ = trained
    _, dry = scipy.io.wavfile.read(folder / "dry.wav")
    channels = [dry[:4000], dry[4000:8000], np.zeros(4000, np.float32)]
    both = played(amp, folder / "amp.safetensors", np.stack(channels, axis=1), tmp_path)
    for got, samples in zip(both.T, channels, strict=True):
        alone = played(amp, folder / "amp.safetensors", samples, tmp_path)
        assert got.tobytes() == alone.tobytes()


@needs_compiler
@pytest.mark.parametrize("width", [2, 3, 4])
def test_cpp_reads_integers(width, amp, trained, tmp_path):
    folder, _ = trained
    most = 1 << (8 * width - 1)
    values = np.random.default_rng(width).integers(-most, most, 1000)
    values[:3] = [-most, most - 1, 0]
    with wave.open(str(tmp_path / "integers.wav"), "wb") as file:
        file.setparams((1, width, RATE, 0, "NONE", ""))
        file.writeframes(b"".join(int(v).to_bytes(width, "little", signed=True) for v in values))
    weights = folder / "amp.safetensors"
    done = run(amp, weights, tmp_path / "integers.wav", tmp_path / "out.wav")
    assert done.returncode == 0, done.stderr
    got = scipy.io.wavfile.read(tmp_path / "out.wav")[1]
    scaled = (values.astype(np.int32) << (32 - 8 * width)).astype(np.float32) / np.float32(2**31)
    assert got.tobytes() == played(amp, weights, scaled, tmp_path).tobytes()


@needs_compiler
def test_cpp_reports_times(amp, trained):
    folder, _ = trained
    done = run(amp, folder / "amp.safetensors", folder / "dry.wav", folder / "out.wav")
    words = done.stdout.replace(",", "").split()
    assert float(words[words.index("factor") + 1]) < 1  # faster than the sound lasts
    p50, p99, p999 = (int(words[words.index(p) + 1]) for p in ("p50", "p99", "p99.9"))
    assert 0 < p50 <= p99 <= p999


@needs_compiler
def test_cpp_names_what_is_wrong(amp, trained, tmp_path):
    folder, _ = trained
    weights, dry, out = folder / "amp.safetensors", folder / "dry.wav", tmp_path / "out.wav"
    lstm, head = fastrnn.LSTM(2, 16), fastrnn.Linear(16, 1)
    fastrnn.save(tmp_path / "two.safetensors", {"lstm": lstm, "head": head})
    fastrnn.save(tmp_path / "headless.safetensors", {"lstm": fastrnn.LSTM(1, 16)})
    (tmp_path / "text.wav").write_text("no sound at all")
    scipy.io.wavfile.write(tmp_path / "double.wav", RATE, np.zeros(9))
    cases = [
        ((tmp_path / "none.safetensors", dry, out), "none.safetensors"),
        ((tmp_path / "two.safetensors", dry, out), "expected a layer of 1 input"),
        ((tmp_path / "headless.safetensors", dry, out), "head."),
        ((weights, tmp_path / "none.wav", out), "none.wav: cannot be read"),
        ((weights, tmp_path / "text.wav", out), "does not begin with RIFF"),
        ((weights, tmp_path / "double.wav", out), "got format 3 with 64 bits"),
        ((weights, dry, tmp_path / "no" / "out.wav"), "out.wav: cannot be written"),
    ]
    for arguments, message in cases:
        done = run(amp, *arguments)
        assert done.returncode == 1 and message in done.stderr, done
    assert run(amp).returncode == 2


def damaged(content, rng):
    """copies of a WAV file: cut short, with numbers out of range, with bytes at random"""
    yield from (content[:n] for n in range(0, 64))
    for place in range(4, 60):
        for value in (0, 0xFF, 0x80):
            yield content[:place] + bytes([value]) + content[place + 1 :]
    for size in (0xFFFFFFFF, 0x7FFFFFFF, len(content), 1, 0):
        for place in (4, 16, 42):
            yield content[:place] + struct.pack("<I", size) + content[place + 4 :]
    for _ in range(100):
        copy = bytearray(content)
        for place in rng.integers(0, 80, 6):
            copy[place] = rng.integers(256)
        yield bytes(copy)


@needs_compiler
def test_cpp_survives_damaged_files(sanitized_amp, trained, tmp_path):
    folder, _ = trained
    scipy.io.wavfile.write(tmp_path / "good.wav", RATE, np.ones(20, np.float32))
    content = (tmp_path / "good.wav").read_bytes()
    outcomes = {0: 0, 1: 0}
    for copy in damaged(content, np.random.default_rng(0)):
        (tmp_path / "bad.wav").write_bytes(copy)
        done = run(sanitized_amp, folder / "amp.safetensors", tmp_path / "bad.wav", tmp_path / "o")
        assert done.returncode in outcomes and "Sanitizer" not in done.stderr, (copy, done)
        assert done.returncode == 0 or "bad.wav: " in done.stderr, (copy, done)
        outcomes[done.returncode] += 1
    assert min(outcomes.values()) > 20, outcomes
