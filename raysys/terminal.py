"""Text for a terminal: no name, title or byte of a file can forge a line or control the terminal.

Whatever a command prints line by line passes through here once: results and errors in `cli.py`, log lines in
`tracking/logs.py`, the table of `raysys verify`. Callers do not escape. JSON has its own escapes.
Tracebacks and the logs of jobs have lines of their own: `printable_lines` keeps these.
Standard output may be closed, full or read by nobody, and its encoding may lack characters.
"""

from __future__ import annotations

import io
import os
import select
import sys
import traceback
from typing import TextIO

_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))  # change the order of a line
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)  # C0, DEL, C1, Unicode's ends of lines
_SURROGATES = range(0xD800, 0xE000)  # bytes that are not UTF-8; they cannot be written
_ESCAPES = {code: chr(code).encode("unicode_escape").decode() for code in (*_CONTROLS, *_BIDI, *_SURROGATES)}
_ESCAPES_IN_LINES = {code: escape for code, escape in _ESCAPES.items() if chr(code) not in "\n\t"}
_CUT = " ... "


def printable(text: object, max_length: int | None = None) -> str:
    """The text as one line: control characters and bidirectional overrides are escapes (`\\n`, `\\x1b`).

    A line of more than `max_length` characters loses its middle: the end of a message says what to do.
    """
    line = str(text)
    if max_length is None:
        return line.translate(_ESCAPES)
    if len(line) > 2 * max_length:  # a request may be quoted whole: escape only what can remain
        line = line[:max_length] + line[-max_length:]
    line = line.translate(_ESCAPES)
    half = (max_length - len(_CUT)) // 2
    return line if len(line) <= max_length else f"{line[:half]}{_CUT}{line[-half:]}"


def printable_lines(text: str) -> str:
    """A text of several lines, or a part of one: as `printable`, but newlines and tabs stay."""
    return text.translate(_ESCAPES_IN_LINES)


def as_size(num_bytes: int) -> str:
    """`1.5 GB`: in the largest unit in which it is at least 1, so that no size but 0 looks like 0."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes} bytes"


def print_line(text: object, out: TextIO) -> None:
    """Print one line, whatever the text has in it."""
    print(printable(text), file=out, flush=True)


def print_traceback(error: BaseException, out: TextIO) -> None:
    """Print the traceback of an error as Python does, whatever its message has in it."""
    print(printable_lines("".join(traceback.format_exception(error))), end="", file=out, flush=True)


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
