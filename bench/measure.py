"""One case: prepared, checked, timed, held against its limit. A row is what results.json keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench import checking, problem, roofline
from bench.cases import Case
from bench.timing import Plan, interleave

Row = dict[str, Any]
# Timed beside themselves; the others of such a case only check the results.
SELF = {"odd": ("fastrnn",), "denormals": ("fastrnn", "torch"), "threads": ("fastrnn",)}
PEERS = ("torch", "onnxruntime", "openvino")  # whom the targets are about


def measure(case: Case, plan: Plan, limits: roofline.Limits) -> Row:
    if case.beside:
        return _beside(case, case.beside, plan)
    plan = replace(plan, pause=case.pause)
    ready = checking.prepare_all(case)
    times = interleave({name: library.run for name, library in ready.items()}, plan)
    row = _row(case, times)
    row["settings"] = {
        name: {"chosen": library.variant, "tried": library.tried}
        for name, library in ready.items()
        if library.variant
    }
    peers = [name for name in PEERS if name in ready]
    if peers:
        row["best"] = min(peers, key=times.time)
    if "fastrnn.torch" in ready:
        row["ratio"] = times.ratio("torch", "fastrnn.torch")
        row["overhead"] = (times.time("fastrnn.torch") - times.time("fastrnn")) * 1e6
        row["target_overhead"] = case.overhead
    elif "fastrnn" in ready:
        if peers:
            row["ratio"] = times.ratio(row["best"], "fastrnn")
        if not case.pause:  # the limits are those of warm caches
            row["floor"] = roofline.floor(case, problem.make(case).live, limits)
            row["share"] = row["floor"] / times.time("fastrnn")
    return row


def _beside(case: Case, other: Case, plan: Plan) -> Row:
    """The ratio is that of times for each useful flop: 1 is even, less is slower than `other`."""
    pair = checking.prepare_all(case), checking.prepare_all(other)
    names = [name for name in SELF[case.group] if name in pair[0]]
    runs = {name: pair[0][name].run for name in names}
    runs |= {f"{name} beside": pair[1][name].run for name in names}
    times = interleave(runs, plan)
    work = roofline.flops(case, 1) / roofline.flops(other, 1)
    row = _row(case, times) | {"beside": other.name}
    row["ratios"] = {name: times.ratio(f"{name} beside", name) * work for name in names}
    if "fastrnn" in names:
        row["ratio"] = row["ratios"]["fastrnn"]
    return row


def _row(case: Case, times: Any) -> Row:
    return {
        "case": case.name,
        "group": case.group,
        "target": case.target,
        "target_share": case.share,
        "seconds": times.seconds,
        "median": {name: times.time(name) for name in times.seconds},
        "others": times.others,
    }
