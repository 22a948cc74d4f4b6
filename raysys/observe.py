"""What a run says while it works: log lines and bars on stderr, and one run in Weights & Biases."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import rich.console
import rich.progress
import rich.table

from raysys import storage

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


class Tracker:
    """One run in Weights & Biases; every stage that knows the run's name adds to the same one."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Record values; `step` is the training step they belong to."""
        self._run.log({**values, **({"global_step": step} if step is not None else {})})

    @property
    def segment(self) -> str:
        """The directory, in the run folder's `wandb`, that holds what is recorded here."""
        return Path(self._run.dir).parent.name

    def log_table(
        self, name: str, columns: list[str], rows: list[list[Any]], step: int | None = None
    ) -> None:
        """Record a table; a cell may be a PIL picture."""
        import wandb

        cells = [[wandb.Image(cell) if hasattr(cell, "getexif") else cell for cell in row] for row in rows]
        self.log({name: wandb.Table(columns=list[str | int](columns), data=cells)}, step)

    def log_reference(self, name: str, kind: str, uri: str, fingerprint: str) -> None:
        """Record where a file lies and the fingerprint of what it stands for; nothing is uploaded."""
        import wandb

        place = f"file://{uri}" if storage.is_local(uri) else uri
        artifact = wandb.Artifact(
            re.sub(r"[^\w.-]", "-", f"{self._run.group}-{name}"),
            kind,
            metadata={"uri": uri, "fingerprint": fingerprint},
        )
        # Named by its content: W&B takes references of equal names and places for one version.
        artifact.add_reference(place, name=fingerprint, checksum=False)
        self._run.log_artifact(artifact)

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Set the run's final figures."""
        self._run.summary.update(dict(values))


@contextlib.contextmanager
def tracking(
    run_name: str, run_uri: str, config: Mapping[str, Any], *, mode: str, project: str, entity: str | None
) -> Iterator[Tracker]:
    """The W&B run of this training run; finished when the block ends. `mode` is one of `tracking_mode`'s.

    The id is derived from `run_uri`, so that restarts and later stages continue the same run. Offline each
    of them leaves a directory of its own in the run's folder; `wandb sync --append` sends them in order.
    """
    with _run_folder(run_uri) as folder:
        run = _start_run(run_name, run_uri, folder, config, mode=mode, project=project, entity=entity)
        try:
            yield Tracker(run)
        finally:
            run.finish()


def tracking_mode(mode: str) -> str:
    """`online`, `offline` or `disabled`: what `auto` comes to here, by whether there is a key."""
    if mode != "auto":
        return mode
    return os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")


@contextlib.contextmanager
def _run_folder(run_uri: str) -> Iterator[Path]:
    """The run's folder; for a run in a store a draft of it, whose files go there when the block ends."""
    if storage.is_local(run_uri):
        folder = storage.local_path(run_uri)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory() as draft:
        try:
            yield Path(draft)
        finally:
            storage.upload_folder(Path(draft), run_uri)


def _start_run(
    run_name: str,
    run_uri: str,
    folder: Path,
    config: Mapping[str, Any],
    *,
    mode: str,
    project: str,
    entity: str | None,
) -> Any:
    import wandb  # takes a second to import, and few stages need it

    run = wandb.init(
        project=project,
        entity=entity,
        name=run_name,
        id=hashlib.sha1(run_uri.encode()).hexdigest()[:12],
        group=run_name,
        resume="allow",
        mode=tracking_mode(mode),  # type: ignore[arg-type]  # one of wandb's literals
        dir=str(folder),
        config=dict(config),
        settings=wandb.Settings(init_timeout=30, console="off", x_disable_stats=True, silent=True),
    )
    run.define_metric("*", step_metric="global_step")
    return run
