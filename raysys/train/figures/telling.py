"""What W&B is told of a run: every figure once, however often the run is started again.

Offline, W&B keeps up to 32 KiB of figures in memory: a process that is killed leaves a torn segment. The next
one removes it and tells again what the run's folder knows; `wandb/told.json` says what needs no telling.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from raysys import artifacts, observe, storage
from raysys.artifacts import EncoderBundleManifest
from raysys.config.schema import TrackingConfig
from raysys.train.figures.metrics import read_steps, read_validations, sheet_uri

LOOK_EVERY_S = 5.0  # for new measurements: on a store that is a request


@dataclass(frozen=True)
class TrackedRun:
    """A run as W&B knows it."""

    name: str
    uri: str
    config: Mapping[str, Any]
    section: TrackingConfig


@dataclass(frozen=True)
class Told:
    """What W&B has for sure, and the segment that is being written and may get lost."""

    step: int = 0
    validated: frozenset[int] = frozenset()
    open_segment: str | None = None


@contextlib.contextmanager
def telling(run: TrackedRun, continue_after: int) -> Iterator[Telling | None]:
    """Tells W&B of a run that goes on after a step, first of what it missed; None if it is disabled.

    A block that ends in an error leaves a segment that counts as torn: the next start goes back, too.
    """
    mode = observe.tracking_mode(run.section.mode)
    if mode == "disabled":
        yield None
        return
    told = read_told(run.uri)
    if told.open_segment is not None:
        storage.delete(storage.join(run.uri, "wandb", told.open_segment))
    section = run.section.model_dump()
    with observe.tracking(run.name, run.uri, run.config, **section) as tracker:
        teller = Telling(run.uri, tracker, told, is_live=mode == "online")
        try:
            teller.catch_up(continue_after)
            yield teller
        finally:
            teller.look()
    _write_told(run.uri, dataclasses.replace(teller.told, open_segment=None))


class Telling:
    """Tells a tracker of steps and measurements; `told` says what it knows by now.

    What `is_live` is with W&B as soon as it is said; else only once the segment has come to its end.
    """

    def __init__(
        self,
        run_uri: str,
        tracker: observe.Tracker,
        told: Told,
        *,
        is_live: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run_uri, self._tracker, self._is_live, self._clock = run_uri, tracker, is_live, clock
        self.told = told
        self._looked_at = clock()
        if not is_live:
            _write_told(run_uri, dataclasses.replace(told, open_segment=tracker.segment))

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
            _write_told(self._run_uri, self.told)

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
        uri = sheet_uri(self._run_uri, step)
        if storage.exists(uri):
            with Image.open(io.BytesIO(storage.read_bytes(uri))) as picture:
                rows = [[step, picture.copy()]]
            self._tracker.log_table("train/neighbours", ["step", "neighbours"], rows, step)


def tell_end(run: TrackedRun, num_steps: int, bundle_uri: str) -> None:
    """Tell W&B what came after the last step: late measurements, and the bundle."""
    manifest = artifacts.open_artifact(bundle_uri, EncoderBundleManifest)
    with telling(run, continue_after=num_steps) as teller:
        if teller is not None:
            teller.tell_lineage(bundle_uri, manifest)


def read_told(run_uri: str) -> Told:
    """What the segments that came to their end have told."""
    uri = _told_uri(run_uri)
    if not storage.exists(uri):
        return Told()
    said = json.loads(storage.read_bytes(uri))
    return Told(said["step"], frozenset(said["validated"]), said["open_segment"])


def _write_told(run_uri: str, told: Told) -> None:
    said = {**dataclasses.asdict(told), "validated": sorted(told.validated)}
    storage.write_bytes(_told_uri(run_uri), json.dumps(said).encode())


def _manifest_of(uri: str) -> str:
    # Of a folder W&B would take every file for a reference: of a large ShardSet that is thousands.
    return storage.join(uri, artifacts.MANIFEST)


def _told_uri(run_uri: str) -> str:
    return storage.join(run_uri, "wandb", "told.json")
