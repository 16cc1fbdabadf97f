"""What to do about names of weights that are not those expected."""

from __future__ import annotations

from collections.abc import Sequence


def names_hint(of: str, missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """Return a hint for a dict `of` whose names are a cell's, a whole model's or those of
    reparametrized weights; "" for others."""
    if not missing:
        return ""
    cells = [name.removesuffix("_l0") for name in missing]
    if all(name in unexpected for name in cells):
        return f'a cell\'s names have no _l0: {{f"{{name}}_l0": w for name, w in {of}.items()}}'
    for name in missing:  # what torch's two kinds of reparametrizations leave of a weight
        if any(other.startswith(f"parametrizations.{name}.") for other in unexpected):
            return "torch.nn.utils.parametrize.remove_parametrizations(module, name) ends those"
        if f"{name}_g" in unexpected and f"{name}_v" in unexpected:
            return "torch.nn.utils.remove_weight_norm(module, name) ends those"
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
