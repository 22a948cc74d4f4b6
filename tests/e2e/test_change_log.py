"""The change log on SQLite and on PostgreSQL: the same tests on both."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from raysys.errors import InputError, StoreFailed
from raysys.store.change_log import ChangeLog
from raysys.store.changes import Change, Delete, LoggedChange, PhotoFile, Upsert
from raysys.store.url import parse_url
from tests.postgres import PostgresServer
from tests.store_writer import SPACE, read_sequences, remaining_sequences, start_writer, unit_vector, upsert

WRITERS, CHANGES_EACH = 3, 25


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def log(url: str) -> Iterator[ChangeLog]:
    """An empty log."""
    opened = ChangeLog(url)
    yield opened
    opened.close()


def execute(url: str, *statements: str) -> None:
    """Run SQL in one transaction, as another program would."""
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@contextlib.contextmanager
def locked(url: str) -> Iterator[None]:
    """Another writer, which does not end while the block runs."""
    engine = create_engine(parse_url(url))
    is_sqlite = engine.dialect.name == "sqlite"
    lock = "BEGIN IMMEDIATE" if is_sqlite else f"SELECT pg_advisory_xact_lock({0x726179737973})"
    with engine.connect() as connection:
        connection.exec_driver_sql(lock)
        yield
    engine.dispose()


def test_changes_are_read_in_order_as_they_were_written(log: ChangeLog) -> None:
    changes: list[Change] = [
        upsert("a"),
        upsert("b", photo=None, attributes={}, group="", vectors={}),
        Delete("a"),
    ]
    assert log.last() == 0
    assert log.append(changes) == [1, 2, 3]
    found = log.after(0, SPACE)
    assert [(entry.sequence, entry.change) for entry in found] == list(enumerate(changes, 1))
    assert found[0].accepted_at == found[2].accepted_at > 1.7e9  # seconds
    assert log.after(1, SPACE, limit=1) == [found[1]]
    assert log.last() == 3
    assert log.append([]) == []


def test_change_has_only_the_vector_of_the_space(log: ChangeLog) -> None:
    log.append(
        [upsert("a", vectors={SPACE: unit_vector(1), "space-b": unit_vector(2)}), upsert("b", vectors={})]
    )
    first, second = vectors_of(log.after(0, "space-b"))
    assert list(first) == ["space-b"]
    assert first["space-b"].dtype == np.float32
    np.testing.assert_array_equal(first["space-b"], unit_vector(2))
    assert second == {}
    assert vectors_of(log.after(0, "space-c")) == [{}, {}]


def test_changes_are_found_by_their_sequences(log: ChangeLog) -> None:
    log.append([upsert("a"), upsert("b"), Delete("a")])
    found = log.at({3, 2, 9}, SPACE)
    assert [(entry.sequence, entry.change) for entry in found] == [(2, upsert("b")), (3, Delete("a"))]
    assert vectors_of(found)[0].keys() == {SPACE}
    assert log.at([], SPACE) == []


def test_change_sent_again_is_stored_once(log: ChangeLog) -> None:
    assert log.append([upsert("a"), Delete("unknown")]) == [1, 2]
    attributes = dict(reversed(upsert("a").attributes.items()))
    assert log.append([Delete("unknown"), upsert("a", attributes=attributes), upsert("a")]) == [2, 1, 1]
    assert log.last() == 2


@pytest.mark.parametrize(
    "other",
    [
        {"title": "Red dress"},
        {"attributes": {**upsert("a").attributes, "price": 3000.0}},
        {"attributes": {**upsert("a").attributes, "new": 1}},
        {"content_hash": "c0ffef"},
        {"photo": PhotoFile("/photos/ab/abd", 1234)},
        {"photo": None},
        {"group": "g2"},
    ],
    ids=str,
)
def test_any_other_content_is_a_change(log: ChangeLog, other: dict[str, object]) -> None:
    assert log.append([upsert("a"), upsert("a", **other)]) == [1, 2]


def test_only_the_latest_change_of_an_item_is_compared(log: ChangeLog) -> None:
    assert log.append([upsert("a"), Delete("a"), upsert("a"), upsert("a")]) == [1, 2, 3, 3]
    assert log.append([Delete("a"), Delete("a"), upsert("a", title="other"), upsert("a")]) == [4, 4, 5, 6]


def test_change_sent_again_adds_vectors_of_further_spaces(log: ChangeLog) -> None:
    log.append([upsert("a")])
    again = upsert("a", vectors={SPACE: unit_vector(7), "space-b": unit_vector(2)})
    assert log.append([again]) == [1]
    np.testing.assert_array_equal(vectors_of(log.after(0, SPACE))[0][SPACE], unit_vector(1))
    np.testing.assert_array_equal(vectors_of(log.after(0, "space-b"))[0]["space-b"], unit_vector(2))


def test_batch_with_a_change_that_cannot_be_stored_stores_nothing(log: ChangeLog) -> None:
    with pytest.raises(InputError, match="has a NUL character"):
        log.append([upsert("a"), upsert("b", title="\0")])
    assert log.last() == 0


def test_ids_are_compared_exactly(log: ChangeLog) -> None:
    ids = [
        "a",
        "A",
        "a ",
        "é",
        "e\u0301",
        "",
        "'; DROP TABLE raysys_changes; --",
        "%s:x",
        "😀\u202e\n\r\t\x01",
        "\uffff",
    ]
    ids += [random.Random(1).randbytes(20_000).hex()]  # longer than an index entry of PostgreSQL
    assert log.append([upsert(item_id, title=item_id) for item_id in ids]) == list(range(1, len(ids) + 1))
    assert [entry.change.item_id for entry in log.after(0, SPACE)] == ids
    assert log.append([upsert(item_id, title=item_id) for item_id in reversed(ids)]) == list(
        range(len(ids), 0, -1)
    )


@pytest.mark.parametrize("page", [1, 3, 1000])
def test_latest_is_the_last_change_of_each_item(log: ChangeLog, page: int) -> None:
    rng = random.Random(3)
    for _ in range(12):
        log.append([random_change(rng) for _ in range(rng.randint(1, 8))])
    everything = log.after(0, SPACE)
    for up_to in (0, 1, 7, log.last() - 1, log.last(), log.last() + 5):
        by_item = {entry.change.item_id: entry for entry in everything if entry.sequence <= up_to}
        expected = sorted(by_item.values(), key=lambda entry: entry.sequence)
        assert list(log.latest(SPACE, up_to, page=page)) == expected


def random_change(rng: random.Random) -> Change:
    item_id = f"item{rng.randrange(9)}"
    return Delete(item_id) if rng.random() < 0.3 else upsert(item_id, title=str(rng.randrange(1000)))


def test_upserts_without_a_vector_are_found_until_they_have_one(log: ChangeLog) -> None:
    log.append(
        [upsert("old"), upsert("a"), upsert("gone"), Delete("gone"), upsert("old", title="new"), upsert("c")]
    )
    assert log.without_vector(SPACE, 10) == []
    missing = log.without_vector("space-b", 10)
    assert [(entry.sequence, entry.change.item_id) for entry in missing] == [(2, "a"), (5, "old"), (6, "c")]
    assert [entry.sequence for entry in log.without_vector("space-b", 1, after=2)] == [5]
    log.add_vectors("space-b", {2: unit_vector(2), 5: unit_vector(5)})
    log.add_vectors("space-b", {2: unit_vector(9)})  # the first one stays
    assert [entry.sequence for entry in log.without_vector("space-b", 10)] == [6]
    np.testing.assert_array_equal(vectors_of(log.after(1, "space-b"))[0]["space-b"], unit_vector(2))


@pytest.mark.parametrize("sequence", [2, 3])  # a delete, and none
def test_vectors_belong_to_upserts(log: ChangeLog, sequence: int) -> None:
    log.append([upsert("a"), Delete("a")])
    with pytest.raises(InputError, match=f"change {sequence}: is no upsert of this log"):
        log.add_vectors("space-b", {1: unit_vector(1), sequence: unit_vector(1)})
    assert vectors_of(log.after(0, "space-b"))[0] == {}


def test_log_is_there_when_it_is_opened_again(url: str, log: ChangeLog) -> None:
    log.append([upsert("a")])
    log.close()
    again = ChangeLog(url)
    assert again.append([upsert("a"), upsert("b")]) == [1, 2]
    again.close()


def test_reader_misses_no_change_of_concurrent_writers(url: str) -> None:
    if url.startswith("postgresql"):  # raysys does not depend on the defaults of a database
        name = url.rpartition("/")[2]
        execute(url, f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    writers = [start_writer(url, f"w{number}", CHANGES_EACH) for number in range(WRITERS - 1)]
    log = ChangeLog(url)  # while the others create the tables, too
    thread = threading.Thread(target=lambda: [log.append([upsert(f"t-{n}")]) for n in range(CHANGES_EACH)])
    thread.start()
    followed: list[int] = []
    while len(followed) < WRITERS * CHANGES_EACH:
        followed += [entry.sequence for entry in log.after(followed[-1] if followed else 0, SPACE)]
        assert thread.is_alive() or any(w.poll() is None for w in writers) or len(followed) == log.last()
    thread.join()
    acknowledged = [sequence for writer in writers for sequence in remaining_sequences(writer)]
    assert [writer.returncode for writer in writers] == [0] * (WRITERS - 1)
    assert followed == list(range(1, WRITERS * CHANGES_EACH + 1))
    assert len(set(acknowledged)) == (WRITERS - 1) * CHANGES_EACH
    log.close()


def test_acknowledged_changes_survive_kill_9_of_the_writer(url: str) -> None:
    writer = start_writer(url, "w", 100_000)
    acknowledged = read_sequences(writer, random.Random().randint(100, 140))
    writer.kill()
    acknowledged += remaining_sequences(writer)
    log = ChangeLog(url)
    assert acknowledged == list(range(1, len(acknowledged) + 1))
    assert log.last() - len(acknowledged) in (0, 1)  # one may be durable and not yet printed
    ids = [entry.change.item_id for entry in log.after(0, SPACE, limit=len(acknowledged))]
    assert ids == [f"w-{number}" for number in range(len(acknowledged))]
    assert log.append([upsert("another")]) == [log.last()]
    log.close()


def test_another_writer_that_does_not_end_is_an_error_and_reading_goes_on(url: str) -> None:
    log = ChangeLog(url, timeout_s=0.3)
    log.append([upsert("a")])
    with locked(url):
        with pytest.raises(
            StoreFailed, match=r"could not be written \(.*; another process .* store.timeout_s$"
        ):
            log.append([upsert("b")])
        assert log.last() == 1
    assert log.append([upsert("b")]) == [2]
    log.close()


def test_tables_of_another_format_are_refused(url: str, log: ChangeLog) -> None:
    log.append([upsert("a")])
    execute(url, "UPDATE raysys_format SET format = 2")
    with pytest.raises(
        InputError, match=r"has tables of format 2, this version of raysys has format 1; use"
    ) as caught:
        ChangeLog(url)
    assert "secret" not in str(caught.value)


def test_table_that_is_gone_is_an_error_of_the_store(url: str, log: ChangeLog) -> None:
    execute(url, "DROP TABLE raysys_vectors")
    with pytest.raises(
        StoreFailed, match="could not be read .*; check the database, then repeat the request"
    ):
        log.after(0, SPACE)
    with pytest.raises(StoreFailed, match="could not be written"):
        log.append([upsert("a")])
    assert log.last() == 0  # the change was stored before its vector, and rolled back


def vectors_of(entries: list[LoggedChange]) -> list[dict[str, np.ndarray]]:
    changes = [entry.change for entry in entries]
    return [dict(change.vectors) if isinstance(change, Upsert) else {} for change in changes]
