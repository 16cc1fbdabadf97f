"""The command line: `python -m fastrnn demo`, `info`, `latency` and `cmake-dir`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from . import __version__, _core, info
from ._arguments import MOST_INT, MOST_THREADS
from ._explain import show
from ._latency import CELLS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "demo":
        from .demo import run  # NumPy alone, but the other commands need none of it

        return run(epochs=options.epochs, threads=options.threads, out=options.out)
    if options.command == "info":
        print(show(info()))
        return 0
    if options.command == "cmake-dir":
        folder = Path(__file__).parent / "lib" / "cmake" / "fastrnn"
        if not folder.is_dir():
            parser.error(f"cmake-dir: this package was built without the C++ library ({folder})")
        print(folder.as_posix())
        return 0
    if options.command == "latency":
        return _latency(parser, options)
    parser.print_help()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastrnn",
        description="fastrnn: RNN, LSTM and GRU on CPUs, forward and backward through time.",
    )
    parser.add_argument("--version", action="version", version=f"fastrnn {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    _add_demo(commands)
    _add_latency(commands)
    commands.add_parser(
        "info",
        help="version, instruction set, threads, compiler, build options",
        description="Print what decides speed and belongs in a bug report.",
    )
    commands.add_parser(
        "cmake-dir",
        help="where CMake finds the C++ library of this package",
        description=(
            "Print the folder of the CMake package for C and C++ that is part of this one: "
            'cmake -Dfastrnn_DIR="$(python -m fastrnn cmake-dir)", then '
            "find_package(fastrnn CONFIG REQUIRED) and the target fastrnn::fastrnn."
        ),
    )
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="train a CO2 forecaster, stream it, compare it; under a minute",
        description=(
            "Train an LSTM on the weekly CO2 record of Mauna Loa (Keeling & Whorf 2004, shipped "
            "with the package), compare it on years it never saw with three seasonal-naive "
            "forecasts, then stream those years one sample at a time and compare the bits. "
            "Exit status 1 when the forecast loses or a bit differs."
        ),
    )
    demo.add_argument(
        "--epochs",
        type=_positive,
        default=50,
        metavar="N",
        help="passes over the record (%(default)s)",
    )
    demo.add_argument(
        "--threads",
        type=partial(_positive, most=MOST_THREADS),
        metavar="N",
        help="threads to use at most (all of this process)",
    )
    demo.add_argument(
        "--out",
        default="fastrnn_demo.png",
        metavar="FILE",
        help="where the picture goes; without matplotlib it is printed instead (%(default)s)",
    )


def _add_latency(commands: Any) -> None:
    latency = commands.add_parser(
        "latency",
        help="p50, p99, p99.9 and max of a million steps of a stream",
        description=(
            "Time each of many steps of a stream, in C++ around the kernel alone and in Python "
            "around Stream.step(x, out): percentiles, the largest, and a histogram."
        ),
    )
    latency.add_argument("--cell", choices=tuple(CELLS), default="lstm")
    for name, default, text in (
        ("input", 1, "inputs"),
        ("hidden", 32, "units of a layer"),
        ("layers", 1, "layers"),
        ("batch", 1, "rows of the stream"),
        ("threads", 1, "threads that share a step"),
        ("steps", 1_000_000, "steps to time"),
    ):
        kind = partial(_positive, most=MOST_THREADS) if name == "threads" else _positive
        latency.add_argument(
            f"--{name}", type=kind, default=default, metavar="N", help=f"{text} (%(default)s)"
        )
    latency.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    latency.add_argument(
        "--bfloat16", action="store_true", help="weights rounded to bfloat16 (of float32)"
    )
    latency.add_argument("--png", metavar="FILE", help="write a picture too (needs matplotlib)")


def _latency(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from . import _latency as latency

    if options.bfloat16 and options.dtype != "float32":
        parser.exit(2, f"{parser.prog} latency: --bfloat16: expected --dtype float32\n")
    names = ("layers", "batch", "threads", "dtype", "steps")
    shown = ", ".join(f"{name} {getattr(options, name)}" for name in names)
    shown += ", weights bfloat16" if options.bfloat16 else ""
    title = (
        f"{options.cell}: input {options.input}, hidden {options.hidden}, {shown}; {_core.isa()}"
    )
    try:
        chosen = {name: getattr(options, name) for name in (*names, "bfloat16")}
        if options.png is not None:  # not only after a million steps
            latency.check_picture(options.png)
        found = latency.measure(options.cell, options.input, options.hidden, **chosen)
        print(latency.report(title, found))
        if options.png is not None:
            print(latency.draw(title, found, options.png))
    except (ValueError, OSError, MemoryError) as error:
        parser.exit(2, f"{parser.prog} latency: {error}\n")
    return 0


def _positive(text: str, most: int = MOST_INT) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= most:
        raise argparse.ArgumentTypeError(f"expected an integer from 1 to {most}, got {text!r:.80}")
    return number


if __name__ == "__main__":
    sys.exit(main())
