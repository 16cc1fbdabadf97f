"""A readable answer to `layer.explain(T, B)`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


class Explanation(Mapping[str, object]):
    """How a call would be computed: a mapping whose entries are attributes too, and that prints."""

    def __init__(self, entries: dict[str, object]) -> None:
        self._entries = entries

    def __getitem__(self, key: str) -> object:
        return self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getattr__(self, name: str) -> object:
        try:
            return self.__dict__["_entries"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._entries]

    def __str__(self) -> str:
        width = max(map(len, self._entries), default=0)
        return "\n".join(
            f"{key.replace('_', ' '):{width}}  {_show(value, width + 2)}"
            for key, value in self._entries.items()
        )

    def __repr__(self) -> str:
        return f"Explanation({self._entries!r})"


def _show(value: object, indent: int = 0) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        if any(isinstance(part, Mapping) for part in value):  # one line for each layer
            return ("\n" + " " * indent).join(map(_show, value))
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {_show(v)}" for key, v in value.items())
    return str(value)
