"""A readable answer to `layer.explain(T, B)`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload


class LayerPlan(TypedDict):
    """How one layer would be computed; `layer.explain` says what the entries are."""

    threads: int
    split: Literal["none", "rows", "pipeline", "units", "layers"]
    why: str
    threads_from: Literal["caller", "helpers", "region"]
    concurrent_directions: int
    weights: Literal["float32", "float64", "bfloat16"]
    input_hoisted: bool
    hoisted_steps: int
    step_ns: float
    step_ns_none: float
    step_ns_rows: float
    step_ns_pipeline: float
    step_ns_units: float
    step_ns_layers: float


class Explanation(Mapping[str, object]):
    """How a call would be computed: a mapping whose entries are attributes too, and that prints."""

    kernel: str
    isa: str
    layers: list[LayerPlan]
    flops: float
    recurrent_weight_bytes: float
    packed_bytes: int
    expected_us: float
    limit_us: float
    expected_share_of_limit: float

    def __init__(self, entries: dict[str, Any]) -> None:
        self._entries = entries

    @overload
    def __getitem__(self, key: Literal["kernel", "isa"]) -> str: ...
    @overload
    def __getitem__(self, key: Literal["layers"]) -> list[LayerPlan]: ...
    @overload
    def __getitem__(self, key: Literal["packed_bytes"]) -> int: ...
    @overload
    def __getitem__(
        self,
        key: Literal[
            "flops", "recurrent_weight_bytes", "expected_us", "limit_us", "expected_share_of_limit"
        ],
    ) -> float: ...
    @overload
    def __getitem__(self, key: str) -> object: ...
    def __getitem__(self, key: str) -> object:
        return self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    if not TYPE_CHECKING:  # which knows all there are

        def __getattr__(self, name: str) -> object:
            try:
                return self.__dict__["_entries"][name]
            except KeyError:
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._entries]

    def __str__(self) -> str:
        lines = {name: value for name, value in self._entries.items() if name != "layers"}
        return f"{show(lines)}\n\n{_layers_table(self.layers)}"

    def __repr__(self) -> str:
        return f"Explanation({self._entries!r})"


def show(entries: Mapping[str, object]) -> str:
    """Return the entries as text, a line each."""
    width = max(map(len, entries), default=0)
    return "\n".join(
        f"{key.replace('_', ' '):{width}}  {_show(value)}" for key, value in entries.items()
    )


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _layers_table(plans: Sequence[LayerPlan]) -> str:
    """Return a row a layer, then the reasons, each with the layers it is that of."""
    rows = [("layer", "threads", "split", "from", "weights", "us a step")]
    reasons: dict[str, list[str]] = {}
    for number, plan in enumerate(plans, 1):
        time = f"{plan['step_ns'] / 1e3:,.3f}"
        words = plan["split"], plan["threads_from"], plan["weights"]
        rows.append((str(number), str(plan["threads"]), *words, time))
        reasons.setdefault(plan["why"], []).append(str(number))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(  # words to the left, numbers to the right
            f"{cell:{width}}" if index in (2, 3, 4) else f"{cell:>{width}}"
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([*table, *(f"{', '.join(who)}: {why}" for why, who in reasons.items())])
