"""The console that reports write to, and how text, names, numbers and headings look on it.

A terminal gets colour and bars; a pipe gets plain lines of any length. Every text passes through `safe`, so
that a name can neither be taken for markup, nor steer the terminal, nor fail in the stream's encoding.
"""

import math
import os
from collections.abc import Iterable, Sequence
from typing import IO

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

UNDEFINED = "–"
PIPE_WIDTH = 120
_ASCII = str.maketrans({"–": "-", "—": "-", "─": "-", "×": "x", "…": "~", "→": ">", "≥": ">", "·": "."})


def make_console(stream: IO[str], *, width: int | None = None) -> Console:
    """A console on `stream`: rich on a terminal, plain lines elsewhere (also on a terminal called dumb).

    Args:
        stream: where it writes; stderr for progress and reports, stdout for results alone.
        width: columns; by itself the terminal's, in a pipe 120. Lines in a pipe are never broken.

    A non-empty NO_COLOR in the environment leaves out colour, not progress bars.
    """
    terminal = stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    return Console(
        file=stream,
        width=width if terminal or width is not None else PIPE_WIDTH,
        force_terminal=terminal,  # decided here alone: FORCE_COLOR must not put escape codes into a pipe
        force_interactive=terminal,
        force_jupyter=False,
        color_system="auto" if terminal else None,
        markup=False,
        emoji=False,
        highlight=False,
    )


def safe(console: Console, text: str) -> str:
    """The text as the console's stream can show it, in one line.

    Control characters become escapes (a newline `\\n`), as does what the stream's encoding lacks; outside
    UTF-8 dashes and arrows fall back to ASCII.
    """
    text = one_line(text)
    if console.options.ascii_only:
        text = text.translate(_ASCII)
    return text.encode(console.encoding, "backslashreplace").decode(console.encoding)


def one_line(text: str) -> str:
    """A text, such as a name, without control characters: they become escapes, a newline `\\n`."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def emit(console: Console, line: Text) -> None:
    """Print one line: cut, with an ellipsis, where a terminal is too narrow; never broken."""
    if console.is_terminal:
        console.print(line, no_wrap=True, overflow="ellipsis")
    else:
        console.print(line, soft_wrap=True)


def say(console: Console, text: str, *, style: str = "", indent: int = 0) -> None:
    """Print a sentence. On a terminal it breaks between words; in a pipe each line of it stays one line."""
    for part in text.split("\n"):
        line = Text(safe(console, part), style=style)
        if console.is_terminal:
            console.print(Padding(line, (0, 0, 0, indent)) if indent else line)
        else:
            emit(console, Text(" " * indent) + line)


def heading(console: Console, title: str) -> None:
    """Print a title after an empty line, with a rule behind it on a terminal."""
    console.print()
    if not console.is_terminal:
        emit(console, Text(safe(console, title)))
        return
    line = Text.assemble((safe(console, f"── {title} "), "bold"))
    line.append(safe(console, "─") * max(2, min(console.width, PIPE_WIDTH) - line.cell_len), style="dim")
    console.print(line)


def facts(console: Console, pairs: Sequence[tuple[str, str]]) -> None:
    """Print pairs of a label and a value, the values below each other."""
    width = max((len(label) for label, _ in pairs), default=0)
    for label, value in pairs:
        start = f"  {safe(console, label):<{width}}  "
        line = Text(safe(console, value))
        if console.is_terminal:
            for i, part in enumerate(line.wrap(console, max(20, console.width - len(start)))):
                console.print(Text.assemble((start if i == 0 else " " * len(start), "dim"), part))
        else:
            emit(console, Text(start) + line)


def notes(console: Console, sentences: Iterable[str]) -> None:
    """Print each sentence as a note that a reader should not miss."""
    for sentence in sentences:
        say(console, f"note: {sentence}", style="yellow", indent=2)


def figure(value: float | None, decimals: int = 3) -> str:
    """A figure with three decimals, an undefined one (None, NaN) as a dash; a huge one shortened."""
    if value is None or math.isnan(value):
        return UNDEFINED
    return f"{value:.{decimals}f}" if abs(value) < 1000 else f"{value:.1e}"


def count(value: int | None) -> str:
    """A count with separators between thousands."""
    return UNDEFINED if value is None else f"{value:,}"


def plural(number: int, noun: str, nouns: str | None = None) -> str:
    """`1 image`, `2 images`."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first names, each in one line, and how many more there are."""
    more = len(names) - limit
    return ", ".join(map(one_line, names[:limit])) + (f" and {more:,} more" if more > 0 else "")
