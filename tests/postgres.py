"""A real PostgreSQL server on a loopback port, with a password, that a test may kill and start again."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.disks import small_disk
from tests.s3 import free_port

USER, PASSWORD = "raysys", "the secret"
START_TIMEOUT_S = 60.0


class PostgresServer:
    """A server whose data lie in a folder; `start` returns when it accepts connections."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries, self._folder = binaries, folder
        self._data, self._log = folder / "data", folder / "log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        (folder / "password").write_text(PASSWORD)
        self._run("initdb", "--username", USER, "--pwfile", str(folder / "password"),
                  "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync", "--pgdata", str(self._data))  # fmt: skip

    def new_database(self, *options: str) -> str:
        """The URL of a new, empty database, with the password in it; `options` are those of `createdb`."""
        name = f"log{next(self._numbers)}"
        self._run("createdb", *self._connection(), *options, name)
        return f"postgresql://{USER}:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{self.port}/{name}"

    @contextlib.contextmanager
    def database_on_small_disk(self, size_bytes: int) -> Iterator[tuple[str, Path]]:
        """The URL of a new database, and the folder of its disk, which has this size and nothing else."""
        folder = self._folder / "disk"
        folder.mkdir()
        with small_disk(folder, size_bytes, owner="postgres"):
            self._execute(f"CREATE TABLESPACE small_disk LOCATION '{folder}'")
            url = self.new_database("--tablespace", "small_disk")
            try:
                yield url, folder
            finally:
                self._run("dropdb", *self._connection(), "--force", url.rpartition("/")[2])
                self._execute("DROP TABLESPACE small_disk")
        folder.rmdir()

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_user(), str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port),
                 "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self._folder}"],
                stdout=log, stderr=log, cwd=self._folder,
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        ready = [str(self._binaries / "pg_isready"), "-q", *self._connection()]
        while subprocess.run(ready, check=False).returncode:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """`kill -9` of the server and all its processes."""
        assert self._process is not None
        starter = psutil.Process(self._process.pid)
        for process in starter.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()  # so that the server starts no further process meanwhile
        processes = [starter, *starter.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        # The server refuses to start while a process of the killed one holds its shared memory.
        psutil.wait_procs(processes, timeout=START_TIMEOUT_S)

    def stop(self) -> None:
        """Stop the server if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._run("pg_ctl", "stop", "--mode", "immediate", "--pgdata", str(self._data))
            self._process.wait(START_TIMEOUT_S)

    def _execute(self, statement: str) -> None:
        self._run("psql", *self._connection(), "--dbname", "postgres", "--quiet", "--command", statement)

    def _connection(self) -> list[str]:
        return ["--host", "127.0.0.1", "--port", str(self.port), "--username", USER]

    def _run(self, program: str, *arguments: str) -> None:
        command = [*_as_user(), str(self._binaries / program), *arguments]
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=self._folder, env=environment
        )
        assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run a server for the duration of the block. Skips where PostgreSQL is not installed."""
    binaries = _binaries()
    # Not in pytest's folder: it is closed to the user that the server runs as.
    with tempfile.TemporaryDirectory(prefix="raysys-postgres-") as name:
        folder = Path(name)
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
        server = PostgresServer(binaries, folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _binaries() -> Path:
    """The folder of the server's programs, which Debian keeps out of PATH."""
    on_path = shutil.which("initdb")
    folders = (
        [Path(on_path).resolve().parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    )
    if not folders:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return folders[-1]


def _as_user() -> list[str]:
    """PostgreSQL refuses to run as root: its own user runs it then."""
    return ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
