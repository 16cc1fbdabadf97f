"""What concerns the whole process: environment variables, info, threads, fork, the GIL."""

import copy
import ctypes
import ctypes.util
import os
import platform
import re
import subprocess
import sys
import threading
import time
import timeit
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastrnn
from conftest import ISAS
from fastrnn import _core


def python(*arguments, timeout=120, **environment):
    """a fresh interpreter; None removes a variable"""
    variables = os.environ | environment
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


# environment variables


@pytest.mark.parametrize("name", ISAS)
def test_isa_is_forced(name):
    done = python("-c", "import fastrnn; print(fastrnn.info()['isa'])", FASTRNN_ISA=name)
    assert done.stdout.strip() == name, done.stderr


def test_best_isa_without_the_variable():
    code = "from fastrnn import _core; print(_core.isa(), *_core.isas())"
    chosen, best, *_ = python("-c", code, FASTRNN_ISA=None).stdout.split()
    assert chosen == best
    assert python("-c", code, FASTRNN_ISA="").stdout.split()[0] == best, "empty is unset"


@pytest.mark.parametrize("name", ["avx9000", "AVX 2", "baseline,avx2"])
def test_unknown_isa_is_a_clear_error_at_import(name):
    done = python("-c", "import fastrnn", FASTRNN_ISA=name)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "FASTRNN_ISA" in last and name in last
    assert all(choice in last for choice in ISAS), "the choices are listed"


@pytest.mark.parametrize("value", ["many", "0", "-2", "1.5"])
def test_bad_number_of_threads_is_a_clear_error_at_import(value):
    done = python("-c", "import fastrnn", FASTRNN_NUM_THREADS=value)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(rf"FASTRNN_NUM_THREADS: expected an integer >= 1, got '{value}'", last)


def test_more_threads_than_the_core_takes_is_a_clear_error_at_import():
    done = python("-c", "import fastrnn", FASTRNN_NUM_THREADS="1025")
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith("FASTRNN_NUM_THREADS: expected an integer <= 1024, got 1025")


def test_number_of_threads():
    code = "import fastrnn; print(fastrnn.get_num_threads())"
    assert python("-c", code, FASTRNN_NUM_THREADS="3").stdout.strip() == "3"
    # Blanks are unset, as nothing is.
    default = python("-c", code, FASTRNN_NUM_THREADS=" ", OMP_NUM_THREADS=None).stdout.strip()
    assert int(default) == _core.available_threads() >= 1
    before = fastrnn.get_num_threads()
    try:
        fastrnn.set_num_threads(2)
        assert fastrnn.get_num_threads() == 2
        fastrnn.set_num_threads(None)
        assert fastrnn.get_num_threads() == before
    finally:
        fastrnn.set_num_threads(before)
    back = "import fastrnn; fastrnn.set_num_threads(2); fastrnn.set_num_threads(None);"
    told = python("-c", back + code, FASTRNN_NUM_THREADS="3")
    assert told.stdout.strip() == "3", "what the variable says"
    with pytest.raises(TypeError, match="^n: expected an integer"):
        fastrnn.set_num_threads(1.5)


def test_set_isa_lists_the_choices():
    with pytest.raises(
        ValueError, match=f"expected one of {', '.join(_core.isas())}, got 'nonsense'"
    ):
        _core.set_isa("nonsense")


def test_threads_of_a_layer():
    layer = fastrnn.GRU(3, 4, num_threads=2)
    assert layer.num_threads == 2
    layer.num_threads = None
    assert layer.num_threads is None
    with pytest.raises(ValueError, match="^num_threads: expected an integer >= 1, got 0"):
        layer.num_threads = 0


def test_most_threads():
    """the same wherever they are given"""
    layer, x = fastrnn.RNN(3, 4, num_threads=_core.max_threads), np.zeros((2, 3), np.float32)
    assert layer.stream(num_threads=None).num_threads == _core.max_threads
    weights, before = layer.state_dict(), fastrnn.get_num_threads()
    for name, use in (
        ("num_threads", lambda n: fastrnn.RNN(3, 4, num_threads=n)),
        ("num_threads", lambda n: fastrnn.Linear(3, 4, num_threads=n)),
        ("num_threads", lambda n: layer.stream(num_threads=n)),
        ("num_threads", lambda n: fastrnn.StreamPool(layer, 2, num_threads=n)),
        ("num_threads", lambda n: setattr(layer, "num_threads", n)),
        ("num_threads", lambda n: fastrnn.functional.rnn(x, weights, num_threads=n)),
        ("n", fastrnn.set_num_threads),
    ):
        for given in (_core.max_threads + 1, 2**31 - 1):
            message = f"^{name}: expected an integer <= {_core.max_threads}, got {given}$"
            with pytest.raises(ValueError, match=message):
                use(given)
    assert layer.num_threads == _core.max_threads and fastrnn.get_num_threads() == before


# info and explain


def test_info(isa):
    info = fastrnn.info()
    assert info["version"] == fastrnn.__version__
    assert info["isa"] == isa and isa in info["isas"]
    assert info["threads"] == fastrnn.get_num_threads()
    assert isinstance(info["openmp"], bool)
    assert info["compiler"] and info["build_type"]


@pytest.mark.parametrize("training", [False, True])
def test_explain(isa, training):
    layer = fastrnn.LSTM(64, 256, num_layers=2, bidirectional=True, num_threads=2)
    answer = layer.explain(100, 16, training)
    text = str(answer)
    assert isa in text and len(text.splitlines()) > 3
    assert answer.isa == isa and answer.kernel == f"{isa} lstm float32"
    sizes = {name: w.size for name, w in layer.parameters().items() if name.startswith("weight")}
    assert answer.flops == 2 * sum(sizes.values()) * 16 * 100 * (3 if training else 1)
    recurrent = sum(size for name, size in sizes.items() if name.startswith("weight_hh"))
    assert answer.recurrent_weight_bytes == 4 * recurrent
    assert answer.packed_bytes >= 4 * sum(sizes.values())
    assert 0 < answer.limit_us <= answer.expected_us
    assert answer.expected_share_of_limit == pytest.approx(answer.limit_us / answer.expected_us)
    twice = layer.explain(200, 16, training)
    assert twice.flops == 2 * answer.flops and twice.expected_us > answer.expected_us
    assert len(answer.layers) == 2
    for plan in answer.layers:
        assert plan["threads"] in (1, 2) and plan["step_ns_none"] > 0
        assert (plan["threads_from"] == "caller") == (plan["threads"] == 1)


def test_explain_without_work():
    answer = fastrnn.GRU(3, 4).explain(T=0, B=0)
    assert (answer.flops, answer.expected_us, answer.limit_us) == (0, 0, 0)
    assert answer.expected_share_of_limit == 0
    assert answer.recurrent_weight_bytes == 4 * 3 * 4 * 4


def test_build_info_and_probe():
    assert set(_core.isas()) <= set(_core.build_info()["isas_compiled"])
    assert _core.build_info()["version"] == _core.__version__
    assert all(value > 0 for value in _core.probe().values())
    assert _core.peak() > 0


# fork, threads

FORK = """
import os, sys
import numpy as np
import fastrnn
layer = fastrnn.LSTM(64, 128, num_layers=2, bidirectional=True, num_threads=2, seed=1)
x = np.random.default_rng(1).standard_normal((30, 32, 64)).astype(np.float32)
short = fastrnn.LSTM(64, 48, num_threads=2, seed=2)
def work():
    y, _, tape = layer.forward(x)
    found = [y, layer.backward(tape, y).input]
    stream = short.stream(num_threads=2)  # helpers come to whom they find calling
    found += [short(x[:, :1])[0] for _ in range(50)] + [stream.step(x[0, 0]) for _ in range(500)]
    return b"".join(a.tobytes() for a in found)
before = work()  # threads exist from here on
children = []
for _ in range(3):
    child = os.fork()
    if not child:
        os._exit(0 if work() == before else 1)
    children.append(child)
status = [os.waitpid(child, 0)[1] for child in children]
sys.exit(0 if status == [0, 0, 0] and work() == before else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_after_use(isa):
    """the child neither hangs for threads that it does not have, nor computes anything else"""
    done = python("-W", "ignore::DeprecationWarning", "-c", FORK, FASTRNN_ISA=isa, timeout=60)
    assert done.returncode == 0, done.stderr


def of_a_layer(rows):
    return fastrnn.LSTM(64, 256, num_threads=1, seed=1), np.zeros((200, rows, 64), np.float32)


def of_a_stream(rows):
    layer, x = of_a_layer(rows)
    return layer.stream(rows).step, x[0]


@pytest.mark.parametrize("call_of", [of_a_layer, of_a_stream])
def test_the_gil_is_released(call_of, isa):
    """while one thread computes, another one runs Python"""
    rows = 32
    call, x = call_of(rows)
    while timeit.timeit("call(x)", number=1, globals=dict(call=call, x=x)) < 0.05:
        rows *= 2
        call, x = call_of(rows)
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        start = time.perf_counter()
        call(x)
        end = time.perf_counter()
    finally:
        stop.set()
        thread.join()
    assert sum(start + 0.001 < t < end - 0.001 for t in ticks) >= 3


UPWARD = {"x86_64": 0x800, "AMD64": 0x800, "aarch64": 0x400000, "arm64": 0x400000}


@pytest.mark.skipif(platform.machine() not in UPWARD, reason="how it rounds upwards is not known")
def test_the_callers_rounding_does_not_change_a_bit(isa):
    """on its own thread, where packing and equations would follow it"""
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    layer = fastrnn.LSTM(16, 32, num_threads=2, seed=1)
    x = np.random.default_rng(1).standard_normal((20, 6, 16)).astype(np.float32)
    dy = np.ones((20, 6, 32), np.float32)

    def results(layer):
        y, _, tape = layer.forward(x)
        stream = layer.stream(6)
        found = [y, layer(x)[0], layer.backward(tape, dy).input, *(stream.step(row) for row in x)]
        return [a.tobytes() for a in found]

    wanted, other = results(copy.deepcopy(layer)), copy.deepcopy(layer)
    mode = libm.fegetround()
    libm.fesetround(UPWARD[platform.machine()])
    try:
        found = results(other)
        kept = libm.fegetround()
    finally:
        libm.fesetround(mode)
    assert kept == UPWARD[platform.machine()], "it is the caller's again"
    assert found == wanted


TRAPS = """
import ctypes, ctypes.util
import numpy as np
import fastrnn
layer = fastrnn.LSTM(4, 8, seed=1)
x = np.full((3, 1, 4), 200, np.float32)
stream, weights = layer.stream(), layer.state_dict()
layer(x)
ctypes.CDLL(ctypes.util.find_library("m")).feenableexcept(1 | 4 | 8 | 16)  # all but inexact
layer(x), stream.step(x[0, 0])
y, _, tape = layer.forward(x)
layer.backward(tape, y)
"""


@pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc", reason="glibc's function"
)
def test_nothing_traps():
    """a caller who has signals for overflow and the like gets none from here"""
    assert python("-c", TRAPS).returncode == 0


LEFT = """
import threading
import numpy as np
import fastrnn
started = threading.Event()
lstm, linear = fastrnn.LSTM(64, 128, num_threads=1), fastrnn.Linear(64, 128)
x = np.zeros((50, 16, 64), np.float32)
works = [lambda: lstm(x), lambda: lstm(x, lengths=[50] * 16), lambda: lstm.forward(x),
         lambda: linear(x), lambda: lstm.stream(4).process(x[:, :4])]
def loop(work):
    while True:
        work()
        started.set()
for work in works:
    threading.Thread(target=loop, args=(work,), daemon=True).start()
started.wait()
"""


def test_daemon_threads_may_still_compute_when_python_ends():
    """four at once, so that threads lose their cores; 1 of 40 ends crashed by two faults, mended"""
    with ThreadPoolExecutor(4) as pool:
        for done in pool.map(lambda _: python("-c", LEFT), range(16)):
            assert done.returncode == 0, done.stderr


def test_free_threaded_python_turns_the_gil_on():
    """what the module declares; elsewhere it is on anyway"""
    code = "import sys, fastrnn; print(getattr(sys, '_is_gil_enabled', lambda: True)())"
    done = python("-W", "ignore::RuntimeWarning", "-c", code, PYTHON_GIL=None)
    assert done.stdout.strip() == "True", done.stderr


def test_import_needs_numpy_only():
    """torch and matplotlib, where installed, stay unimported"""
    optional = {"torch", "matplotlib", "scipy", "safetensors"}
    code = f"import sys, fastrnn; print({optional} & set(sys.modules))"
    assert python("-c", code).stdout.strip() == "set()"


def test_package_is_small():
    root = os.path.dirname(fastrnn.__file__)
    sizes = [
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(root)
        for name in names
        if not name.endswith(".pyc")
    ]
    assert sum(sizes) < 5_000_000
    assert os.path.exists(os.path.join(root, "py.typed"))
