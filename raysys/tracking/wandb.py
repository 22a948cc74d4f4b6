"""A logger for Weights & Biases that logs every metric of a run once, however often training restarts.

Offline, W&B buffers up to 32 KiB of metrics in memory: a process that is killed leaves an incomplete segment
(the folder of one `wandb.init`). The next start removes it and logs the metrics again from the run's folder;
`wandb/logged.json` records which ones W&B already has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from raysys import artifacts, storage
from raysys.artifacts import EncoderBundleManifest
from raysys.config.schema import TrackingConfig
from raysys.errors import TrackingError
from raysys.terminal import printable
from raysys.tracking.logs import log
from raysys.tracking.metrics_log import (
    neighbour_grid_uri,
    read_steps,
    read_validations,
)
from raysys.tracking.wandb_run import (
    WandbRun,
    open_wandb_run,
    reachable_tracking,
    upload_command,
    wandb_mode,
)


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

    Of a live run W&B has a metric as soon as it is logged, else only once the segment is complete.
    """

    def __init__(self, run_uri: str, wandb_run: WandbRun, logged: LoggedState) -> None:
        self._run_uri, self._wandb_run = run_uri, wandb_run
        self.logged = logged
        if not wandb_run.is_live:
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
            row = {f"train/{name}": value for name, value in values.items()}
            if self._wandb_run.log(row, step):
                self.logged = dataclasses.replace(self.logged, step=step)

    def flush(self) -> None:
        """Log new validations, and store what is logged, if W&B already has it."""
        self.log_new_validations()
        self._store()

    def log_new_validations(self) -> None:
        """Log the validations that were not logged yet, each at its own step, with its neighbour grid."""
        for row in read_validations(self._run_uri, without=self.logged.validated):
            step = int(row["step"])
            metrics = {f"train/{name}": row[name] for name in row if name != "step"}
            if self._wandb_run.log(metrics, step):
                self._log_neighbour_grid(step)
                self.logged = dataclasses.replace(self.logged, validated=self.logged.validated | {step})
                self._store()

    def log_lineage(self, bundle_uri: str, manifest: EncoderBundleManifest) -> None:
        """Log the resulting bundle and its inputs as artifacts by reference."""
        for name, entry in manifest.inputs.items():
            self._wandb_run.log_reference(name, "input", _reference_uri(entry.uri), entry.fingerprint)
        self._wandb_run.log_reference("encoder", "output", _reference_uri(bundle_uri), manifest.fingerprint)

    def _store(self) -> None:
        if self._wandb_run.is_live:
            _write_logged_state(self._run_uri, self.logged)

    def _log_neighbour_grid(self, step: int) -> None:
        uri = neighbour_grid_uri(self._run_uri, step)
        if storage.exists(uri):
            with Image.open(io.BytesIO(storage.read_bytes(uri))) as grid:
                self._wandb_run.log_image("train/neighbours", grid.copy(), step)


def _reference_uri(uri: str) -> str:
    # For a folder W&B would add a reference to every file: thousands for a large ShardSet.
    manifest_uri = storage.join(uri, artifacts.MANIFEST)
    return manifest_uri if storage.exists(manifest_uri) else uri  # plain Parquet of a teacher


def track_if_reachable(run: TrackedRun) -> TrackingConfig:
    """The settings of W&B for this start of a run: offline, with a warning, if W&B does not answer now.

    Raises: TrackingRefused if W&B refuses the key or the project.
    """
    return reachable_tracking(run.name, run.uri, run.config, run.section)


@contextlib.contextmanager
def open_wandb_logger(run: TrackedRun, continue_after: int) -> Iterator[WandbLogger | None]:
    """The logger of a run that continues after a step; first it logs what W&B lacks.

    None if W&B is disabled, or cannot be used offline either: the run's folder has all metrics for a later
    start. A block that ends with an error leaves an incomplete segment: the next start removes it and logs
    its metrics again.
    """
    if wandb_mode(run.section.mode) == "disabled":
        yield None
        return
    logged = read_logged_state(run.uri)
    if logged.open_segment is not None:
        storage.delete(storage.join(run.uri, "wandb", logged.open_segment))
    with contextlib.ExitStack() as stack:
        try:
            opened = open_wandb_run(run.name, run.uri, run.config, run.section)
            wandb_run = stack.enter_context(opened)
        except TrackingError as error:
            log.warning("%s; this start does not log to W&B", error)
            yield None
            return
        logger = WandbLogger(run.uri, wandb_run, logged)
        try:
            logger.catch_up(continue_after)
            yield logger
        finally:
            logger.log_new_validations()
    if wandb_run.is_live or not wandb_run.has_failed:
        _write_logged_state(run.uri, dataclasses.replace(logger.logged, open_segment=None))


def log_end(run: TrackedRun, num_steps: int, bundle_uri: str) -> None:
    """Log what is new after the last step: late validations, and the exported bundle.

    The bundle is published by now, so a failure of W&B is a warning.
    """
    manifest = artifacts.open_artifact(bundle_uri, EncoderBundleManifest)
    try:
        with open_wandb_logger(run, continue_after=num_steps) as logger:
            if logger is not None:
                logger.log_lineage(bundle_uri, manifest)
    except Exception as error:
        log.warning("    train  %s is published, but not in W&B (%s)", bundle_uri, printable(error, 200))


def report_offline_segments(run_uri: str, section: TrackingConfig) -> None:
    """Log the command that uploads the offline segments of a run that is configured to be online."""
    folder = storage.join(run_uri, "wandb")
    if wandb_mode(section.mode) != "online":
        return
    uploaded = {name.partition("/")[0] for name in storage.list_files(folder) if name.endswith(".synced")}
    if any(name.startswith("offline-run-") and name not in uploaded for name in storage.list_folders(folder)):
        log.warning(
            "    train  a part of this run is logged offline, because W&B did not answer; when it does: %s",
            upload_command(run_uri, "offline-run-*"),
        )  # fmt: skip
