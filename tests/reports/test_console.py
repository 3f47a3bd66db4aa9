"""The console: colour on a terminal alone, one line a line in a pipe, names that cannot do harm."""

import io
import os
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mlcls.reports.console import figure, heading, make_console, notes, safe, say, some
from mlcls.reports.grid import Column, print_grid

Read = Callable[[Console], str]


def test_a_pipe_gets_plain_unbroken_lines(
    pipe: Console, written: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    pipe = make_console(io.StringIO())
    heading(pipe, "Data")
    say(pipe, "word " * 60 + "end", style="bold red")
    notes(pipe, ["mind " * 60 + "it"])
    lines = written(pipe).splitlines()
    assert lines == ["", "Data", "word " * 60 + "end", "  note: " + "mind " * 60 + "it"]


def test_a_terminal_gets_colour_and_lines_that_fit(terminal: Callable[[int], Console], written: Read) -> None:
    console = terminal(60)
    say(console, "word " * 30, style="red")
    text = written(console)
    assert "\x1b[31m" in text
    assert text.count("\n") > 2


def test_no_color_is_honoured(
    terminal: Callable[[int], Console], written: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = terminal(60).file
    monkeypatch.setenv("NO_COLOR", "1")
    console = make_console(stream, width=60)
    say(console, "word", style="red")
    assert "\x1b[31m" not in written(console)


def test_a_dumb_terminal_is_a_pipe(
    terminal: Callable[[int], Console], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = terminal(80).file
    monkeypatch.setenv("TERM", "dumb")
    assert not make_console(stream).is_terminal


def test_a_real_terminal_is_found_with_its_width() -> None:
    pty = pytest.importorskip("pty")
    import fcntl
    import struct
    import termios

    keyboard, screen = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 97, 0, 0))
    with os.fdopen(screen, "w", encoding="utf-8") as stream:
        console = make_console(stream)
        terminal = console.is_terminal
        say(console, "seen")
    shown = os.read(keyboard, 1000).decode()
    os.close(keyboard)
    assert terminal == (os.environ.get("TERM", "").lower() not in ("dumb", "unknown"))
    assert "seen" in shown


def test_markup_and_control_characters_are_text(pipe: Console, written: Read) -> None:
    say(pipe, "a[1].jpg [bold]x[/] :smile: \x1b[2Jevil\r\t")
    assert written(pipe) == "a[1].jpg [bold]x[/] :smile: \\x1b[2Jevil\\r\\t\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_no_encoding_fails(encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = make_console(stream)
    heading(console, "日本語 – é \udcfc")
    print_grid(console, [Column("é", text=True), Column("–")], [["日本語", "–"], ["Straße", "1"]], last=1)
    stream.flush()
    text = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    if encoding == "utf-8":
        assert "日本語 – é \\udcfc" in text
    if encoding == "ascii":
        assert r"\u65e5\u672c\u8a9e - \xe9 \udcfc" in text


@given(st.text(), st.sampled_from(["ascii", "utf-8", "cp1252", "utf-16"]))
@settings(deadline=None)
def test_safe_text_is_one_printable_line_in_any_encoding(text: str, encoding: str) -> None:
    console = make_console(io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    shown = safe(console, text)
    assert shown.isprintable()
    shown.encode(encoding)


def test_figures_are_honest() -> None:
    assert [figure(x) for x in (None, float("nan"), 0.0, 0.12345, 999.9, 12345.6)] == [
        "–", "–", "0.000", "0.123", "999.900", "1.2e+04",
    ]  # fmt: skip
    assert figure(float("inf")) == "inf"
    assert some(["a", "b", "c"], 2) == "a, b and 1 more"
    assert some(["a", "b"], 2) == "a, b"


NUMBERS = [Column("present"), Column("absent", drop=1), Column("unknown", drop=2)]
names = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=70), min_size=1, max_size=5)


@given(names, st.integers(0, 10**9))
@settings(deadline=None)
def test_columns_in_a_pipe_end_below_each_other(labels: list[str], number: int) -> None:
    console = make_console(io.StringIO())
    print_grid(
        console, [Column("name", text=True), *NUMBERS], [[name, str(number), "1", "–"] for name in labels]
    )
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().split("\n")[:-1]
    assert len(lines) == len(labels) + 1
    assert len({cell_len(line) for line in lines}) == 1
    for name, line in zip(labels, lines[1:], strict=True):
        shown = safe(console, name)
        assert shown in line or (cell_len(shown) > 60 and shown[:8] in line and "…" in line)


@given(names, st.integers(44, 130))
@settings(deadline=None)
def test_a_terminal_is_never_exceeded_and_names_lose_no_more_than_their_middle(
    labels: list[str], width: int
) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=True, color_system=None, markup=False)
    rows = [[name, "12", "345", "6789"] for name in labels]
    dropped = print_grid(console, [Column("name", text=True), *NUMBERS], rows)
    lines = stream.getvalue().split("\n")
    assert all(cell_len(line) <= width for line in lines)
    assert dropped == ()  # 44 columns hold three short numbers and a name
    folded = "".join("".join(lines).split())
    for name in labels:
        kept = "".join(safe(console, name).split())
        assert len(kept) > 10 or kept in folded


@pytest.mark.parametrize(("width", "room"), [(44, 16), (200, 40), (0, 60)])
def test_a_long_name_loses_its_middle_and_stays_in_a_line(
    pipe: Console, terminal: Callable[[int], Console], written: Read, width: int, room: int
) -> None:
    console = terminal(width) if width else pipe
    rows = [["first_" + "x" * 100 + f"_{i}", "12", "345", "6789"] for i in range(3)]
    print_grid(console, [Column("name", text=True), *NUMBERS], [*rows, ["日本" * 40 + "語", "1", "2", "3"]])
    lines = [line[2:] for line in Text.from_ansi(written(console)).plain.splitlines()]
    shown = [line.split()[0] for line in lines[2 if width else 1 :]]
    assert [name[:6] + name[-3:] for name in shown[:3]] == ["first_x_0", "first_x_1", "first_x_2"]
    assert len(shown) == 4
    assert all(room - 2 <= cell_len(name) <= room and name.count("…") == 1 for name in shown[:3])
    assert shown[3][0] + shown[3][-1] == "日語"
    assert room - 2 <= cell_len(shown[3]) <= room


def test_names_that_differ_in_the_middle_stay_whole(
    terminal: Callable[[int], Console], written: Read
) -> None:
    console = terminal(44)
    names = ["a" * 40 + middle + "b" * 40 for middle in "xy"]
    print_grid(console, [Column("name", text=True), *NUMBERS], [[name, "1", "2", "3"] for name in names])
    lines = Text.from_ansi(written(console)).plain.splitlines()[2:]
    assert "".join(line[2:].split("  ")[0].strip() for line in lines) == "".join(names)
    assert "…" not in written(console)


def test_a_name_in_a_list_is_one_line(pipe: Console, written: Read) -> None:
    notes(pipe, [f"undefined: {some(['two' + chr(10) + 'lines', 'hat'])}"])
    assert written(pipe) == "  note: undefined: two\\nlines, hat\n"


def test_a_narrow_terminal_says_what_it_left_out(terminal: Callable[[int], Console], written: Read) -> None:
    console = terminal(38)
    assert print_grid(console, [Column("name", text=True), *NUMBERS], [["x" * 30, "1", "2", "3"]]) == (
        "unknown",
    )
    assert "unknown" not in written(console)
