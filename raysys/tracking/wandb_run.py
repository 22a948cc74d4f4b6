"""A run in Weights & Biases: online if W&B answers, else an offline segment in the run's folder.

A segment is the folder of one `wandb.init`. W&B's own process sends the data, so logging does not wait for
the network. Every wait for W&B has a limit (`tracking.connect_timeout_s`, `tracking.finish_timeout_s`), and a
failure of W&B is a warning: the work that is tracked goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from raysys import storage
from raysys.config.schema import TrackingConfig
from raysys.errors import TrackingError, TrackingRefused
from raysys.parallel import call_within
from raysys.terminal import printable

log = logging.getLogger("raysys")
_PROCESS_S = 20.0  # for W&B's own process to start or to end, in addition to the limits of the network
_OFFLINE_S = 120.0  # the same without a network, where nothing else can be done instead
_REFUSALS = re.compile(r"returned error 4\d\d|permission denied|not found", re.IGNORECASE)
# A variable that is already set keeps its value.
_ENVIRONMENT = {
    "WANDB_ERROR_REPORTING": "false",  # reports go to W&B, too: without an answer, an exit takes 15 s longer
    "WANDB_SILENT": "true",
}


class WandbRun:
    """One run in Weights & Biases; all stages of a training run add to the same one.

    After a failure nothing more is logged. `is_live`: W&B has a value as soon as it is logged.
    """

    def __init__(self, run: Any, *, is_live: bool) -> None:
        self._run, self.is_live, self.has_failed = run, is_live, False

    @property
    def segment(self) -> str:
        """The name of the folder, below the run folder's `wandb`, with the data of this process."""
        return Path(self._run.dir).parent.name

    def log(self, values: Mapping[str, Any], step: int | None = None) -> bool:
        """Log values; `step` is their training step. False if W&B did not accept them."""
        at_step = {"global_step": step} if step is not None else {}
        return self._attempt(lambda: self._run.log({**values, **at_step}))

    def log_image(self, name: str, image: Any, step: int | None = None) -> bool:
        """Log a PIL image."""
        import wandb

        return self.log({name: wandb.Image(image)}, step)

    def log_table(self, name: str, columns: list[str], rows: list[list[Any]]) -> bool:
        """Log a table; a cell may be a PIL image. Online it waits for W&B up to 10 s: not for a step."""
        import wandb

        cells = [[wandb.Image(cell) if hasattr(cell, "getexif") else cell for cell in row] for row in rows]
        return self.log({name: wandb.Table(columns=list[str | int](columns), data=cells)})

    def log_reference(self, name: str, kind: str, uri: str, fingerprint: str) -> bool:
        """Log the URI of a file and the fingerprint of its artifact, no content. Waits as `log_table`."""
        import wandb

        artifact = wandb.Artifact(
            re.sub(r"[^\w.-]", "-", f"{self._run.group}-{name}"),
            kind,
            metadata={"uri": uri, "fingerprint": fingerprint},
        )
        # Named by its content: W&B treats references with equal names and URIs as one version.
        reference = f"file://{uri}" if storage.is_local(uri) else uri
        artifact.add_reference(reference, name=fingerprint, checksum=False)
        return self._attempt(lambda: self._run.log_artifact(artifact))

    def summarise(self, values: Mapping[str, Any]) -> bool:
        """Set summary metrics of the run."""
        return self._attempt(lambda: self._run.summary.update(dict(values)))

    def finish(self, timeout_s: float) -> bool:
        """Complete the segment on the disk; True if W&B has its data, too."""
        try:
            call_within(timeout_s + _PROCESS_S, self._run.finish, "W&B: uploading")
        except TimeoutError:
            return False
        except Exception as error:  # of W&B's own process
            self._warn_of_failure(error)
        return self.is_live and not self.has_failed

    def _attempt(self, log_something: Callable[[], object]) -> bool:
        if self.has_failed:
            return False
        try:
            log_something()
        except Exception as error:  # of W&B, its process and its network: no reason to end the work
            self._warn_of_failure(error)
        return not self.has_failed

    def _warn_of_failure(self, error: Exception) -> None:
        if not self.has_failed:
            log.warning("W&B: no more is logged to this segment (%s)", _reason(error))
        self.has_failed = True


@contextlib.contextmanager
def open_wandb_run(
    run_name: str, run_uri: str, config: Mapping[str, Any], section: TrackingConfig
) -> Iterator[WandbRun]:
    """The W&B run of a training run, finished when the block ends; offline if W&B cannot be opened online.

    The id is derived from `run_uri`, so that restarts and later stages continue the same run. Offline each of
    them writes a segment of its own in the run's folder; `wandb sync --append` uploads them in order.
    Raises: TrackingError if there is no offline run either.
    """
    mode = wandb_mode(section.mode)
    with _local_run_folder(run_uri) as folder:
        try:
            run = _init(run_name, run_uri, folder, config, section, mode)
        except (TrackingError, TrackingRefused) as error:
            if mode != "online":
                raise
            log.warning("%s; logging offline", error)
            run = _init(run_name, run_uri, folder, config, section, "offline")
        try:
            yield run
        finally:
            is_uploaded = run.finish(section.finish_timeout_s)
            if mode == "online" and not is_uploaded:
                log.warning(
                    "W&B: %s is not uploaded; when W&B answers: %s",
                    run.segment, upload_command(run_uri, run.segment),
                )  # fmt: skip


def reachable_tracking(
    run_name: str, run_uri: str, config: Mapping[str, Any], section: TrackingConfig
) -> TrackingConfig:
    """The section, with `mode: offline` if W&B does not answer now, which is a warning.

    For the start of a command, so that neither its workers nor its restarts wait for W&B again.
    Raises: TrackingRefused if W&B refuses the key or the project: the user can correct it before the work.
    """
    if wandb_mode(section.mode) != "online":
        return section
    # Ctrl-C leaves the thread running that writes to the folder.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            run = _init(run_name, run_uri, Path(folder), config, section, "online")
        except TrackingError as error:
            log.warning("%s; this start logs offline", error)
            return section.model_copy(update={"mode": "offline"})
        run.finish(section.finish_timeout_s)
    return section


def wandb_mode(mode: str) -> str:
    """`online`, `offline` or `disabled`. `auto`: WANDB_MODE, else `online` with a key, else `offline`."""
    if mode != "auto":
        return mode
    return os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")


def upload_command(run_uri: str, segments: str) -> str:
    """The command that uploads segments, a name or a pattern, of a run."""
    first = "" if storage.is_local(run_uri) else "copy it to a disk, then "
    append = "--append " if segments.startswith("offline-") else ""
    return f"{first}wandb sync {append}{storage.join(run_uri, 'wandb', segments)}"


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


def _init(
    run_name: str, run_uri: str, folder: Path, config: Mapping[str, Any], section: TrackingConfig, mode: str
) -> WandbRun:
    """Raises: TrackingRefused if W&B refuses the run, TrackingError for any other reason."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import wandb  # takes a second to import, and only a few stages need it

    def init() -> Any:
        return wandb.init(
            project=section.project,
            entity=section.entity,
            name=run_name,
            id=hashlib.sha1(run_uri.encode()).hexdigest()[:12],
            group=run_name,
            resume="allow",
            mode=mode,  # type: ignore[arg-type]  # one of wandb's literals
            dir=str(folder),
            config=dict(config),
            settings=wandb.Settings(
                init_timeout=section.connect_timeout_s,
                finish_timeout=section.finish_timeout_s,
                finish_timeout_raises=True,
                console="off",
                x_disable_stats=True,
                silent=True,
            ),
        )

    try:
        run = call_within(
            section.connect_timeout_s + _PROCESS_S if mode == "online" else _OFFLINE_S, init, "W&B"
        )
    except Exception as error:  # of W&B, its process and its network
        # Else its process refuses another run of this id.
        with contextlib.suppress(Exception, SystemExit):
            call_within(_PROCESS_S, wandb.teardown, "W&B")
        raise _tracking_error(error, section, is_online=mode == "online") from error
    run.define_metric("*", step_metric="global_step")
    return WandbRun(run, is_live=mode == "online")


def _tracking_error(
    error: Exception, section: TrackingConfig, *, is_online: bool
) -> TrackingError | TrackingRefused:
    import wandb

    reason, is_late = _reason(error), "deadline exceeded" in str(error) or isinstance(error, TimeoutError)
    is_wrong = isinstance(error, (wandb.errors.AuthenticationError, wandb.errors.UsageError, ValueError))
    if is_online and not is_late and (is_wrong or _REFUSALS.search(str(error))):
        return TrackingRefused(
            f"W&B: refused ({reason}); correct WANDB_API_KEY, WANDB_BASE_URL, tracking.project or "
            "tracking.entity, or set tracking.mode=offline"
        )
    return TrackingError(
        f"W&B: no run within {section.connect_timeout_s:g} s, tracking.connect_timeout_s ({reason})"
        if is_online
        else f"W&B: no offline run ({reason})"
    )


def _reason(error: Exception) -> str:
    return printable(error, 200) or type(error).__name__
