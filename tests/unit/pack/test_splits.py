"""The split is a function of a row's values, and keeps sellers, groups and periods apart."""

from __future__ import annotations

import collections
import datetime
from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from raysys.config.schema import SPLITS, AttributeSplit, ColumnSplit, GroupSplit, TimeSplit
from raysys.errors import InputError
from raysys.pack.splits import split_of, split_of_group

BY_SELLER = AttributeSplit(attribute="seller", val_fraction=0.25, test_fraction=0.25)
BY_TIME = TimeSplit(attribute="listed_at", val_from="2026-03-01", test_from="2026-04-01")


def by_seller(item_id: str, seller: str | None) -> str | None:
    return split_of(item_id, {"seller": seller}, None, "items.csv:2", BY_SELLER)


def by_time(listed_at: str | float | None, section: TimeSplit = BY_TIME) -> str | None:
    return split_of("a", {"listed_at": listed_at}, None, "items.csv:2", section)


def count_splits(sellers: Sequence[str]) -> collections.Counter[str | None]:
    return collections.Counter(by_seller(f"i{n}", seller) for n, seller in enumerate(sellers))


def test_all_rows_of_a_seller_have_one_split() -> None:
    for seller in ("anna", "ben", "cleo"):
        assert len(count_splits([seller] * 50)) == 1


def test_shares_of_the_splits_are_near_the_configured_fractions() -> None:
    counts = count_splits([f"s{n}" for n in range(4000)])
    # 25 % of 4000 is 1000; the standard deviation of a binomial is sqrt(4000 / 4 * 3 / 4) = 27.
    assert abs(counts["val"] - 1000) < 110
    assert abs(counts["test"] - 1000) < 110


def test_row_without_the_attribute_is_split_by_its_id() -> None:
    assert {by_seller(f"i{n}", None) for n in range(100)} == set(SPLITS)


def test_attribute_that_the_catalogue_lacks_is_an_error() -> None:
    with pytest.raises(InputError) as caught:
        split_of("a", {"seller": "anna"}, None, "items.csv:2", AttributeSplit(attribute="shop"))
    assert str(caught.value) == (
        "pack.split.attribute: 'shop' is not an attribute of the catalogue (attributes: seller); "
        "add it to catalog.columns.attributes"
    )


def test_column_holds_the_split() -> None:
    assert split_of("a", {}, "val", "items.csv:2", ColumnSplit(column="part")) == "val"
    with pytest.raises(InputError) as caught:
        split_of("a", {}, "dev", "items.csv:2", ColumnSplit(column="part"))
    assert str(caught.value) == "items.csv:2: column 'part' should be one of train, val, test, got 'dev'"


def test_group_decides_the_split_with_the_hash_of_an_attribute() -> None:
    section = GroupSplit(val_fraction=0.25, test_fraction=0.25)
    assert split_of("a", {}, None, "items.csv:2", section) is None
    assert {split_of_group(f"g{n}", section) for n in range(100)} == set(SPLITS)
    assert split_of_group("anna", section) == by_seller("a", "anna")


def test_times_are_cut_at_the_configured_moments() -> None:
    assert by_time("2026-02-28T23:59:59") == "train"
    assert by_time("2026-03-01") == "val"
    assert by_time("2026-04-01") == "test"
    assert by_time(None) == "train"
    assert by_time(7, TimeSplit(attribute="listed_at", val_from=5.0, test_from=8.0)) == "val"


def test_time_of_another_type_is_an_error() -> None:
    with pytest.raises(InputError) as caught:
        by_time(7)
    assert str(caught.value) == (
        "items.csv:2: attribute 'listed_at' is 7, which cannot be compared with '2026-04-01'; "
        "change pack.split or catalog.columns.attributes.listed_at"
    )


def test_moments_in_the_wrong_order_are_an_error() -> None:
    with pytest.raises(ValidationError, match=r"val_from.*test_from"):
        TimeSplit(val_from="2027", test_from="2026")


def test_yaml_date_is_converted_to_text() -> None:
    section = TimeSplit.model_validate({"val_from": datetime.date(2026, 3, 1), "test_from": "2026-04-01"})
    assert section.val_from == "2026-03-01"
