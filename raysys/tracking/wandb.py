"""Weights & Biases: a W&B run, and a logger that logs every metric once, however often training restarts.

Offline, W&B buffers up to 32 KiB of metrics in memory: a process that is killed leaves an incomplete segment
(the folder of one `wandb.init`). The next start removes it and logs the metrics again from the run's folder;
`wandb/logged.json` records which ones W&B already has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from raysys import artifacts, storage
from raysys.artifacts import EncoderBundleManifest
from raysys.config.schema import TrackingConfig
from raysys.errors import TrackingError, shortened
from raysys.tracking.metrics_log import (
    neighbour_grid_uri,
    read_steps,
    read_validations,
)


class WandbRun:
    """One run in Weights & Biases; all stages of a training run add to the same one."""

    def __init__(self, run: Any) -> None:
        self._run = run

    @property
    def segment(self) -> str:
        """The name of the folder, below the run folder's `wandb`, with the data of this process."""
        return Path(self._run.dir).parent.name

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log values; `step` is their training step."""
        self._run.log({**values, **({"global_step": step} if step is not None else {})})

    def log_table(
        self, name: str, columns: list[str], rows: list[list[Any]], step: int | None = None
    ) -> None:
        """Log a table; a cell may be a PIL image."""
        import wandb

        cells = [[wandb.Image(cell) if hasattr(cell, "getexif") else cell for cell in row] for row in rows]
        self.log({name: wandb.Table(columns=list[str | int](columns), data=cells)}, step)

    def log_reference(self, name: str, kind: str, uri: str, fingerprint: str) -> None:
        """Log the URI of a file and the fingerprint of its artifact; nothing is uploaded."""
        import wandb

        artifact = wandb.Artifact(
            re.sub(r"[^\w.-]", "-", f"{self._run.group}-{name}"),
            kind,
            metadata={"uri": uri, "fingerprint": fingerprint},
        )
        # Named by its content: W&B treats references with equal names and URIs as one version.
        reference = f"file://{uri}" if storage.is_local(uri) else uri
        artifact.add_reference(reference, name=fingerprint, checksum=False)
        self._run.log_artifact(artifact)

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Set summary metrics of the run."""
        self._run.summary.update(dict(values))


@contextlib.contextmanager
def open_wandb_run(
    run_name: str, run_uri: str, config: Mapping[str, Any], section: TrackingConfig
) -> Iterator[WandbRun]:
    """The W&B run of a training run, finished when the block ends. Raises: TrackingError without one.

    The id is derived from `run_uri`, so that restarts and later stages continue the same run. Offline each of
    them writes a segment of its own in the run's folder; `wandb sync --append` uploads them in order.
    """
    with _local_run_folder(run_uri) as folder:
        run = _start_run(run_name, run_uri, folder, config, section)
        try:
            yield WandbRun(run)
        finally:
            run.finish()


def wandb_mode(mode: str) -> str:
    """`online`, `offline` or `disabled`. `auto`: WANDB_MODE, else `online` with a key, else `offline`."""
    if mode != "auto":
        return mode
    return os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")


@contextlib.contextmanager
def _local_run_folder(run_uri: str) -> Iterator[Path]:
    """The run's folder; for a run on an object store a temporary one, uploaded when the block ends."""
    if storage.is_local(run_uri):
        folder = storage.local_path(run_uri)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        try:
            yield Path(temporary)
        finally:
            storage.upload_folder(Path(temporary), run_uri)


def _start_run(
    run_name: str, run_uri: str, folder: Path, config: Mapping[str, Any], section: TrackingConfig
) -> Any:
    import wandb  # takes a second to import, and only a few stages need it

    try:
        run = wandb.init(
            project=section.project,
            entity=section.entity,
            name=run_name,
            id=hashlib.sha1(run_uri.encode()).hexdigest()[:12],
            group=run_name,
            resume="allow",
            mode=wandb_mode(section.mode),  # type: ignore[arg-type]  # one of wandb's literals
            dir=str(folder),
            config=dict(config),
            settings=wandb.Settings(
                init_timeout=section.connect_timeout_s, console="off", x_disable_stats=True, silent=True
            ),
        )
    except wandb.Error as error:
        raise TrackingError(
            f"W&B: no run within {section.connect_timeout_s:g} s, tracking.connect_timeout_s "
            f"({shortened(str(error), 200)}); correct WANDB_BASE_URL or WANDB_API_KEY, or set "
            "tracking.mode=offline and upload later with `wandb sync`"
        ) from error
    run.define_metric("*", step_metric="global_step")
    return run


@dataclass(frozen=True)
class TrackedRun:
    """A training run and its settings for W&B."""

    name: str
    uri: str
    config: Mapping[str, Any]
    section: TrackingConfig


@dataclass(frozen=True)
class LoggedState:
    """The steps and validations that W&B is known to have. Stored as `wandb/logged.json`."""

    step: int = 0
    validated: frozenset[int] = frozenset()
    open_segment: str | None = None
    """The offline segment that is being written and that a kill would leave incomplete."""


def read_logged_state(run_uri: str) -> LoggedState:
    """The stored state; the initial one for a run that was not logged yet."""
    uri = _logged_state_uri(run_uri)
    if not storage.exists(uri):
        return LoggedState()
    content = json.loads(storage.read_bytes(uri))
    return LoggedState(content["step"], frozenset(content["validated"]), content["open_segment"])


def _write_logged_state(run_uri: str, state: LoggedState) -> None:
    content = {**dataclasses.asdict(state), "validated": sorted(state.validated)}
    storage.write_bytes(_logged_state_uri(run_uri), json.dumps(content).encode())


def _logged_state_uri(run_uri: str) -> str:
    return storage.join(run_uri, "wandb", "logged.json")


class WandbLogger:
    """Logs the steps and validations of a run to W&B; `logged` is what it has logged so far.

    With `is_live` W&B has a metric as soon as it is logged, else only once the segment is complete.
    """

    def __init__(
        self,
        run_uri: str,
        wandb_run: WandbRun,
        logged: LoggedState,
        *,
        is_live: bool,
    ) -> None:
        self._run_uri, self._wandb_run, self._is_live = run_uri, wandb_run, is_live
        self.logged = logged
        if not is_live:
            _write_logged_state(run_uri, dataclasses.replace(logged, open_segment=wandb_run.segment))

    def catch_up(self, step: int) -> None:
        """Log the steps up to `step`, and the validations, that are in the run's folder but not in W&B."""
        for row in read_steps(self._run_uri):
            if row["step"] <= step:
                self.add(int(row["step"]), {name: row[name] for name in row if name != "step"})
        self.log_new_validations()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Log a step, unless it was logged before a restart."""
        if step > self.logged.step:
            self._wandb_run.log({f"train/{name}": value for name, value in values.items()}, step)
            self.logged = dataclasses.replace(self.logged, step=step)

    def flush(self) -> None:
        """Log new validations, and store what is logged, if W&B already has it."""
        self.log_new_validations()
        self._store()

    def log_new_validations(self) -> None:
        """Log the validations that were not logged yet, each at its own step, with its neighbour grid."""
        for row in read_validations(self._run_uri, without=self.logged.validated):
            step = int(row["step"])
            self._wandb_run.log({f"train/{name}": row[name] for name in row if name != "step"}, step)
            self._log_neighbour_grid(step)
            self.logged = dataclasses.replace(self.logged, validated=self.logged.validated | {step})
            self._store()

    def log_lineage(self, bundle_uri: str, manifest: EncoderBundleManifest) -> None:
        """Log the resulting bundle and its inputs as artifacts by reference."""
        for name, entry in manifest.inputs.items():
            self._wandb_run.log_reference(name, "input", _manifest_uri(entry.uri), entry.fingerprint)
        self._wandb_run.log_reference("encoder", "output", _manifest_uri(bundle_uri), manifest.fingerprint)

    def _store(self) -> None:
        if self._is_live:
            _write_logged_state(self._run_uri, self.logged)

    def _log_neighbour_grid(self, step: int) -> None:
        uri = neighbour_grid_uri(self._run_uri, step)
        if storage.exists(uri):
            with Image.open(io.BytesIO(storage.read_bytes(uri))) as grid:
                rows = [[step, grid.copy()]]
            self._wandb_run.log_table("train/neighbours", ["step", "neighbours"], rows, step)


def _manifest_uri(uri: str) -> str:
    # For a folder W&B would add a reference to every file: thousands for a large ShardSet.
    return storage.join(uri, artifacts.MANIFEST)


@contextlib.contextmanager
def open_wandb_logger(run: TrackedRun, continue_after: int) -> Iterator[WandbLogger | None]:
    """The logger of a run that continues after a step; first it logs what W&B lacks. None if W&B is disabled.

    A block that ends with an error leaves an incomplete segment: the next start removes it and logs its
    metrics again.
    """
    mode = wandb_mode(run.section.mode)
    if mode == "disabled":
        yield None
        return
    logged = read_logged_state(run.uri)
    if logged.open_segment is not None:
        storage.delete(storage.join(run.uri, "wandb", logged.open_segment))
    with open_wandb_run(run.name, run.uri, run.config, run.section) as wandb_run:
        logger = WandbLogger(run.uri, wandb_run, logged, is_live=mode == "online")
        try:
            logger.catch_up(continue_after)
            yield logger
        finally:
            logger.log_new_validations()
    _write_logged_state(run.uri, dataclasses.replace(logger.logged, open_segment=None))


def log_end(run: TrackedRun, num_steps: int, bundle_uri: str) -> None:
    """Log what is new after the last step: late validations, and the exported bundle."""
    manifest = artifacts.open_artifact(bundle_uri, EncoderBundleManifest)
    with open_wandb_logger(run, continue_after=num_steps) as logger:
        if logger is not None:
            logger.log_lineage(bundle_uri, manifest)
