"""Stages as Ray jobs: `raysys submit` sends the resolved configuration to a cluster and follows the log.

The configuration itself travels, as the only file of the job's working directory: the cluster
needs nothing from the submitter's disk. The job's id is made of stage, name and configuration, so
that the same command attaches to its running job, and starts a new attempt once that has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import urlsplit

import yaml

from raysys.config import Config
from raysys.config.section import HubIdOrPath, UriPath, marked_values
from raysys.errors import ClusterError, InputError, did_you_mean

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

STAGES = ("run", "pack", "train", "embed", "index", "evaluate", "serve")
CONFIG_FILE = "config.yaml"
INTERRUPTED = 130

# A port-forward that is started again is back within seconds; a head that is replaced has lost the job.
_RECONNECT_AFTER_S = (1.0, 2.0, 4.0, 8.0, 16.0)


def submit(
    stage: str,
    config: Config,
    *,
    address: str | None,
    follow: bool,
    interpreter: str | None = None,
    entrypoint: str | None = None,
    out: TextIO,
    err: TextIO,
) -> int:
    """Start the stage as a job, or attach to the one that runs; the exit status of the command.

    `address` is the dashboard's (`http://HEAD:8265`); null lets Ray look for it (RAY_ADDRESS, this
    machine). `follow` copies the job's log to `out` and ends with the job's own exit status; else
    the job's id is printed. `interpreter` is the cluster's Python, `entrypoint` replaces the command.
    Raises: InputError for a stage or a path that cannot be sent, ClusterError when the cluster refuses.
    """
    if stage not in STAGES:
        raise InputError(
            f"{stage}: no such stage{did_you_mean(stage, STAGES)}; choose one of {', '.join(STAGES)}"
        )
    client = _connect(address)
    where = client.get_address()
    text = config_text(config, where=where, err=err)
    command = entrypoint or build_entrypoint(stage, interpreter, where=where)
    with _in_one_line(where):
        job_id, is_new = _find_or_start(client, job_stem(stage, config.name, text), command, text)
    done = "submitted to" if is_new else "runs already on"
    print(f"{job_id}: {done} {where}", file=err, flush=True)
    if not follow:
        print(job_id, file=out, flush=True)
        return 0
    try:
        asyncio.run(_copy_log(client, job_id, out))
        with _in_one_line(where):
            return _exit_status(client.get_job_info(job_id), err)
    except KeyboardInterrupt:
        print(f"{job_id}: goes on; repeat the command to follow it again", file=err)
        print(f"stop it with: ray job stop --address {where} {job_id}", file=err, flush=True)
        return INTERRUPTED


def config_text(config: Config, *, where: str, err: TextIO) -> str:
    """The configuration as a job reads it: YAML with absolute paths and nothing about this machine.

    Relative paths are made absolute for a cluster on this machine. Raises: InputError for others,
    where the job's own folder, which Ray removes, would have swallowed the artifacts.
    """
    tree = config.model_dump(mode="json")
    # The job runs on the cluster it was sent to; `ray` describes the submitter's.
    del tree["ray"]
    for key, path in _relative_paths(config):
        if not _is_loopback(where):
            raise InputError(
                f"{key}: {path!r} is relative to a folder that the job on {where} does not have; "
                f"give s3://, gs:// or an absolute path that every node sees ({key}=...)"
            )
        absolute = os.path.abspath(os.path.expanduser(path))
        print(f"{key}: {path} is {absolute} for the job", file=err, flush=True)
        _set_at(tree, key, absolute)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def build_entrypoint(stage: str, interpreter: str | None, *, where: str) -> str:
    """The job's command line.

    Ray runs it with the PATH of the head's raylet, where `python` need not be the one that has
    raysys. On this machine that is the running interpreter; it may be absent behind a loopback
    address too, at the other end of a port-forward, and then `python` is taken.
    """
    if interpreter is not None:
        python = shlex.quote(interpreter)
    elif _is_loopback(where):
        python = f'"$(command -v {shlex.quote(sys.executable)} || echo python)"'
    else:
        python = "python"
    return f"{python} -m raysys {stage} {CONFIG_FILE}"


def job_stem(stage: str, name: str, text: str) -> str:
    """What all attempts at the same work share: `raysys-train-siglip-1f0c9a3b5d`."""
    return f"raysys-{stage}-{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _connect(address: str | None) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    if address is not None and address != "auto" and "://" not in address:
        address = f"http://{address}"
    with _in_one_line(address), _address_before_environment(address):
        return JobSubmissionClient(address)


@contextlib.contextmanager
def _address_before_environment(address: str | None) -> Iterator[None]:
    """Ray lets RAY_API_SERVER_ADDRESS and RAY_ADDRESS overrule an address that was typed; we do not."""
    variable = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(variable)
    if address is not None:
        os.environ[variable] = address
    try:
        yield
    finally:
        if before is not None:
            os.environ[variable] = before
        elif address is not None:
            del os.environ[variable]


@contextlib.contextmanager
def _in_one_line(where: str | None) -> Iterator[None]:
    """What Ray's client raises, as a ClusterError that says what to do."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(
            f"{where or 'this machine'}: the cluster refuses us ({_gist(error)}); "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's token"
        ) from error
    except ConnectionError as error:
        raise ClusterError(
            f"{where or 'this machine'}: no Ray cluster answers; "
            "start one (ray start --head) or give another --address (http://HEAD:8265)"
        ) from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ClusterError(
            f"{where or 'this machine'}: the job server said: {_gist(error)}; "
            "check that --address is a Ray dashboard (http://HEAD:8265)"
        ) from error


def _find_or_start(client: JobSubmissionClient, stem: str, command: str, text: str) -> tuple[str, bool]:
    """The id of the job that does this work now, and whether it was started by us."""
    attempts = _attempts(client, stem)
    for number, job in attempts.items():
        if not job.status.is_terminal():
            return f"{stem}-{number}", False
    job_id = f"{stem}-{max(attempts, default=0) + 1}"
    with tempfile.TemporaryDirectory(prefix="raysys-job-") as folder:
        (Path(folder) / CONFIG_FILE).write_text(text, encoding="utf-8")
        try:
            client.submit_job(entrypoint=command, submission_id=job_id, runtime_env={"working_dir": folder})
        except RuntimeError:
            # Somebody else was faster by a moment: Ray answers 500 to an id that it knows.
            if job_id not in {job.submission_id for job in _attempts(client, stem).values()}:
                raise
            return job_id, False
    return job_id, True


def _attempts(client: JobSubmissionClient, stem: str) -> dict[int, JobDetails]:
    """Attempt number -> job, for every job of this work that the cluster remembers."""
    found: dict[int, JobDetails] = {}
    for job in client.list_jobs():
        head, _, number = (job.submission_id or "").rpartition("-")
        if head == stem and number.isdecimal():
            found[int(number)] = job
    return found


async def _copy_log(client: JobSubmissionClient, job_id: str, out: TextIO) -> None:
    """Write the log until the job has ended; each connection starts at the beginning of it again."""
    import aiohttp

    num_shown = 0
    waits_s = iter(_RECONNECT_AFTER_S)
    while True:
        reason = "the log ended before the job"
        position = 0
        try:
            async for chunk in client.tail_job_logs(job_id):
                fresh = chunk[max(0, num_shown - position) :]
                position += len(chunk)
                if fresh:
                    out.write(fresh)
                    out.flush()
                    num_shown = position
                    waits_s = iter(_RECONNECT_AFTER_S)
            if client.get_job_info(job_id).status.is_terminal():
                return
        except BrokenPipeError:
            raise  # nobody reads `out` any more: that is not the cluster's connection
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            reason = _gist(error)
        wait_s = next(waits_s, None)
        if wait_s is None:
            raise ClusterError(
                f"{job_id}: connection to {client.get_address()} lost ({reason}); repeat the command"
            )
        await asyncio.sleep(wait_s)


def _exit_status(job: JobDetails, err: TextIO) -> int:
    status = str(job.status)
    if status == "SUCCEEDED":
        return 0
    print(f"{job.submission_id}: {status}: {_gist(job.message or 'no reason given')}", file=err, flush=True)
    # Negative is a signal that hit the shell itself; no exit status could say that.
    return max(1, job.driver_exit_code or 1) if status == "FAILED" else 1


def _gist(problem: object) -> str:
    """One line of what may be many: the error of a traceback, else the beginning."""
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    line = lines[-1] if "Traceback" in lines[0] else lines[0]
    return line.strip().rstrip(".:,")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_relative(path: str) -> bool:
    return "://" not in path and not os.path.isabs(path)


def _relative_paths(config: Config) -> Iterator[tuple[str, str]]:
    """Dotted key and value of every setting that holds a relative local path."""
    for key, value, marker in marked_values(config, UriPath):
        if isinstance(value, str) and value not in marker.keywords and _is_relative(value):
            yield key, value
    for key, value, hub_marker in marked_values(config, HubIdOrPath):
        if not isinstance(value, str) or value in hub_marker.keywords or not _is_relative(value):
            continue
        if os.path.isdir(os.path.expanduser(value)):  # else it is a hub id
            yield key, value


def _set_at(tree: dict[str, Any], dotted: str, value: str) -> None:
    *sections, last = dotted.split(".")
    for key in sections:
        tree = tree[key]
    tree[last] = value
