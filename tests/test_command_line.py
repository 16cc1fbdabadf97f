"""`python -m fastrnn`: help, info, and the demo in a hurry."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastrnn
import fastrnn.__main__
from fastrnn import _latency
from test_process import python


def test_alone_prints_help():
    done = python("-m", "fastrnn")
    assert done.returncode == 0
    assert "demo" in done.stdout and "info" in done.stdout


@pytest.mark.parametrize("command", [[], ["demo"], ["info"], ["latency"], ["cmake-dir"]])
def test_help(command):
    done = python("-m", "fastrnn", *command, "--help")
    assert done.returncode == 0 and "usage:" in done.stdout


def test_info():
    done = python("-m", "fastrnn", "info")
    assert done.returncode == 0, done.stderr
    for part in (fastrnn.__version__, fastrnn.info()["isa"], "compiler", "threads", "options"):
        assert str(part) in done.stdout


def test_cmake_dir():
    """the folder holds the package, and beside it lie the headers and the library"""
    folder = Path(python("-m", "fastrnn", "cmake-dir").stdout.strip())
    config = (folder / "fastrnn-config-version.cmake").read_text()
    assert f'set(PACKAGE_VERSION "{fastrnn.__version__}")' in config
    headers = {path.name for path in (folder.parents[2] / "include" / "fastrnn").iterdir()}
    ours = "fastrnn.h fastrnn.hpp macros.h streams.h streams.hpp values.hpp version.h"
    assert headers == set(ours.split())
    libraries = {path.name for path in folder.parents[1].iterdir() if path.is_file()}
    assert len([name for name in libraries if "kernels" not in name]) == 1, "the shared library"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere they are linked in")
def test_the_kernels_are_in_the_package_once():
    """in a library of which their tables are all there is to see"""
    folder = Path(fastrnn.__file__).parent / "lib"
    (kernels,) = folder.glob("libfastrnn-kernels-*.so")
    for user in (Path(fastrnn._core.__file__), folder / "libfastrnn.so"):
        assert user.stat().st_size < kernels.stat().st_size
        assert kernels.name.encode() in user.read_bytes()
    if shutil.which("nm"):
        command = ["nm", "-D", "--defined-only", "-C", kernels]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        shown = {line.split(maxsplit=2)[2] for line in found.stdout.splitlines()}
        assert shown == {f"fastrnn::backend_{isa}" for isa in fastrnn.info()["isas_compiled"]}


def test_cmake_dir_of_a_package_without_the_library(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fastrnn.__main__, "__file__", str(tmp_path / "__main__.py"))
    with pytest.raises(SystemExit) as left:
        fastrnn.__main__.main(["cmake-dir"])
    streams = capsys.readouterr()
    assert left.value.code == 2 and streams.out == "" and str(tmp_path) in streams.err


def test_version():
    assert fastrnn.__version__ in python("-m", "fastrnn", "--version").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["demo", "--epochs", "0"],
        ["demo", "--threads", "x"],
        ["demo", "--threads", "1025"],
        ["latency", "--steps", "0"],
        ["latency", "--cell", "mgu"],
        ["latency", "--batch", "2000000"],
        ["latency", "--bfloat16", "--dtype", "float64", "--bfloat16"],
    ],
)
def test_bad_arguments(arguments):
    done = python("-m", "fastrnn", *arguments)
    assert done.returncode == 2 and arguments[-1] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("plot", [True, False])
def test_demo_in_a_hurry(tmp_path, plot):
    """two epochs are not enough to win; but it trains, streams, compares bits and plots"""
    if plot:
        pytest.importorskip("matplotlib")
        start = ["-m", "fastrnn"]
    else:
        hide = "import sys, runpy; sys.modules['matplotlib'] = None; "
        start = ["-c", hide + "runpy.run_module('fastrnn', run_name='__main__')"]
    picture = tmp_path / "picture.png"
    done = python(*start, "demo", "--epochs", "2", "--out", str(picture), MPLBACKEND=None)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
    text = done.stdout.lower()
    for part in ("mauna loa", "naive", "same bits", "step"):
        assert part in text
    assert "\r" not in done.stdout, "no progress bar into a pipe"
    assert picture.exists() == plot
    if plot:
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert sys.executable not in done.stdout


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--cell", "gru", "--layers", "2", "--batch", "3", "--threads", "2"],
        ["--cell", "rnn", "--dtype", "float64", "--input", "7", "--hidden", "9"],
        ["--hidden", "96", "--bfloat16"],
    ],
)
def test_latency(options):
    done = python("-m", "fastrnn", "latency", "--steps", "3000", *options)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    heads = [line for line in lines if line.startswith("nanoseconds")]
    assert heads[0].split() == ["nanoseconds", "p50", "p99", "p99.9", "max"]
    for name in ("kernel (C++)", "Stream.step (Python)"):
        row = next(line for line in lines if line.startswith(name))
        values = [float(v.replace(",", "")) for v in row.removeprefix(name).split()]
        assert len(values) == 4 and values[0] > 0 and values == sorted(values)
        assert f"{name}: 3,000 steps" in done.stdout
    bars = [int(line.rpartition("| ")[2].replace(",", "")) for line in lines if " ns |" in line]
    assert sum(bars) == 2 * 3000, "every step is in its histogram"
    assert "reading the clock" in done.stdout
    assert ("weights bfloat16;" in lines[0]) == ("--bfloat16" in options)


def test_latency_picture(tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "p.png"
    done = python("-m", "fastrnn", "latency", "--steps", "1000", "--png", str(picture))
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG") and "picture: " in done.stdout
    done = python(
        "-m", "fastrnn", "latency", "--steps", "9", "--png", str(tmp_path / "no" / "p.png")
    )
    assert done.returncode == 2 and "No such file" in done.stderr
    assert done.stdout == "", "found out before the measurement"


def test_the_check_of_a_picture_leaves_nothing(tmp_path):
    pytest.importorskip("matplotlib")
    old, new = tmp_path / "old.png", tmp_path / "new.png"
    old.write_bytes(b"old")
    _latency.check_picture(str(old))
    _latency.check_picture(str(new))
    assert old.read_bytes() == b"old" and not new.exists()


def test_latency_without_matplotlib(tmp_path):
    hide = "import sys, runpy; sys.modules['matplotlib'] = None; "
    run = hide + "runpy.run_module('fastrnn', run_name='__main__')"
    for picture in (str(tmp_path / "p.png"), ""):  # the latter is no name, and not to be ignored
        done = python("-c", run, "latency", "--steps", "9", "--png", picture)
        assert done.returncode == 2 and "matplotlib is not installed" in done.stderr
        assert done.stdout == "", "found out before the measurement"
