"""The change log on a full disk, on a read-only disk, and on a PostgreSQL server that is killed or not there."""

from __future__ import annotations

import random
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysys.config.store import without_password
from raysys.errors import InputError, StoreFailed
from raysys.store.change_log import ChangeLog
from tests.disks import fill_disk, small_disk
from tests.postgres import PASSWORD, PostgresServer
from tests.s3 import free_port
from tests.store_writer import SPACE, read_sequences, remaining_sequences, start_writer, upsert

DISK_BYTES = 1 << 20
POSTGRES_DISK_BYTES = 32 << 20  # a new database has 8 MB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", DISK_BYTES) as folder:
        yield folder


def test_full_disk_loses_nothing_and_the_log_works_when_there_is_space(disk: Path) -> None:
    check_full_disk(f"sqlite:///{disk}/store.db", disk, "database or disk is full")


def test_full_disk_of_postgresql_loses_nothing_and_the_log_works_when_there_is_space(
    postgres: PostgresServer,
) -> None:
    with postgres.database_on_small_disk(POSTGRES_DISK_BYTES) as (url, folder):
        check_full_disk(url, folder, r'could not extend file ".*": No space left on device HINT: .*')


def check_full_disk(url: str, folder: Path, reason: str) -> None:
    log = ChangeLog(url)
    log.append([upsert("a")])
    filler = fill_disk(folder, left_bytes=100_000)
    stored = ["a"]
    with pytest.raises(StoreFailed) as caught:
        append_triples(log, stored)
    name = re.escape(without_password(url))
    remedy = "free space there, then repeat the request"
    assert re.fullmatch(rf"{name}: could not be written \({reason}\); {remedy}", str(caught.value))
    assert len(stored) > 3
    assert [entry.change.item_id for entry in log.after(0, SPACE)] == stored

    filler.unlink()
    assert log.append([upsert("b")]) == [len(stored) + 1]
    log.close()
    again = ChangeLog(url)
    assert [entry.change.item_id for entry in again.after(0, SPACE)] == [*stored, "b"]
    again.close()


def append_triples(log: ChangeLog, stored: list[str]) -> None:
    """Append three items at a time, up to 3 MB, and add the acknowledged ids to `stored`."""
    for number in range(1000):
        ids = [f"{number}-{part}" for part in range(3)]
        log.append([upsert(item_id, title="long " * 200) for item_id in ids])
        stored += ids


def test_disk_that_becomes_read_only_is_an_error_of_the_store(disk: Path) -> None:
    url = f"sqlite:///{disk}/store.db"
    log = ChangeLog(url)
    log.append([upsert("a")])
    log.close()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(
        InputError, match=f"^{url}: could not be opened .*; check store.url, and the permissions"
    ):
        ChangeLog(url)
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    log = ChangeLog(url)
    assert log.append([upsert("a"), upsert("b")]) == [1, 2]
    log.close()


def test_acknowledged_changes_survive_kill_9_of_the_server(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    writer = start_writer(url, "w", 160, timeout_s=60)
    acknowledged = read_sequences(writer, random.Random().randint(100, 120))
    postgres.kill()
    postgres.start()
    acknowledged += remaining_sequences(writer)  # it waits for the server and goes on
    assert writer.returncode == 0
    assert acknowledged == list(range(1, 161))  # none lost, none stored twice
    log = ChangeLog(url)
    assert [entry.change.item_id for entry in log.after(0, SPACE)] == [f"w-{number}" for number in range(160)]
    log.close()


def test_server_that_is_gone_is_an_error_without_the_password(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    log = ChangeLog(url, timeout_s=0.5)
    log.append([upsert("a")])
    postgres.kill()
    try:
        for request in (log.last, lambda: log.append([upsert("b")]), lambda: ChangeLog(url, timeout_s=0.2)):
            with pytest.raises(StoreFailed, match="; check the database, then repeat the request$") as caught:
                request()
            assert str(caught.value).startswith(url.replace(":the%20secret", "") + ": could not be ")
            assert "secret" not in str(caught.value)
    finally:
        postgres.start()
    assert log.append([upsert("a"), upsert("b")]) == [1, 2]
    log.close()


def test_start_of_the_server_is_waited_for(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    postgres.kill()
    start = threading.Thread(target=postgres.start)
    start.start()
    log = ChangeLog(url, timeout_s=60)
    start.join()
    assert log.append([upsert("a")]) == [1]
    log.close()


def test_account_and_database_that_do_not_exist_are_refused_at_once(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_database()
    wrong_password = url.replace("secret", "wrong")
    with pytest.raises(InputError, match="password authentication failed .*; check store.url") as caught:
        ChangeLog(wrong_password, timeout_s=300)
    assert "wrong" not in str(caught.value)
    with pytest.raises(InputError, match='database "other" does not exist'):
        ChangeLog(f"{url.rpartition('/')[0]}/other", timeout_s=300)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    ChangeLog(url.replace(":the%20secret", "")).close()


def test_port_without_a_server_is_an_error_of_the_store() -> None:
    with pytest.raises(StoreFailed, match="Connection refused"):
        ChangeLog(f"postgresql://raysys@127.0.0.1:{free_port()}/shop", timeout_s=0.2)


def test_database_of_another_encoding_is_refused(postgres: PostgresServer) -> None:
    url = postgres.new_database("--encoding", "LATIN1", "--template", "template0")
    with pytest.raises(InputError, match="has the encoding LATIN1; create a database with ENCODING 'UTF8'"):
        ChangeLog(url)
