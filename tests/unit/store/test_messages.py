"""Lines between a process of the service and the one that runs its SQL."""

from __future__ import annotations

import json

import pytest

from raysys.errors import InputError, RaysysError, StoreFailed
from raysys.store.changes import Delete, LoggedChange
from raysys.store.messages import (
    answer_of,
    append_line,
    changes_of,
    error_line,
    line_of,
    logged_line,
    logged_of,
)
from raysys.store.rows import checked_change
from tests.store_writer import SPACE, unit_vector, upsert

TEXT = 'シャツ\n"\\\u2028\x85👗'  # no line ends within one


def test_changes_are_the_same_after_a_line() -> None:
    two_spaces = upsert(
        TEXT, title=TEXT, attributes={TEXT: TEXT}, vectors={"a": unit_vector(1), "b": unit_vector(2)}
    )
    changes = [
        checked_change(change) for change in (two_spaces, upsert("m2", photo=None, vectors={}), Delete(TEXT))
    ]
    line = append_line(changes)
    assert line.index(b"\n") == len(line) - 1
    method, message = json.loads(line)
    assert method == "append"
    assert changes_of(message) == changes


def test_logged_changes_are_the_same_after_a_line() -> None:
    logged = [
        LoggedChange(7, 1.5, upsert(TEXT, title=TEXT)),
        LoggedChange(8, 2.5, upsert("m2", photo=None, vectors={})),
        LoggedChange(9, 3.5, Delete(TEXT)),
    ]
    line = logged_line(logged, SPACE)
    assert line.index(b"\n") == len(line) - 1
    found = logged_of(answer_of(line), SPACE)
    assert found == logged
    # Vectors are not part of the comparison.
    vectors = [getattr(one.change, "vectors", {}) for one in found]
    assert [[*of_spaces] for of_spaces in vectors] == [[SPACE], [], []]
    assert vectors[0][SPACE].tolist() == unit_vector(1).tolist()


def test_answer_has_the_sequences() -> None:
    assert answer_of(line_of([3, 4])) == [3, 4]


@pytest.mark.parametrize("error", [InputError("store: a"), StoreFailed("store: b\nc")])
def test_answer_raises_the_error(error: RaysysError) -> None:
    line = error_line(error)
    assert line.index(b"\n") == len(line) - 1
    with pytest.raises(type(error)) as caught:
        answer_of(line)
    assert str(caught.value) == str(error)
