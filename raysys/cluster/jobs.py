"""Stages as Ray jobs: `raysys submit` sends the resolved configuration to a cluster and follows the log.

The configuration is the only file of the job's working directory, so the cluster needs nothing else from the
submitter's disk. The job's id contains stage, name and a hash of the configuration: the same command attaches
to its running job, and starts a new attempt after that job has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import os
import re
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
from raysys.parallel import TimeLimitExceeded, call_within
from raysys.terminal import print_line, printable_lines

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

# The commands that can run as a job: each stage, all of them, and the service.
COMMANDS = ("run", "pack", "train", "embed", "index", "evaluate", "serve")
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
    """Start the stage as a job, or attach to the running one; return the exit status of the command.

    `address` is the dashboard's (`http://HEAD:8265`); with None, Ray searches for it (RAY_ADDRESS, this
    machine). `follow` copies the job's log to `out` and returns the job's own exit status; otherwise the
    job's id is printed. `interpreter` is the cluster's Python, `entrypoint` replaces the command.
    Raises: InputError for an unknown stage or a relative path, ClusterError for a failure of the cluster.
    """
    if stage not in COMMANDS:
        raise InputError(
            f"{stage}: no such stage{did_you_mean(stage, COMMANDS)}; choose one of {', '.join(COMMANDS)}"
        )
    client = _connect(address, config.ray.connect_timeout_s)
    where = client.get_address()
    text = config_text(config, where=where, err=err)
    command = entrypoint or build_entrypoint(stage, interpreter, where=where)
    with _as_cluster_error(where):
        job_id, is_new = _find_or_start(client, job_stem(stage, config.name, text), command, text)
    state = "submitted to" if is_new else "already running on"
    print_line(f"{job_id}: {state} {where}", err)
    if not follow:
        print_line(job_id, out)
        return 0
    try:
        asyncio.run(_copy_log(client, job_id, out))
        with _as_cluster_error(where):
            return _exit_status(client.get_job_info(job_id), err)
    except KeyboardInterrupt:
        print_line(f"{job_id}: still running; repeat the command to follow it again", err)
        print_line(f"stop it with: ray job stop --address {where} {job_id}", err)
        return INTERRUPTED


def config_text(config: Config, *, where: str, err: TextIO) -> str:
    """The configuration of the job as YAML, with absolute paths and without settings of this machine.

    On a cluster on this machine, relative paths become absolute. On others they are an error: the artifacts
    would go to the job's working directory, which Ray removes. Raises: InputError.
    """
    tree = config.model_dump(mode="json")
    # The job uses the cluster that it runs on; `ray` describes the submitter's.
    del tree["ray"]
    if tree["store"]["url"] != config.store.url:
        print_line("store.url: the job gets it without its password; set PGPASSWORD on the nodes", err)
    for key, path in _relative_paths(config):
        if not _is_loopback(where):
            setting = re.split(r"\.\d+\.", key)[0]  # an override replaces a whole list
            raise InputError(
                f"{key}: {path!r} is relative to a folder that the job on {where} does not have; "
                f"give s3://, gs:// or an absolute path that every node sees ({setting}=...)"
            )
        absolute = os.path.abspath(os.path.expanduser(path))
        print_line(f"{key}: {path} is {absolute} for the job", err)
        _set_at(tree, key, absolute)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def build_entrypoint(stage: str, interpreter: str | None, *, where: str) -> str:
    """The job's command line.

    Ray runs it with the PATH of the head's raylet, where `python` may be one without raysys. On this machine
    the running interpreter is used; if it does not exist there (a loopback address can be a port-forward to
    another machine), `python`.
    """
    if interpreter is not None:
        python = shlex.quote(interpreter)
    elif _is_loopback(where):
        python = f'"$(command -v {shlex.quote(sys.executable)} || echo python)"'
    else:
        python = "python"
    return f"{python} -m raysys {stage} {CONFIG_FILE}"


def job_stem(stage: str, name: str, text: str) -> str:
    """The common part of the ids of all attempts: `raysys-train-siglip-1f0c9a3b5d`."""
    return f"raysys-{stage}-{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _connect(address: str | None, timeout_s: float) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    if address is not None and address != "auto" and "://" not in address:
        address = f"http://{address}"
    where = address or "the Ray dashboard"
    with _as_cluster_error(address), _prefer_address_to_environment(address):
        return call_within(timeout_s, lambda: JobSubmissionClient(address), where)


@contextlib.contextmanager
def _prefer_address_to_environment(address: str | None) -> Iterator[None]:
    """Let a given `address` win: in Ray, RAY_API_SERVER_ADDRESS and RAY_ADDRESS override it."""
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
def _as_cluster_error(where: str | None) -> Iterator[None]:
    """Raise errors of Ray's client as a one-line ClusterError with a remedy."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(
            f"{where or 'this machine'}: the cluster refuses access ({_one_line(error)}); "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's token"
        ) from error
    except TimeLimitExceeded as error:
        raise ClusterError(
            f"{where or 'this machine'}: it accepts connections but gave {error}, ray.connect_timeout_s; "
            "check that --address is a Ray dashboard (http://HEAD:8265)"
        ) from error
    except ConnectionError as error:
        raise ClusterError(
            f"{where or 'this machine'}: no Ray cluster answers; "
            "start one (ray start --head) or give another --address (http://HEAD:8265)"
        ) from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ClusterError(
            f"{where or 'this machine'}: the job server answered: {_one_line(error)}; "
            "check that --address is a Ray dashboard (http://HEAD:8265)"
        ) from error


def _find_or_start(client: JobSubmissionClient, stem: str, command: str, text: str) -> tuple[str, bool]:
    """The id of the running job for this work, and whether this call started it."""
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
            # Another submission came first: Ray answers 500 to an id that exists.
            if job_id not in {job.submission_id for job in _attempts(client, stem).values()}:
                raise
            return job_id, False
    return job_id, True


def _attempts(client: JobSubmissionClient, stem: str) -> dict[int, JobDetails]:
    """Attempt number -> job, for every job of this work that the cluster lists."""
    attempts: dict[int, JobDetails] = {}
    for job in client.list_jobs():
        prefix, _, number = (job.submission_id or "").rpartition("-")
        if prefix == stem and number.isdecimal():
            attempts[int(number)] = job
    return attempts


async def _copy_log(client: JobSubmissionClient, job_id: str, out: TextIO) -> None:
    """Write the log until the job has ended; after a reconnect, skip the part that was already written.

    The log may quote data: carriage returns and codes for the terminal are written as escapes.
    """
    import aiohttp

    num_written = 0
    waits_s = iter(_RECONNECT_AFTER_S)
    while True:
        reason = "the log ended before the job"
        position = 0
        try:
            async for chunk in client.tail_job_logs(job_id):
                new_text = chunk[max(0, num_written - position) :]
                position += len(chunk)
                if new_text:
                    out.write(printable_lines(new_text))
                    out.flush()
                    num_written = position
                    waits_s = iter(_RECONNECT_AFTER_S)
            if client.get_job_info(job_id).status.is_terminal():
                return
        except BrokenPipeError:
            raise  # of `out`, not of the connection to the cluster
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            reason = _one_line(error)
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
    print_line(f"{job.submission_id}: {status}: {_one_line(job.message or 'no reason given')}", err)
    # A negative code is a signal to the shell; an exit status cannot express it.
    return max(1, job.driver_exit_code or 1) if status == "FAILED" else 1


def _one_line(error: object) -> str:
    """One line of an error message: the last line of a traceback, otherwise the first line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
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
    node: Any = tree
    for key in sections:
        node = node[int(key) if isinstance(node, list) else key]
    node[last] = value
