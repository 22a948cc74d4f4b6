"""The page by keyboard, on a phone and for screen readers, in a real browser with a stub of the service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from tests.e2e.stub_shelf import StubShelf

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FILTERED = "/?" + urlencode({"item": "item-00", "filter": '{"price":{"lte":3000}}'})
COMPARED = f"{FILTERED}&compare=1"
EMPTY = "/?" + urlencode({"q": "Red", "filter": '{"price":{"gte":9000}}'})
# Buttons, links and inputs, with the label around them, that can be seen; and their size.
SMALL_TARGETS = """() => [...document.querySelectorAll("a, button, input")]
    .map((element) => element.closest("label") ?? element)
    .filter((element) => element.checkVisibility() && !element.matches(".skip"))
    .map((element) => [element, element.getBoundingClientRect()])
    .filter(([, { width, height }]) => width < 44 || height < 44)
    .map(([element, { width, height }]) => `${element.outerHTML.slice(0, 80)} ${width} x ${height}`)"""


@pytest.fixture
def phone(browser: Browser, shelf: StubShelf) -> Iterator[Page]:
    context = browser.new_context(
        base_url=shelf.url,
        reduced_motion="reduce",
        viewport={"width": 360, "height": 740},
        has_touch=True,
        is_mobile=True,
    )
    page = context.new_page()
    page.set_default_timeout(20_000)
    yield page
    context.close()


@pytest.mark.parametrize("path", ["/", COMPARED, EMPTY])
def test_axe_finds_nothing(page: Page, path: str) -> None:
    page.goto(path)
    page.wait_for_selector("#starts a.card")
    page.locator("#results[aria-busy=false]").wait_for()
    page.locator("#filters-button").click()
    assert violations(page) == []


def test_axe_finds_nothing_in_errors_and_the_token_dialog(
    page: Page, shelf: StubShelf, console: list[str]
) -> None:
    shelf.fail_next(503, "overloaded", "too many searches at once", retry_after_s=9)
    page.goto("/?item=item-00")
    page.get_by_text("too many searches at once").wait_for()
    assert violations(page) == []
    shelf.token = "raysys_right"
    page.goto("/?item=item-00")
    page.get_by_role("button", name="Continue").wait_for()
    assert violations(page) == []
    console.clear()


@pytest.mark.parametrize("path", ["/", COMPARED, EMPTY])
def test_phone_has_large_targets_and_does_not_scroll_sideways(phone: Page, path: str) -> None:
    phone.goto(path)
    phone.wait_for_selector("#starts a.card")
    phone.locator("#results[aria-busy=false]").wait_for()
    phone.locator("#filters-button").click()
    assert phone.evaluate("document.documentElement.scrollWidth") == 360
    assert phone.evaluate(SMALL_TARGETS) == []


def test_camera_is_offered_on_a_phone_only(page: Page, phone: Page) -> None:
    for each, is_offered in ((page, False), (phone, True)):
        each.goto("/")
        each.wait_for_selector("#starts a.card")
        take = each.get_by_role("button", name="Take a photo", exact=True)
        assert take.is_visible() is is_offered
    with phone.expect_file_chooser() as chooser:
        phone.get_by_role("button", name="Take a photo", exact=True).click()
    assert chooser.value.element.get_attribute("capture") == "environment"


def test_slash_focuses_the_search(page: Page) -> None:
    page.goto("/?q=Red")
    page.wait_for_selector("#shelf a.card")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("a/b")  # replaces the text; typed as any character
    assert page.get_by_label("Search by text").input_value() == "a/b"


def test_enter_of_an_input_method_does_not_search(page: Page) -> None:
    page.goto("/")
    page.wait_for_selector("#shelf a.card")
    page.get_by_label("Search by text").focus()
    session = page.context.new_cdp_session(page)
    session.send("Input.imeSetComposition", {"text": "わんぴーす", "selectionStart": 5, "selectionEnd": 5})
    page.keyboard.press("Enter")
    page.evaluate(
        """() => document.getElementById("text").dispatchEvent(new KeyboardEvent("keydown", {
            key: "Enter", keyCode: 229, bubbles: true, cancelable: true }))
            && document.getElementById("search").requestSubmit()"""  # as Safari after a composition
    )
    assert page.url.endswith("/")
    page.get_by_label("Search by text").fill("ワンピース")
    page.keyboard.press("Enter")
    page.locator("#query-title", has_text="ワンピース").wait_for()


def test_focus_is_visible_on_every_control(page: Page) -> None:
    page.goto(FILTERED)
    page.wait_for_selector("#starts a.card")
    page.locator("#results[aria-busy=false]").wait_for()
    page.locator("#filters-button").click()
    page.locator("#home").focus()
    for _ in range(25):
        page.keyboard.press("Tab")
        style: Any = page.evaluate(
            """() => { const { outlineStyle, boxShadow } = getComputedStyle(document.activeElement);
                return [document.activeElement.outerHTML.slice(0, 80), outlineStyle, boxShadow]; }"""
        )
        assert style[1:] != ["none", "none"], style


def test_link_of_an_item_is_copied_with_its_filters(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(FILTERED)
    page.wait_for_selector("#shelf a.card")
    page.get_by_role("button", name="Copy link").click()
    page.get_by_role("button", name="Link copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.url


def violations(page: Page) -> list[str]:
    """What axe-core finds in light and dark colours, one line each with the elements."""
    from axe_playwright_python.sync_playwright import Axe

    found = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for each in Axe().run(page).response["violations"]:
            found.append(f"{scheme}: {each['id']}: {[node['html'][:120] for node in each['nodes']]}")
    return found
