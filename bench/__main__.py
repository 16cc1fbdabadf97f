"""python -m bench: times all cases; writes docs/performance.md, bench/results.json and README.md.

A full run takes half an hour with three rounds, and longer with the five it makes if not told
otherwise. With --cases or --quick the tables are only printed, unless --out says where to write;
--update puts the cases it measures into what is there, --native the step from C++ alone (it needs
CMake). --machine NAME keeps the page of another machine beside the first: docs/performance-NAME.md,
bench/results-NAME.json, no README. On more than two cores start it as `taskset -c 0,1 ...` (two
cores, not two threads of one): jax takes all it may use.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench import machine, memory, native, pool, readme, report, roofline, scaling
from bench.cases import TABLE, Case, select
from bench.measure import measure
from bench.timing import QUICK, Plan

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Place:
    """Where the page and the results of a machine are: of a named one beside those of the first."""

    folder: Path = ROOT
    machine: str = ""

    def path(self, folder: str, stem: str, ending: str) -> Path:
        name = f"{stem}-{self.machine}" if self.machine else stem
        return self.folder / folder / f"{name}{ending}"

    @property
    def page(self) -> Path:
        return self.path("docs", "performance", ".md")

    @property
    def results(self) -> Path:
        return self.path("bench", "results", ".json")

    def kept(self) -> dict[str, Any]:
        """What a full run has found on this machine: in the repository, wherever this writes to."""
        path = replace(self, folder=ROOT).results
        if not path.exists():
            raise ValueError(f"{path.name}: not there, a full run of this machine comes first")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def write(self, results: dict[str, Any]) -> None:
        for path, content in (
            (self.page, report.page(results)),
            (self.results, json.dumps(results, indent=1) + "\n"),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            print(f"wrote {path}")
        if self == Place():
            page = ROOT / "README.md"
            page.write_text(readme.fill(page.read_text(), results))


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    place = Place(options.out or ROOT, options.machine)
    whole = options.cases == "*" and not options.quick
    try:
        kept = place.kept() if options.native or options.update else {}
        cases = select(options.cases)
    except ValueError as wrong:
        parser().error(str(wrong))
    if options.machine and not (whole or kept or options.out):
        parser().error("--machine: nothing is written (--out, --update and --native do)")
    if options.native:
        place.write(kept | {"native": native.measure()})
        return 0
    if options.update:
        place.write(updated(kept, cases, Plan(rounds=options.rounds)))
        return 0
    plan = QUICK if options.quick else Plan(rounds=options.rounds)
    results = run(cases, plan, with_memory=whole or options.memory)
    if whole or options.pool:
        results["pool"] = pool.measure(plan)
    if whole or options.out:
        place.write(results)
    else:
        print("\n" + report.page(results))
    return 0


def updated(results: dict[str, Any], cases: list[Case], plan: Plan) -> dict[str, Any]:
    """The results with some cases measured anew, their rows in place of those that are there."""
    known = roofline.Limits(**results["limits"])
    measured = run(cases, plan, with_memory=False, known=known)
    rows = {row["case"]: row for row in results["rows"]}
    rows |= {row["case"]: row for row in measured["rows"]}
    kept = [rows[case.name] for case in TABLE if case.name in rows]
    model = scaling.measure()  # of the code that is built
    return results | {"rows": kept, "limits": measured["limits"], "scaling": model}


def run(
    cases: list[Case], plan: Plan, with_memory: bool, known: roofline.Limits | None = None
) -> dict[str, Any]:
    """Rows and what belongs to them; `known`: what this machine was already seen to reach."""
    limits = roofline.probe()
    if known:
        limits = limits.at_least(known)
    if plan.tries > 1:
        plan = replace(plan, missing=partial(roofline.missing_cores, limits))
    # First, since it needs a build of its own: what is missing shows before half an hour of rows.
    steps = native.measure() if with_memory else []
    rows = []
    for number, case in enumerate(cases, 1):
        row = measure(case, plan, limits)
        rows.append(row)
        times = "  ".join(f"{name} {report.short(s)}" for name, s in row["median"].items())
        ratio = report.against(row.get("ratio"), row["target"])
        share = report.against(row.get("share"), row["target_share"], "%")
        print(
            f"[{number}/{len(cases)}] {case.name}  {times}  ratio {ratio}  share {share}",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    return {
        "machine": machine.describe(),
        "limits": asdict(limits),
        "rows": rows,
        "native": steps,
        "scaling": scaling.measure() if with_memory else [],
        "memory": memory.measure() if with_memory else [],
    }


def plain_name(text: str) -> str:
    """A part of a file's name."""
    if not re.fullmatch(r"[A-Za-z0-9-]*", text):
        raise argparse.ArgumentTypeError(f"expected letters, digits and hyphens, got {text!r}")
    return text


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--cases", default="*", metavar="PATTERN", help="part of a name, or a glob")
    found.add_argument("--quick", action="store_true", help="one short block: is everything right?")
    found.add_argument("--rounds", type=int, default=5, help="alternating rounds (default 5)")
    found.add_argument("--memory", action="store_true", help="peak memory too (a full run has it)")
    found.add_argument("--native", action="store_true", help="the step from C++ and nothing else")
    found.add_argument("--pool", action="store_true", help="many streams too (a full run has it)")
    found.add_argument("--update", action="store_true", help="put the cases into what is there")
    found.add_argument("--out", type=Path, help="write below this folder")
    found.add_argument(
        "--machine", default="", type=plain_name, metavar="NAME", help="the page of another machine"
    )
    return found


if __name__ == "__main__":
    sys.exit(main())
