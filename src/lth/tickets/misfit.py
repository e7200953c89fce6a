"""What to answer where a ticket or a mask does not fit a model: some of the faults, and which module fits."""

from __future__ import annotations

from collections.abc import Collection, Sequence

LONGEST = 200  # characters of the faults that are listed


def format_misfit(beginning: str, faults: Sequence[str], given: Collection[str], own: Collection[str]) -> str:
    """A line with as many faults as there is room for. `given` are the ticket's names, `own` the model's."""
    listed = [faults[0] if len(faults[0]) <= LONGEST else f"{faults[0][:LONGEST]}..."]
    for fault in faults[1:]:
        if len("; ".join([*listed, fault])) > LONGEST:
            break
        listed.append(fault)
    more = f"; and {len(faults) - len(listed)} more" if len(faults) > len(listed) else ""
    return f"{beginning} {'; '.join(listed)}{more}{_format_prefix(given, own)}"


def _format_prefix(given: Collection[str], own: Collection[str]) -> str:
    """Which other module the names are those of, where a prefix makes them fit; else nothing."""
    if path := prefix(own, given):
        return f". Its names are those of the model's {path}: give model.{path}"
    if (path := prefix(given, own)) and all(name.startswith(f"{path}.") for name in given):
        return f". Its names begin with {path}, as those of a module that holds this one as {path}: give that one"
    return ""


def prefix(longer: Collection[str], shorter: Collection[str]) -> str:
    """The path that, before each name of `shorter`, makes it one of `longer`; empty where there is no such path."""
    first = min(shorter, key=len, default="")
    paths = {name.removesuffix(f".{first}") for name in longer if first and name.endswith(f".{first}")}
    fitting = (path for path in sorted(paths, key=len) if all(f"{path}.{name}" in longer for name in shorter))
    return next(fitting, "")
