"""Generated items: ids, sellers, shares, re-listings."""

import pickle
import re
from collections import Counter
from datetime import date
from itertools import pairwise

import pytest

from raysys.synth import BACKDROPS, COLOURS, KINDS, PATTERNS, DrawnItem, generate_items


@pytest.fixture(scope="module")
def items() -> list[DrawnItem]:
    return generate_items(3000, seed=7)


def test_same_seed_gives_the_same_catalogue() -> None:
    assert generate_items(50, seed=7) == generate_items(50, seed=7)
    assert generate_items(50, seed=7) != generate_items(50, seed=8)


def test_larger_catalogue_begins_with_the_smaller_one(items: list[DrawnItem]) -> None:
    assert generate_items(200, seed=7) == items[:200]


def test_catalogue_of_no_items_is_empty() -> None:
    assert generate_items(0, seed=7) == []


def test_every_kind_colour_pattern_style_and_backdrop_occurs(items: list[DrawnItem]) -> None:
    assert len(KINDS) == 24
    assert {item.kind for item in items} == set(KINDS)
    assert {item.colour for item in items} == set(COLOURS)
    assert {item.pattern for item in items} == set(PATTERNS)
    assert {item.backdrop for item in items} == set(BACKDROPS)
    assert {(item.kind, item.style) for item in items} == {
        (kind, style) for kind, about in KINDS.items() for style in about.styles
    }


def test_no_kind_is_rare_or_dominant(items: list[DrawnItem]) -> None:
    # 3000 / 24 = 125 of each; four standard deviations are 44.
    counts = Counter(item.kind for item in items)
    assert min(counts.values()) > 80
    assert max(counts.values()) < 170


def test_public_category_is_coarser_than_the_kind(items: list[DrawnItem]) -> None:
    categories = {item.category for item in items}
    assert 6 <= len(categories) <= 9
    assert all(KINDS[item.kind].category == item.category for item in items)


def test_ids_are_unique_and_have_eight_digits(items: list[DrawnItem]) -> None:
    ids = [item.item_id for item in items]
    assert len(set(ids)) == 3000
    assert all(re.fullmatch(r"d\d{8}", item_id) for item_id in ids)


def test_id_order_is_unrelated_to_kind_and_order_of_generation(items: list[DrawnItem]) -> None:
    by_id = sorted(items, key=lambda item: item.item_id)
    assert by_id != items
    same_kind = sum(a.kind == b.kind for a, b in pairwise(by_id)) / 2999
    assert same_kind == pytest.approx(1 / 24, abs=0.015)


def test_sizes_of_sellers_are_uneven(items: list[DrawnItem]) -> None:
    sizes = [count for _, count in Counter(item.seller for item in items).most_common()]
    assert 110 <= len(sizes) <= 120
    assert sum(sizes[:12]) > 0.3 * 3000  # a tenth of the sellers have a third of the items
    assert sizes[len(sizes) // 2] < 3000 / 120  # the median is below the mean


def test_seller_has_one_backdrop_and_location(items: list[DrawnItem]) -> None:
    locations = {(item.seller, item.backdrop, item.location_seed) for item in items}
    assert len(locations) == len({item.seller for item in items})


def test_about_one_item_in_25_is_a_relisting(items: list[DrawnItem]) -> None:
    assert sum(item.relisted_from is not None for item in items) / 3000 == pytest.approx(0.04, abs=0.01)


def test_relisting_is_the_same_object_of_the_same_seller(items: list[DrawnItem]) -> None:
    by_id = {item.item_id: item for item in items}
    for again in (item for item in items if item.relisted_from is not None):
        source = by_id[str(again.relisted_from)]
        for name in ("kind", "colour", "pattern", "style", "seller", "object_seed", "location_seed"):
            assert getattr(again, name) == getattr(source, name)
        assert source.title in again.title
        assert again.price <= source.price
        assert date.fromisoformat(again.listed_at) > date.fromisoformat(source.listed_at)


def test_relistings_reuse_the_old_photo_or_have_a_new_one(items: list[DrawnItem]) -> None:
    by_id = {item.item_id: item for item in items}
    new_photos = [
        item.shot_seed != by_id[item.relisted_from].shot_seed for item in items if item.relisted_from
    ]
    assert 0.3 < sum(new_photos) / len(new_photos) < 0.7


def test_prices_depend_on_the_kind(items: list[DrawnItem]) -> None:
    prices = {kind: [item.price for item in items if item.kind == kind] for kind in ("mug", "guitar")}
    assert max(prices["mug"]) < sorted(prices["guitar"])[len(prices["guitar"]) // 2]
    assert min(item.price for item in items) >= 300


def test_item_can_be_pickled(items: list[DrawnItem]) -> None:
    assert pickle.loads(pickle.dumps(items[0])) == items[0]
