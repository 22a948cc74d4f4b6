"""The page in a real browser, with the real service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.e2e.conftest import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    console_errors: list[str] = []

    def record(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            console_errors.append(message.text)

    context = browser.new_context(
        base_url=served.url, reduced_motion="reduce", viewport={"width": 1280, "height": 900}
    )
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.on("console", record)
    page.on("pageerror", lambda error: console_errors.append(str(error)))
    yield page
    context.close()
    assert console_errors == []


def test_search_by_product_then_by_its_photo_then_by_text(page: Page, served: Served, tmp_path: Path) -> None:
    page.goto("/")
    page.locator("#starts a.card").first.click()
    page.wait_for_selector("#shelf a.card")
    item_id = page.url.rpartition("?item=")[2]
    assert item_id not in result_ids(page)
    assert len(result_ids(page)) == 12
    scores = [float(text) for text in page.locator("#shelf .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    title = page.locator("#query-title").inner_text()
    assert page.locator("#items").inner_text() == "150"
    take_screenshot(page, tmp_path / "wide.png", width_px=1280)
    take_screenshot(page, tmp_path / "phone.png", width_px=375)

    photo = served.root / "catalog" / "images" / f"{item_id}.jpg"
    page.get_by_label("Photo to search with").set_input_files(photo)
    page.locator("#query-title", has_text=photo.name).wait_for()
    page.wait_for_selector("#shelf a.card")
    assert result_ids(page)[0] == item_id
    assert page.locator("#shelf .score").first.inner_text() == "1.00"
    assert page.locator("#shelf .title").first.inner_text().strip() == title

    page.get_by_role("button", name="Filters").click()
    page.get_by_label("From", exact=True).first.fill("2000")
    page.keyboard.press("Enter")
    page.locator("#filter-summary", has_text="from ¥2,000").wait_for()
    page.wait_for_selector("#shelf a.card")
    assert all(price >= 2000 for price in result_prices(page))

    page.get_by_label("Search by text").fill("red dress")
    page.keyboard.press("Enter")
    page.locator("#query-title", has_text="red dress").wait_for()
    page.wait_for_selector("#shelf a.card")
    assert len(result_ids(page)) == 12


def result_ids(page: Page) -> list[str]:
    """The ids of the results, best first."""
    ids: list[str] = page.locator("#shelf a.card").evaluate_all("cards => cards.map(c => c.dataset.itemId)")
    return ids


def result_prices(page: Page) -> list[int]:
    """The prices of the results, in yen."""
    texts = page.locator("#shelf .price").all_inner_texts()
    return [int(text.removeprefix("¥").replace(",", "")) for text in texts]


def take_screenshot(page: Page, path: Path, *, width_px: int) -> None:
    """A screenshot of the full page, which must not be wider than the window."""
    page.set_viewport_size({"width": width_px, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == width_px
    page.screenshot(path=path, full_page=True)
    with Image.open(path) as screenshot:
        assert screenshot.width == width_px
