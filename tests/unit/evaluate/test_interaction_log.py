"""Reading interaction logs: grouping of rows, accepted types, and errors for unusable logs."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys.errors import InputError, MissingError
from raysys.evaluate.interaction_log import read_log

COLUMNS = "impression_id, query_id, item_id, position"


def log_table(**columns: Any) -> pa.Table:
    """Two impressions, rows out of order: q1 showed b, a (a tapped); q2 showed c (tapped)."""
    rows = {
        "impression_id": [7, 3, 7],
        "query_id": ["q1", "q2", "q1"],
        "item_id": ["a", "c", "b"],
        "position": [1, 0, 0],
        "tapped": [True, True, False],
    }
    return pa.table({name: values for name, values in {**rows, **columns}.items() if values is not None})


def test_rows_are_grouped_by_impression_and_sorted_by_position() -> None:
    log = read_log(log_table())
    assert log.query_ids == ["q1", "q2"]
    assert log.shown_ids == [["b", "a"], ["c"]]
    assert log.tapped.tolist() == [[False, True], [True, False]]
    assert log.shown.tolist() == [[True, True], [True, False]]
    assert not log.simulated


def test_file_and_folder_of_files_are_read(tmp_path: Path) -> None:
    pq.write_table(log_table(session=["x", "y", "z"]), tmp_path / "log.parquet")
    assert read_log(str(tmp_path / "log.parquet")).shown_ids == [["b", "a"], ["c"]]
    (tmp_path / "parts").mkdir()
    pq.write_table(log_table().slice(0, 1), tmp_path / "parts" / "0.parquet")
    pq.write_table(log_table().slice(1), tmp_path / "parts" / "1.parquet")
    assert read_log(str(tmp_path / "parts")).shown_ids == [["b", "a"], ["c"]]


def test_integer_ids_and_tap_counts_are_accepted() -> None:
    log = read_log(log_table(query_id=[1, 2, 1], item_id=[10, 30, 20], tapped=[2, 1, 0]))
    assert log.query_ids == ["1", "2"]
    assert log.shown_ids == [["20", "10"], ["30"]]
    assert log.tapped.tolist() == [[False, True], [True, False]]


def test_impressions_without_a_tap_are_left_out_and_counted() -> None:
    log = read_log(log_table(tapped=[False, True, False]))
    assert (log.query_ids, log.num_untapped, log.shown.shape) == (["q2"], 1, (1, 1))


def test_restricted_log_has_only_the_given_items() -> None:
    log = read_log(log_table())
    restricted = log.restrict_to({"q2", "c", "q1", "a"}, max_items=10)  # without b
    assert (restricted.query_ids, restricted.shown_ids) == (["q2"], [["c"]])
    assert (restricted.tapped.tolist(), restricted.shown.tolist()) == ([[True, False]], [[True, False]])
    # q1 with b and a would be three items.
    assert log.restrict_to(log.item_ids, max_items=2).query_ids == ["q2"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            log_table(tapped=None, taped=[True, True, False]),
            f"the interaction log: no column 'tapped' (found: {COLUMNS}, taped); did you mean 'taped'?",
        ),
        (
            log_table(position=["1", "0", "0"]),
            "the interaction log: column 'position' is string, should be an integer; cast it",
        ),
        (
            log_table(item_id=["a", None, "b"]),
            "the interaction log: column 'item_id' is empty in 1 rows; drop or fill them",
        ),
        (
            log_table(query_id=["q1", "q2", "q3"]),
            "the interaction log: an impression_id has two queries ('q3' and 'q1'); number impressions uniquely",
        ),
        (
            log_table(tapped=[False, False, False]),
            "the interaction log: none of 2 impressions has a tap; "
            "check that taps are logged, or use a longer period",
        ),
        (
            log_table().slice(0, 0),
            f"the interaction log: no rows (columns: {COLUMNS}, tapped); an interaction log needs impressions",
        ),
    ],
)
def test_unusable_log_is_an_input_error(table: pa.Table, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_log(table)
    assert str(caught.value) == message


def test_errors_name_the_file(tmp_path: Path) -> None:
    missing, text, wrong = (str(tmp_path / name) for name in ("none.parquet", "log.csv", "wrong.parquet"))
    with pytest.raises(MissingError, match="none.parquet: no such interaction log; check evaluate.log.path"):
        read_log(missing)
    Path(text).write_text("impression_id,query_id\n1,a\n")
    with pytest.raises(
        InputError, match=r"log.csv: not a Parquet file .*; write the interaction log as Parquet"
    ):
        read_log(text)
    pq.write_table(pa.table({"clicked": [True]}), wrong)
    with pytest.raises(InputError, match=r"wrong.parquet: no column 'impression_id' \(found: clicked\)"):
        read_log(wrong)
