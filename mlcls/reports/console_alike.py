"""How the console names images that are one photo: groups, what their labels contradict, and leaks between subsets.

In a pipe each fact is one line with whole names. On a terminal that is too narrow for that, a group has a line of
its own, and long names lose their middle; `metrics.json` has them whole.
"""

from collections.abc import Sequence

from rich.console import Console

from mlcls.reports.console import plural, some
from mlcls.reports.record import Contradiction, DataFacts

SAME, NEAR = " = ", " ~ "  # between the names of identical and of near-identical images
_GROUPS = 5
_IMAGES = 5  # of a group that are named
_LABEL = 22  # columns in front of a value
_SHORTEST = 16  # of a name


def alike_facts(console: Console, data: DataFacts) -> list[tuple[str, str]]:
    """Pairs of a label and a value for `facts`; a value that goes on below has an empty label there."""
    room = console.width - _LABEL if console.is_terminal else None
    parts = {
        "identical images": _groups(data.duplicates, SAME, room),
        "near-identical": _groups(data.near_duplicates, NEAR, room),
        "conflicting labels": _conflicts(data, room),
    }
    if data.leaks:
        groups = _groups(data.leaks, NEAR, room)
        parts["leaks"] = [groups[0].replace(":", " of one photo in several subsets:", 1), *groups[1:]]
    return [
        (label if not index else "", line)
        for label, lines in parts.items()
        for index, line in enumerate(lines)
    ]


def _groups(groups: Sequence[Sequence[str]], sign: str, room: int | None) -> list[str]:
    """`2 groups: a = b; c = d` where that fits, else a line for each group."""
    if not groups:
        return ["none"]
    head = f"{plural(len(groups), 'group')}:"
    more = [f"and {len(groups) - _GROUPS:,} more"] if len(groups) > _GROUPS else []
    whole = f"{head} {'; '.join([_joined(group, sign) for group in groups[:_GROUPS]] + more)}"
    if room is None or len(whole) <= room:
        return [whole]
    return [
        head,
        *(f"  {line}" for line in [_joined(group, sign, room - 2) for group in groups[:_GROUPS]] + more),
    ]


def _joined(names: Sequence[str], sign: str, room: int | None = None) -> str:
    """The first names, shortened where they do not fit into a line of `room` columns."""
    shown = list(names[:_IMAGES])
    text = sign.join(shown)
    if room is not None and len(text) > room:
        limit = max(_SHORTEST, (room - len(sign) * (min(len(shown), 2) - 1)) // min(len(shown), 2))
        text = sign.join(_shortened(name, limit) for name in shown)
    return text + (f"{sign}{len(names) - _IMAGES:,} more" if len(names) > _IMAGES else "")


def _shortened(name: str, limit: int) -> str:
    """The name without its middle: its beginning tells names apart best, its end is the file's suffix."""
    if len(name) <= limit:
        return name
    end = min(9, limit // 4)
    return f"{name[: limit - end - 1]}…{name[-end:]}"


def _conflicts(data: DataFacts, room: int | None) -> list[str]:
    """How many groups contradict themselves, and below it which of their images says what."""
    if not data.contradictions:
        return _groups(data.conflicts, SAME, room)
    lines = []
    for groups, near, what in (
        (data.conflicts, False, ""),
        (data.near_conflicts, True, " of near-identical images"),
    ):
        if groups:
            lines.append(f"{plural(len(groups), f'group{what}', f'groups{what}')}:")
            lines += _sides([found for found in data.contradictions if found.near == near], near, room)
    return lines


def _sides(contradictions: Sequence[Contradiction], near: bool, room: int | None) -> list[str]:
    """A line for each of the first pairs of sides: the attributes, who shows them, and who does not."""
    sides: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for found in contradictions:
        sides.setdefault((found.present, found.absent), []).append(found.attribute)
    lines = []
    for (present, absent), attributes in list(sides.items())[:_GROUPS]:
        start = f"  {some(attributes)}: "
        left = None if room is None else max(_SHORTEST, (room - len(start) - len(" yes,  no")) // 2)
        yes, no = (_joined(names, NEAR if near else SAME, left) for names in (present, absent))
        lines.append(f"{start}{yes} yes, {no} no")
    return lines + ([f"  and {len(sides) - _GROUPS:,} more"] if len(sides) > _GROUPS else [])
