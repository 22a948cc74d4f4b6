"""Text from files cannot control a terminal: each line that is printed is one line, readable as it is."""

from __future__ import annotations

import io
import logging

import pytest

from raysys.terminal import print_line, printable
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


def test_log_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("raysys")
    logs.log_to_stderr()
    log.info("    query  %s", "red\n\x1b[31mdress 赤 [bold]")
    assert capsys.readouterr().err == "    query  red\\n\\x1b[31mdress 赤 [bold]\n"
