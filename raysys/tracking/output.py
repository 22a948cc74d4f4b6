"""Standard output that is closed, full or read by nobody, or whose encoding lacks characters."""

from __future__ import annotations

import io
import os
import select
import sys


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
