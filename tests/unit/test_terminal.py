"""Text from files cannot control a terminal: each line that is printed is one line, readable as it is."""

from __future__ import annotations

import io
import logging

import pytest

from raysys.terminal import as_size, print_line, print_traceback, printable, printable_lines
from raysys.tracking import logs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nraysys: all healthy", r"a\nraysys: all healthy"),
        ("\r\t\0", r"\r\t\x00"),
        ("\x1b[2J\x07\x7f", r"\x1b[2J\x07\x7f"),
        ("\x9b31m", r"\x9b31m"),  # C1: the same as ESC [
        ("\u2028\u2029", r"\u2028\u2029"),
        ("gpj.\u202eexe\u2066", r"gpj.\u202eexe\u2066"),
        ("a\udce9", r"a\udce9"),
        ("赤いドレス　Ｍ", "赤いドレス　Ｍ"),
        ("👩‍👩‍👧 ❤️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿", "👩‍👩‍👧 ❤️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿"),
        ("[red]x[/red] :smile: é", "[red]x[/red] :smile: é"),
        (r"C:\new", r"C:\new"),
    ],
)
def test_control_characters_are_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected
    out = io.StringIO()
    print_line(text, out)
    assert out.getvalue() == expected + "\n"


@pytest.mark.parametrize(
    ("text", "max_length", "expected"),
    [
        ("red dress", 9, "red dress"),
        ("red summer dress", 15, "red s ... dress"),
        ("red\n" + "x" * 1000 + "\n; pack again", 33, "red\\nxxxxxxxxx ... \\n; pack again"),
        ("\x1b" * 4, 15, r"\x1b\ ... b\x1b"),  # 4 characters become 16
        ("a" + "\0" * 10_000_000 + "b", 13, r"a\x0 ... x00b"),
        ("赤いドレス" * 9, 10, "赤い ... レス"),
    ],
)
def test_long_line_loses_its_middle(text: str, max_length: int, expected: str) -> None:
    line = printable(text, max_length)
    assert line == expected
    assert len(line) <= max_length


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 bytes"),
        (1, "1 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (702_575, "702.6 kB"),
        (1_000_000, "1.0 MB"),
        (2_500_000_000, "2.5 GB"),
        (1_500_000_000_000_000, "1500.0 TB"),
    ],
)
def test_no_size_but_0_looks_like_0(num_bytes: int, text: str) -> None:
    assert as_size(num_bytes) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("first\n\tsecond\n", "first\n\tsecond\n"),
        ("epoch 1\repoch 2\r\n", "epoch 1\\repoch 2\\r\n"),
        ("\x1b]0;title\x07 \x9b2J", r"\x1b]0;title\x07 \x9b2J"),
        ("a\u2028b\u202ec\udce9", r"a\u2028b\u202ec\udce9"),
        ("赤い 👗", "赤い 👗"),
    ],
)
def test_text_of_several_lines_keeps_its_newlines_only(text: str, expected: str) -> None:
    assert printable_lines(text) == expected
    assert "".join(map(printable_lines, text)) == expected  # it arrives in parts


def test_traceback_has_no_control_characters() -> None:
    error = KeyError("red\x1b[2J")
    error.__cause__ = ValueError("a\rb\n\x9b31mc")
    error.add_note("note\x07")
    out = io.StringIO()
    print_traceback(error, out)
    assert out.getvalue() == (
        "ValueError: a\\rb\n\\x9b31mc\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "KeyError: 'red\\x1b[2J'\nnote\\x07\n"
    )


def test_traceback_in_the_log_has_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    logs.log_to_stderr()
    try:
        raise ValueError("a\x1b[2J\rb")
    except ValueError:
        logging.getLogger("raysys").exception("failed")
    lines = capsys.readouterr().err.splitlines()
    assert (lines[0], lines[1], lines[-1]) == (
        "failed",
        "Traceback (most recent call last):",
        r"ValueError: a\x1b[2J\rb",
    )


def test_log_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("raysys")
    logs.log_to_stderr()
    log.info("    query  %s", "red\n\x1b[31mdress 赤 [bold]")
    assert capsys.readouterr().err == "    query  red\\n\\x1b[31mdress 赤 [bold]\n"
