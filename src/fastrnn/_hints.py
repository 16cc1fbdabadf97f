"""What to do about names of weights that are not those expected."""

from __future__ import annotations

from collections.abc import Sequence


def names_hint(of: str, missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """Return a hint for a dict `of` whose names are a cell's, or a whole model's; "" for others."""
    if not missing:
        return ""
    cells = [name.removesuffix("_l0") for name in missing]
    if all(name in unexpected for name in cells):
        return f'a cell\'s names have no _l0: {{f"{{name}}_l0": w for name, w in {of}.items()}}'
    found = _prefixes(missing, unexpected) or _prefixes(cells, unexpected)
    if not found:
        return ""
    which = "these names" if all(name.startswith(found) for name in unexpected) else "some of these"
    return f"{which} begin with {' or '.join(map(repr, found))}"


def _prefixes(missing: Sequence[str], unexpected: Sequence[str]) -> tuple[str, ...]:
    """All behind which every missing name is found."""
    first, there = missing[0], set(unexpected)
    ends = [name for name in unexpected if name.endswith(first) and name != first]
    prefixes = [name.removesuffix(first) for name in ends]
    return tuple(p for p in prefixes if all(p + name in there for name in missing))
