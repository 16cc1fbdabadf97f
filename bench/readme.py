"""The README's table of speed, between its two marks, from the rows of results.json."""

from __future__ import annotations

import re
from typing import Any

from bench.report import UNSTEADY, label, table, times, unsteady

LIBRARIES = {
    "fastrnn": "fastrnn",
    "torch": "torch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
}
PREFIXES = {
    "stream": "a step of",
    "sequence": "inference",
    "batch": "inference",
    "training": "training",
    "pauses": "once every 30 ms, a call of",
}
CASES = (
    "stream-lstm-T1-B1-H32",
    "stream-lstm-T1-B1-H128",
    "stream-gru-T1-B1-H64",
    "sequence-lstm-T100-B1-H64",
    "sequence-lstm-T100-B1-H256",
    "sequence-gru-T100-B1-H128",
    "batch-lstm-T100-B64-H256",
    "batch-lstm-T100-B64-H256-ragged",
    "training-lstm-T100-B64-H256",
    "training-lstm-T100-B64-H256-ragged",
    "training-gru-T100-B64-H256",
    "training-gru-T100-B1-H128",
    "training-rnn-T100-B64-H256",
    "pauses-lstm-T1-B1-H128",
    "pauses-lstm-T10-B1-H256",
    "pauses-lstm-T100-B1-H128",
)


def fill(readme: str, results: dict[str, Any]) -> str:
    """The text with its table replaced; rows that were not measured are left out."""
    rows = {row["case"]: row for row in results["rows"]}
    libraries = list(LIBRARIES)
    body = []
    for case in CASES:
        if case not in rows:
            continue
        median = {name: s for name, s in rows[case]["median"].items() if name in LIBRARIES}
        name = f"{PREFIXES[rows[case]['group']]} {label(case)}"
        body.append([name, *times(median, libraries, unsteady(rows[case]))])
    text = table(["case", *LIBRARIES.values()], body)
    if any("†" in line[1] for line in body):
        text += f"\n† The slowest round took more than {UNSTEADY} times the fastest.\n"
    marks = r"(<!-- speed -->\n).*(<!-- /speed -->)"
    return re.sub(marks, lambda found: found[1] + text + found[2], readme, flags=re.DOTALL)
