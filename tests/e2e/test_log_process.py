"""A log in another process: many calls at once, and what ends the process or makes it fail."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from raysys.errors import InputError, StoreFailed
from raysys.serve import append_process
from raysys.serve.append_process import AppendProcess
from raysys.store.change_log import ChangeLog
from raysys.store.changes import Delete
from raysys.store.log_process import LogProcess, LogReader, start_log_process
from raysys.store.messages import OpenLog
from tests.e2e.small import cmdline_of, have_ended, wait_for
from tests.e2e.test_change_log import locked
from tests.store_writer import SPACE, upsert

NUM_CALLS = 100
# A program that starts the process, and waits until it is killed.
STARTS_ONE = """
import sys, time
from raysys.serve.append_process import AppendProcess
appending = AppendProcess(sys.argv[1], 5.0)
print(flush=True)
time.sleep(600)
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of an empty database."""
    return f"sqlite:///{tmp_path}/store.db"


def log_processes() -> list[psutil.Process]:
    """The processes of this one."""
    return [one for one in psutil.Process().children() if "raysys.store.log_server" in cmdline_of(one)]


@contextlib.asynccontextmanager
async def opened(url: str, timeout_s: float = 5.0) -> AsyncIterator[AppendProcess]:
    """A process, which has ended when the block has."""
    appending = AppendProcess(url, timeout_s)
    try:
        yield appending
    finally:
        await appending.close()
        assert log_processes() == []


def test_calls_at_once_are_all_stored_in_order(url: str) -> None:
    async def append() -> list[list[int]]:
        async with opened(url) as appending:
            calls = (appending.append([upsert(f"a-{n}"), Delete(f"b-{n}")]) for n in range(NUM_CALLS))
            return await asyncio.gather(*calls)

    sequences = asyncio.run(append())
    assert sequences == [[2 * n + 1, 2 * n + 2] for n in range(NUM_CALLS)]
    log = ChangeLog(url)
    found = log.after(0, SPACE)
    assert [logged.change.item_id for logged in found] == [
        f"{kind}-{n}" for n in range(NUM_CALLS) for kind in "ab"
    ]
    assert found[0].change == upsert("a-0")
    log.close()


def test_changes_are_repeated_when_the_process_is_killed(url: str) -> None:
    async def append() -> list[list[int]]:
        async with opened(url) as appending:
            first = await appending.append([upsert("a")])
            [process] = log_processes()
            process.kill()
            second, third = await asyncio.gather(
                appending.append([upsert("b")]), appending.append([upsert("c")])
            )
            return [first, second, third]

    assert asyncio.run(append()) == [[1], [2], [3]]


def test_process_that_ends_again_is_an_error_of_the_store(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def start_and_kill(log: OpenLog) -> LogProcess:
        started = start_log_process(log)
        started.process.kill()
        return started

    monkeypatch.setattr(append_process, "start_log_process", start_and_kill)

    async def append() -> None:
        async with opened(url) as appending:
            await appending.append([upsert("a")])

    with pytest.raises(StoreFailed, match="the process that reads or writes it ended"):
        asyncio.run(append())


def test_process_ends_with_the_one_that_started_it(url: str) -> None:
    program = subprocess.Popen([sys.executable, "-c", STARTS_ONE, url], stdout=subprocess.PIPE)
    assert program.stdout is not None
    program.stdout.readline()
    children = psutil.Process(program.pid).children()
    assert len(children) == 1
    program.kill()
    program.communicate()
    wait_for(lambda: have_ended(children))


def test_database_that_does_not_answer_is_an_error_of_all_calls(url: str) -> None:
    async def append() -> list[list[int] | BaseException]:
        async with opened(url, 0.3) as appending:
            calls = [appending.append([upsert(f"a-{n}")]) for n in range(3)]
            with locked(url):
                return await asyncio.gather(*calls, return_exceptions=True)

    errors = asyncio.run(append())
    assert len(errors) == 3
    for error in errors:
        assert isinstance(error, StoreFailed)
        assert "another process has written for more than 0.3 s" in str(error)


def test_place_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "store.db").mkdir()
    with pytest.raises(InputError, match=r"store.db: could not be opened .* check store.url") as caught:
        AppendProcess(f"sqlite:///{tmp_path}/store.db", 5.0)
    with pytest.raises(InputError) as same:
        ChangeLog(f"sqlite:///{tmp_path}/store.db", 5.0)
    assert str(caught.value) == str(same.value)


def test_place_that_is_gone_when_the_process_is_started_again_is_an_error_of_the_store(
    tmp_path: Path,
) -> None:
    database = tmp_path / "store.db"

    async def append() -> None:
        async with opened(f"sqlite:///{database}") as appending:
            await appending.append([upsert("a")])
            [process] = log_processes()
            for file in tmp_path.iterdir():
                file.unlink()
            database.mkdir()
            process.kill()
            await appending.append([upsert("b")])

    with pytest.raises(StoreFailed, match=r"store.db: could not be opened"):
        asyncio.run(append())


def test_change_that_cannot_be_stored_does_not_fail_another_call(url: str) -> None:
    async def append() -> list[list[int] | BaseException]:
        async with opened(url) as appending:
            calls = [appending.append([upsert(item_id)]) for item_id in ("a", "\0", "b")]
            return await asyncio.gather(*calls, return_exceptions=True)

    first, refused, last = asyncio.run(append())
    assert [first, last] == [[1], [2]]
    assert isinstance(refused, InputError)


def test_changes_are_read_as_in_this_process(url: str) -> None:
    log, reader = ChangeLog(url), LogReader(url, 5.0)
    log.append([upsert("a"), Delete("b"), upsert("c", vectors={})])
    assert reader.after(0, SPACE, limit=2) == log.after(0, SPACE, limit=2)
    assert reader.at([1, 3], SPACE) == log.at([1, 3], SPACE)
    assert reader.at([], SPACE) == reader.after(3, SPACE, limit=2) == []
    reader.close()
    log.close()
    assert log_processes() == []


def test_reader_goes_on_after_its_process_was_killed(url: str) -> None:
    reader, log = LogReader(url, 5.0), ChangeLog(url)
    [process] = log_processes()
    process.kill()
    log.append([upsert("a")])
    with pytest.raises(StoreFailed, match=r"store.db: the process that reads or writes it ended"):
        reader.after(0, SPACE, limit=1)
    assert [logged.sequence for logged in reader.after(0, SPACE, limit=1)] == [1]
    reader.close()
    log.close()


def test_process_that_cannot_be_started_is_an_error_of_the_store(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/python")
    with pytest.raises(StoreFailed, match=r"store.db: no process can be started .*No such file or directory"):
        LogReader(url, 5.0)
