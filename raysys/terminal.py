"""Text for a terminal: no name, title or byte of a file can forge a line or control the terminal.

Whatever a command prints line by line passes through here once: results and errors in `cli.py`, log lines in
`tracking/logs.py`, the table of `raysys verify`. Callers do not escape. JSON has its own escapes.
Standard output may be closed, full or read by nobody, and its encoding may lack characters.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import TextIO

_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))  # change the order of a line
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)  # C0, DEL, C1, Unicode's ends of lines
_SURROGATES = range(0xD800, 0xE000)  # bytes that are not UTF-8; they cannot be written
_ESCAPES = {code: chr(code).encode("unicode_escape").decode() for code in (*_CONTROLS, *_BIDI, *_SURROGATES)}


def printable(text: object) -> str:
    """The text with control characters and bidirectional overrides as escapes, such as `\\n` and `\\x1b`."""
    return str(text).translate(_ESCAPES)


def print_line(text: object, out: TextIO) -> None:
    """Print one line, whatever the text has in it."""
    print(printable(text), file=out, flush=True)


def print_anything() -> None:
    """Let `print` to stdout accept every text. Changes the process: only for the entry point of a command."""
    if sys.stdout is None:  # closed by the shell: `>&-`
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # open while the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a title may not fit an ASCII terminal


def has_lost_reader() -> bool:
    """Whether the reader of stdout or stderr has ended, as in `raysys config FILE | head -1`."""
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def drop_unwritable_output() -> None:
    """Discard output that nobody can receive: Python would write it once more at its exit, and fail."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
