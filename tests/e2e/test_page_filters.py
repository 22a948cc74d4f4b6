"""Filters, variety and two shelves side by side in a real browser, with a stub of the service.

Item n of the stub: shirt for n = 0 to 4 and 15 to 19, dress for 5 to 9 and 20 to 24, bag for the others; price
1000 + 234 n; one of five sellers by n % 5. The neighbours of item 0 are the items 1, 2, 3, ..
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.e2e.stub_shelf import StubShelf, photo_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

DRESSES = {"category": {"in": ["fashion/dress"]}}


def test_choices_and_bounds_become_the_filter_and_the_address(page: Page) -> None:
    page.goto("/?item=item-00")
    open_filters(page)
    page.get_by_label("fashion › dress").check()
    wait_for_items(page, [5, 6, 7, 8, 9, 20, 21, 22, 23, 24])
    page.get_by_label("To", exact=True).fill("2600")  # item 6 costs 2,404, item 7 2,638
    page.keyboard.press("Tab")
    wait_for_items(page, [5, 6])
    assert parameters(page) == {"item": ["item-00"], "filter": [{**DRESSES, "price": {"lte": 2600}}]}
    assert page.get_by_role("button", name="Filters, 2 active").is_visible()
    assert (
        page.locator("#status").inner_text()
        == "2 similar looks for Red shirt (Category: fashion › dress · Price: up to ¥2,600)"
    )

    page.reload()
    wait_for_items(page, [5, 6])
    page.go_back()
    wait_for_items(page, [5, 6, 7, 8, 9, 20, 21, 22, 23, 24])
    open_filters(page)
    assert page.get_by_label("To", exact=True).input_value() == ""
    assert page.get_by_label("fashion › dress").is_checked()

    page.get_by_role("button", name="Clear all").click()
    wait_for_items(page, range(1, 13))
    assert parameters(page) == {"item": ["item-00"]}
    assert not page.get_by_label("fashion › dress").is_checked()


def test_filters_are_of_texts_with_frequent_values_numbers_and_booleans(page: Page) -> None:
    page.goto("/?item=item-00")
    open_filters(page)
    assert page.locator("#filters legend").all_inner_texts() == [
        "Price",
        "Is new",
        "Category",
        "Seller",
    ]  # not Sku
    assert [
        page.get_by_label(label, exact=True).get_attribute("placeholder") for label in ("From", "To")
    ] == [
        "1000",
        "7786",
    ]
    page.get_by_label("Yes").check()
    wait_for_items(page, [4, 8, 12, 16, 20, 24, 28])
    assert parameters(page)["filter"] == [{"is_new": {"in": [True]}}]


def test_filters_stay_for_the_next_product_text_and_photo(page: Page, shelf: StubShelf) -> None:
    page.goto(f"/?{urlencode({'item': 'item-00', 'filter': json.dumps(DRESSES)})}")
    page.locator("#shelf a.card").first.click()
    wait_for_items(page, [6, 7, 8, 9, 20, 21, 22, 23, 24])
    page.get_by_label("Search by text").fill("Red")
    page.keyboard.press("Enter")
    wait_for_items(page, [5, 20])
    assert parameters(page) == {"q": ["Red"], "filter": [DRESSES]}
    photo = {"name": "coat.png", "mimeType": "image/png", "buffer": photo_of(5)}
    page.get_by_label("Photo to search with").set_input_files(photo)
    wait_for_items(page, [5, 6, 7, 8, 9, 20, 21, 22, 23, 24])
    assert shelf.uploads == [photo_of(5)]


def test_choices_can_be_made_with_the_keyboard(page: Page) -> None:
    page.goto("/?item=item-00")
    page.get_by_role("button", name="Filters").focus()
    page.keyboard.press("Enter")
    page.get_by_label("fashion › bag").focus()
    page.keyboard.press("Space")
    wait_for_items(page, [*range(10, 15), *range(25, 30)])
    assert page.get_by_label("fashion › bag").evaluate("input => input === document.activeElement")
    page.keyboard.press("Escape")
    assert page.locator("#filters").is_hidden()
    assert page.evaluate("document.activeElement.id") == "filters-button"


def test_empty_result_under_a_filter_offers_to_clear_it(page: Page) -> None:
    page.goto(f"/?{urlencode({'item': 'item-00', 'filter': json.dumps({'price': {'gte': 9000}})})}")
    page.get_by_text("No product matches these filters").wait_for()
    page.get_by_role("button", name="Clear the filters").click()
    wait_for_items(page, range(1, 13))
    assert page.locator("#empty").is_hidden()


def test_at_most_two_of_a_seller(page: Page) -> None:
    page.goto("/?item=item-00")
    page.get_by_label("At most 2 of a seller").check()
    wait_for_items(page, range(1, 11))  # two of each of the five sellers
    assert parameters(page)["max_per"] == [{"seller": 2}]
    page.get_by_label("At most 2 of a seller").uncheck()
    wait_for_items(page, range(1, 13))
    assert parameters(page) == {"item": ["item-00"]}


def test_two_shelves_side_by_side_mark_the_items_of_both(page: Page) -> None:
    page.goto(f"/?{urlencode({'item': 'item-00', 'filter': json.dumps(DRESSES)})}")
    page.get_by_label("Compare with all products").check()
    page.wait_for_selector("#all-shelf a.card")
    wait_for_items(page, [5, 6, 7, 8, 9, 20, 21, 22, 23, 24])
    assert [shared(page, f"#{shelf}") for shelf in ("shelf", "all-shelf")] == [
        [True] * 5 + [False] * 5,  # 5 to 9 of the dresses
        [False] * 4 + [True] * 5 + [False] * 3,  # of 1 to 12
    ]
    left, right = (page.locator(f"#{shelf}").bounding_box() for shelf in ("shelf", "all-shelf"))
    assert left is not None
    assert right is not None
    assert left["y"] == right["y"]
    assert left["width"] == pytest.approx(right["width"], abs=1)
    assert page.locator("#status").inner_text().endswith(", 5 of them also without limits")
    assert parameters(page)["compare"] == [1]

    page.get_by_role("button", name="Clear all").click()
    wait_for_items(page, range(1, 13))
    assert page.locator("#all").is_hidden()


def test_chosen_value_that_is_not_listed_gets_a_control(page: Page) -> None:
    chosen = {"seller": {"in": ["c99", "c01"]}}
    page.goto(f"/?{urlencode({'item': 'item-00', 'filter': json.dumps(chosen)})}")
    wait_for_items(page, [1, 6, 11, 16, 21, 26])
    open_filters(page)
    assert page.get_by_label("c99").is_checked()
    page.get_by_label("c99").uncheck()
    page.locator("#filter-summary", has_text="Seller: c01").wait_for()
    assert parameters(page)["filter"] == [{"seller": {"in": ["c01"]}}]


@pytest.mark.parametrize("text", ["{", "[1]", "null", "7"])
def test_invalid_filter_of_an_address_is_reported(page: Page, text: str) -> None:
    page.goto(f"/?{urlencode({'item': 'item-00', 'filter': text})}")
    page.get_by_text("The address has an invalid filter, which was left out.").wait_for()
    wait_for_items(page, range(1, 13))


def open_filters(page: Page) -> None:
    page.locator("#filters-button[aria-expanded=false]").click()


def wait_for_items(page: Page, numbers: Any) -> None:
    """Wait until the shelf has exactly these items of the stub."""
    page.wait_for_function(
        """photos => JSON.stringify([...document.querySelectorAll("#shelf a.card img")].map(
            (img) => Number(img.dataset.url.match(/(\\d+)\\.png$/)[1]))) === photos""",
        arg=json.dumps([*numbers], separators=(",", ":")),
    )


def shared(page: Page, shelf: str) -> list[bool]:
    tags = page.locator(f"{shelf} a.card .shared")
    return [bool(is_shown) for is_shown in tags.evaluate_all("tags => tags.map(tag => !tag.hidden)")]


def parameters(page: Page) -> dict[str, list[Any]]:
    """The parameters of the address, with JSON parsed."""

    def parsed(text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            return text

    return {name: [*map(parsed, texts)] for name, texts in parse_qs(urlsplit(page.url).query).items()}
