"""Log lines and progress bars on stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator

import rich.console
import rich.progress
import rich.table

log = logging.getLogger("raysys")
Advance = Callable[[int], None]
Show = Callable[[int, str], None]


def show_logs(*, debug: bool = False) -> None:
    """Send raysys's own log lines to stderr."""
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    log.propagate = False


class _Stderr(logging.Handler):
    """Writes to what stderr is at the time: while a bar is shown, that puts lines above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        sys.stderr.write(self.format(record) + "\n")
        sys.stderr.flush()


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """A bar on a terminal; nothing elsewhere. Call what it yields with the number of things done so far."""
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
        yield lambda done: bars.update(task, completed=done)


@contextlib.contextmanager
def status_bar(label: str, total: int) -> Iterator[Show | None]:
    """A bar with words beside it, for work that counts its own time; None where there is no terminal."""
    console = rich.console.Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    words = rich.table.Column(no_wrap=True, overflow="ellipsis")
    columns = (
        rich.progress.TextColumn("{task.description:>9}"),
        rich.progress.BarColumn(bar_width=16),
        rich.progress.TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        rich.progress.TextColumn("{task.fields[words]}", table_column=words, markup=False),
    )
    with rich.progress.Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(label, total=total, words="starting")
        yield lambda done, words: bars.update(task, completed=done, words=words)


def stage_line(stage: str, num_items: int, seconds: float, uri: str) -> str:
    """The one line a stage ends in."""
    rate = num_items / seconds if seconds > 0 else 0.0
    return f"{stage:>9}  {num_items:,} items  {seconds:.1f} s  {rate:,.0f} items/s  {uri}"


def skipped_line(stage: str, num_items: int, uri: str) -> str:
    """The one line of a stage that had nothing to do."""
    return f"{stage:>9}  {num_items:,} items  up to date: skipped  {uri}"
