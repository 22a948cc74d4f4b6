"""What W&B is told of a run: every figure once, however often the run is started again.

Offline, W&B keeps up to 32 KiB of figures in memory: a process that is killed leaves a torn segment. The next
one removes it and tells again what the run's folder knows; `wandb/told.json` says what needs no telling.
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
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from raysys import artifacts, storage
from raysys.artifacts import EncoderBundleManifest
from raysys.config.schema import TrackingConfig
from raysys.tracking.metrics_log import neighbour_grid_uri, read_steps, read_validations

LOOK_EVERY_S = 5.0  # for new measurements: on a store that is a request


@dataclass(frozen=True)
class TrackedRun:
    """A run as W&B knows it."""

    name: str
    uri: str
    config: Mapping[str, Any]
    section: TrackingConfig


@dataclass(frozen=True)
class LoggedState:
    """What W&B has for sure, and the segment that is being written and may get lost."""

    step: int = 0
    validated: frozenset[int] = frozenset()
    open_segment: str | None = None


@contextlib.contextmanager
def open_wandb_logger(run: TrackedRun, continue_after: int) -> Iterator[WandbLogger | None]:
    """Tells W&B of a run that goes on after a step, first of what it missed; None if it is disabled.

    A block that ends in an error leaves a segment that counts as torn: the next start goes back, too.
    """
    mode = tracking_mode(run.section.mode)
    if mode == "disabled":
        yield None
        return
    told = read_logged_state(run.uri)
    if told.open_segment is not None:
        storage.delete(storage.join(run.uri, "wandb", told.open_segment))
    section = run.section.model_dump()
    with open_wandb_run(run.name, run.uri, run.config, **section) as tracker:
        teller = WandbLogger(run.uri, tracker, told, is_live=mode == "online")
        try:
            teller.catch_up(continue_after)
            yield teller
        finally:
            teller.look()
    _write_logged_state(run.uri, dataclasses.replace(teller.told, open_segment=None))


class WandbLogger:
    """Tells a tracker of steps and measurements; `told` says what it knows by now.

    What `is_live` is with W&B as soon as it is said; else only once the segment has come to its end.
    """

    def __init__(
        self,
        run_uri: str,
        tracker: WandbRun,
        told: LoggedState,
        *,
        is_live: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run_uri, self._tracker, self._is_live, self._clock = run_uri, tracker, is_live, clock
        self.told = told
        self._looked_at = clock()
        if not is_live:
            _write_logged_state(run_uri, dataclasses.replace(told, open_segment=tracker.segment))

    def catch_up(self, step: int) -> None:
        """Tell of steps up to this one, and of measurements, that the run's folder has and W&B has not."""
        for row in read_steps(self._run_uri):
            if row["step"] <= step:
                self.add(int(row["step"]), {name: row[name] for name in row if name != "step"})
        self.look()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Tell of a step, unless W&B has it from before a restart; now and then look for measurements."""
        if step > self.told.step:
            self._tracker.log({f"train/{name}": value for name, value in values.items()}, step)
            self.told = dataclasses.replace(self.told, step=step)
        if self._clock() - self._looked_at >= LOOK_EVERY_S:
            self.look()

    def flush(self) -> None:
        """Remember what is told, where telling is enough."""
        if self._is_live:
            _write_logged_state(self._run_uri, self.told)

    def look(self) -> None:
        """Tell of the measurements that W&B does not have yet, each at its own step, with its pictures."""
        self._looked_at = self._clock()
        for row in read_validations(self._run_uri, without=self.told.validated):
            step = int(row["step"])
            self._tracker.log({f"train/{name}": row[name] for name in row if name != "step"}, step)
            self._show(step)
            self.told = dataclasses.replace(self.told, validated=self.told.validated | {step})
            self.flush()

    def tell_lineage(self, bundle_uri: str, manifest: EncoderBundleManifest) -> None:
        """Add the bundle that came out, and what it was made from, as artifacts by reference."""
        for name, entry in manifest.inputs.items():
            self._tracker.log_reference(name, "input", _manifest_of(entry.uri), entry.fingerprint)
        self._tracker.log_reference("encoder", "output", _manifest_of(bundle_uri), manifest.fingerprint)

    def _show(self, step: int) -> None:
        uri = neighbour_grid_uri(self._run_uri, step)
        if storage.exists(uri):
            with Image.open(io.BytesIO(storage.read_bytes(uri))) as picture:
                rows = [[step, picture.copy()]]
            self._tracker.log_table("train/neighbours", ["step", "neighbours"], rows, step)


def log_end(run: TrackedRun, num_steps: int, bundle_uri: str) -> None:
    """Tell W&B what came after the last step: late measurements, and the bundle."""
    manifest = artifacts.open_artifact(bundle_uri, EncoderBundleManifest)
    with open_wandb_logger(run, continue_after=num_steps) as teller:
        if teller is not None:
            teller.tell_lineage(bundle_uri, manifest)


def read_logged_state(run_uri: str) -> LoggedState:
    """What the segments that came to their end have told."""
    uri = _logged_state_uri(run_uri)
    if not storage.exists(uri):
        return LoggedState()
    said = json.loads(storage.read_bytes(uri))
    return LoggedState(said["step"], frozenset(said["validated"]), said["open_segment"])


def _write_logged_state(run_uri: str, told: LoggedState) -> None:
    said = {**dataclasses.asdict(told), "validated": sorted(told.validated)}
    storage.write_bytes(_logged_state_uri(run_uri), json.dumps(said).encode())


def _manifest_of(uri: str) -> str:
    # Of a folder W&B would take every file for a reference: of a large ShardSet that is thousands.
    return storage.join(uri, artifacts.MANIFEST)


def _logged_state_uri(run_uri: str) -> str:
    return storage.join(run_uri, "wandb", "told.json")


class WandbRun:
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
def open_wandb_run(
    run_name: str, run_uri: str, config: Mapping[str, Any], *, mode: str, project: str, entity: str | None
) -> Iterator[WandbRun]:
    """The W&B run of this training run; finished when the block ends. `mode` is one of `tracking_mode`'s.

    The id is derived from `run_uri`, so that restarts and later stages continue the same run. Offline each
    of them leaves a directory of its own in the run's folder; `wandb sync --append` sends them in order.
    """
    with _run_folder(run_uri) as folder:
        run = _start_run(run_name, run_uri, folder, config, mode=mode, project=project, entity=entity)
        try:
            yield WandbRun(run)
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
