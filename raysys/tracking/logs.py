"""Log lines and progress bars on stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType

import rich.console
import rich.progress
import rich.table

from raysys.terminal import printable, printable_lines

log = logging.getLogger("raysys")
Advance = Callable[[int], None]
ShowStatus = Callable[[int, str], None]
_ExceptionInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)  # as `logging` declares it


def log_to_stderr(*, debug: bool = False) -> None:
    """Send the log lines of raysys, and only those, to stderr."""
    handler = _StderrHandler()
    handler.setFormatter(_OneLine("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    log.propagate = False


class _OneLine(logging.Formatter):
    """A message is one line, whatever it quotes from files; a traceback behind it keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message without control characters."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: _ExceptionInfo) -> str:
        """The traceback without control characters other than its newlines."""
        return printable_lines(super().formatException(ei))


class _StderrHandler(logging.Handler):
    """Looks up `sys.stderr` for every line: while a bar is shown, rich replaces it to print lines above."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        sys.stderr.write(self.format(record) + "\n")
        sys.stderr.flush()


@contextlib.contextmanager
def forwarded(label: str, send: Callable[[str], object]) -> Iterator[None]:
    """Pass the lines that this process logs to `send` as well, without `label`, which the receiver adds."""

    class Forwarder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            send(record.getMessage().strip().removeprefix(label).lstrip())

    handler, level = Forwarder(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """A progress bar, on a terminal only. Call the yielded function with the number of completed units."""
    columns = (
        rich.progress.TextColumn("{task.description:>9}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task(label, total=total)
        yield lambda completed: bars.update(task, completed=completed)


@contextlib.contextmanager
def status_bar(label: str, total: int) -> Iterator[ShowStatus | None]:
    """A progress bar with a status text instead of rich's own time estimate; None without a terminal.

    Call the yielded function with the number of completed units and the text.
    """
    console = rich.console.Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    text_column = rich.table.Column(no_wrap=True, overflow="ellipsis")
    columns = (
        rich.progress.TextColumn("{task.description:>9}"),
        rich.progress.BarColumn(bar_width=16),
        rich.progress.TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        rich.progress.TextColumn("{task.fields[text]}", table_column=text_column, markup=False),
    )
    with rich.progress.Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(label, total=total, text="starting")
        yield lambda completed, text: bars.update(task, completed=completed, text=text)


def stage_line(stage: str, num_items: int, seconds: float, uri: str) -> str:
    """The summary line of a completed stage."""
    rate = num_items / seconds if seconds > 0 else 0.0
    return f"{stage:>9}  {num_items:,} items  {seconds:.1f} s  {rate:,.0f} items/s  {uri}"


def refused_line(stage: str, num_items: int, refused: Mapping[str, int], ledgers: Sequence[str]) -> str:
    """The line that counts the refused rows of a stage by reason and names their ledgers."""
    num_refused = sum(refused.values())
    counts = ", ".join(f"{count:,} {reason}" for reason, count in refused.items())
    total = num_items + num_refused
    line = f"{stage:>9}  {num_refused:,} of {total:,} rows refused: {counts}; ledger: {', '.join(ledgers)}"
    return f"{line}; --retry-refused tries the unreachable ones again" if "unreachable" in refused else line


def skipped_line(stage: str, num_items: int, uri: str) -> str:
    """The summary line of a stage whose artifact is up to date."""
    return f"{stage:>9}  {num_items:,} items  up to date: skipped  {uri}"
