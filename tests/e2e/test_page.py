"""The page in a real browser, before a stub of the service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.e2e.browser import chromium
from tests.e2e.stub_shelf import Shelf, open_shelf, photo_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

# Item n: colours go round by 1 (Red, Blue, Green, Black, Cream), nouns by 5 (shirt, dress, bag);
# price 1000 + 234 n. Neighbours of item n: n + 1, n + 2, ... at 0.98, 0.95, ...
FIRST_SCORES = ["0.98", "0.95", "0.92", "0.89", "0.86", "0.83"]
FAILED = "Failed to load resource: the server responded with a status of {}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def running_shelf() -> Iterator[Shelf]:
    with open_shelf() as shelf:
        yield shelf


@pytest.fixture
def shelf(running_shelf: Shelf) -> Shelf:
    running_shelf.forget()
    return running_shelf


@pytest.fixture
def console() -> list[str]:
    """What the browser complained of: empty at the end of a test, or the test has checked and cleared it."""
    return []


@pytest.fixture
def page(browser: Browser, shelf: Shelf, console: list[str]) -> Iterator[Page]:
    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            console.append(message.text)

    # Still pictures: an animation costs a core while it runs, and these tests run on few.
    context = browser.new_context(base_url=shelf.url, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.add_init_script("let draws = 0; Math.random = () => draws++ / 1e6")  # seeds 0, 1, ...
    page.on("console", note)
    page.on("pageerror", lambda error: console.append(str(error)))
    yield page
    context.close()
    assert console == []


def test_a_picked_product_shows_its_neighbours_with_scores(page: Page) -> None:
    page.goto("/")
    page.locator("#starts a.card").first.click()
    page.wait_for_selector("#shelf a.card")
    assert page.url.endswith("/?item=item-00")
    assert texts(page, "#query-title, #query-price, #query-seller") == ["Red shirt", "¥1,000", "Sold by c00"]
    assert texts(page, "#shelf .title")[:2] == ["Blue shirt", "Green shirt"]
    assert texts(page, "#shelf .price")[:2] == ["¥1,234", "¥1,468"]
    assert texts(page, "#shelf .score")[:6] == FIRST_SCORES
    assert page.locator("#shelf a.card").count() == 12
    assert page.locator("#status").inner_text() == "12 similar looks for Red shirt"


def test_a_card_names_itself_and_its_photo(page: Page) -> None:
    page.goto("/?item=item-00")
    card = page.get_by_role("link", name="Blue shirt, ¥1,234, similarity 0.98", exact=True)
    card.wait_for()
    assert card.locator("img").get_attribute("alt") == "Blue shirt"
    assert card.locator(".meter > span").get_attribute("style") == "width: 98%;"


def test_the_footer_tells_space_index_items_and_time(page: Page) -> None:
    page.goto("/?item=item-00")
    page.wait_for_selector("#shelf a.card")
    page.wait_for_selector("#starts a.card")
    assert texts(page, "#space, #index, #items, #arm") == ["3f9a3f9a3f9a", "2026-01-31.7", "2,980", "control"]
    assert page.locator("#took").inner_text().removesuffix(" ms").replace(",", "").isdigit()


def test_a_neighbour_becomes_the_query_and_back_returns(page: Page) -> None:
    page.goto("/?item=item-00")
    page.locator("#shelf a.card").nth(1).click()  # item-02
    page.locator("#query-title", has_text="Green shirt").wait_for()
    page.locator("#shelf .title", has_text="<script>").wait_for()  # item-03, its first neighbour
    assert page.url.endswith("/?item=item-02")

    page.go_back()
    page.locator("#query-title", has_text="Red shirt").wait_for()
    assert texts(page, "#shelf .title")[0] == "Blue shirt"

    page.go_forward()
    page.locator("#query-title", has_text="Green shirt").wait_for()
    page.reload()
    page.locator("#query-title", has_text="Green shirt").wait_for()


def test_a_card_opens_from_the_keyboard(page: Page) -> None:
    page.goto("/?item=item-00")
    page.locator("#shelf a.card").first.focus()
    page.keyboard.press("Enter")
    page.locator("#query-title", has_text="Blue shirt").wait_for()
    assert page.evaluate("document.activeElement.id") == "query-title"


def test_words_find_products(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Search in words").fill("Red")
    page.keyboard.press("Enter")
    page.wait_for_selector("#shelf a.card")
    assert page.url.endswith("/?q=Red")
    assert page.locator("#query-title").inner_text() == "Red"
    # Red items: 0 shirt, 5 dress, 10 bag, 15 shirt, 20 dress, 25 bag
    assert texts(page, "#shelf .title") == ["Red shirt", "Red dress", "Red bag"] * 2
    assert texts(page, "#shelf .score") == FIRST_SCORES


def test_words_that_find_nothing_say_so(page: Page) -> None:
    page.goto("/?q=umbrella")
    page.get_by_text("No similar looks yet").wait_for()
    assert page.locator("#status").inner_text() == "No similar looks for umbrella"
    assert page.locator("#shelf li").count() == 0


def test_a_late_answer_does_not_overwrite_a_newer_one(page: Page, shelf: Shelf) -> None:
    release = shelf.held_words["Black"] = threading.Event()
    page.goto("/")
    search_words(page, "Black")
    page.wait_for_selector("#shelf .skeleton", state="attached")
    search_words(page, "Green bag")
    page.locator("#shelf .title", has_text="Green bag").first.wait_for()

    release.set()
    page.wait_for_timeout(200)
    assert texts(page, "#shelf .title") == ["Green bag", "Green bag"]  # items 12 and 27


def test_an_uploaded_photo_is_sent_as_it_is_and_shown(page: Page, shelf: Shelf) -> None:
    photo = photo_of(5)
    page.goto("/")
    page.get_by_label("Photo to search with").set_input_files(
        {"name": "coat.png", "mimeType": "image/png", "buffer": photo}
    )
    page.wait_for_selector("#shelf a.card")
    assert shelf.uploads == [photo]
    assert page.locator("#query-title").inner_text() == "coat.png"
    preview = page.get_by_role("img", name="The photo you are searching with")
    assert preview.evaluate("img => [img.naturalWidth, img.naturalHeight]") == [192, 256]
    assert texts(page, "#shelf .title")[0] == "Red shirt"

    page.locator("#shelf a.card").first.click()
    page.locator("#query-kind", has_text="Looks like").wait_for()
    page.go_back()
    page.locator("#query-title", has_text="coat.png").wait_for()


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_photo_may_be_dropped_or_pasted(page: Page, shelf: Shelf, way: str) -> None:
    page.goto("/")
    hand_over(page, way, "coat.png", "image/png", list(photo_of(5)))
    page.wait_for_selector("#shelf a.card")
    assert shelf.uploads == [photo_of(5)]
    assert page.locator("#drop").is_hidden()


def test_a_file_that_is_no_photo_is_refused_without_asking_the_service(page: Page, shelf: Shelf) -> None:
    page.goto("/")
    hand_over(page, "drop", "terms.pdf", "application/pdf", [37, 80, 68, 70])
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text().strip() == "“terms.pdf” is not a photo. Choose a JPEG, PNG or WebP file."
    assert shelf.uploads == []

    page.get_by_role("button", name="Dismiss").click()
    assert alert.is_hidden()


def test_an_error_shows_the_services_words_and_the_page_recovers(
    page: Page, shelf: Shelf, console: list[str]
) -> None:
    shelf.fail_next(503, "overloaded", "too many searches at once", retry_after_s=1)
    page.goto("/?item=item-00")
    page.get_by_text("too many searches at once").wait_for()
    again = page.get_by_role("button", name="Try again")
    assert again.inner_text() == "Try again in 1 s"
    assert page.locator("#shelf li").count() == 0

    again.click()  # waits until the second is over
    page.wait_for_selector("#shelf a.card")
    assert page.get_by_role("alert").is_hidden()
    assert texts(page, "#shelf .score")[:6] == FIRST_SCORES
    assert console == [FAILED.format("503 (Service Unavailable)")]
    console.clear()


def test_an_unknown_item_leaves_products_to_start_from(page: Page, console: list[str]) -> None:
    page.goto("/?item=gone")
    page.get_by_text("no item gone").wait_for()
    assert page.locator("#result").is_hidden()
    page.locator("#starts a.card").first.click()
    page.wait_for_selector("#shelf a.card")
    assert page.get_by_role("alert").is_hidden()
    assert console == [FAILED.format("404 (Not Found)")]
    console.clear()


def test_markup_in_a_title_is_shown_as_text(page: Page) -> None:
    title = "<script>document.title = 'taken'</script> & <b>bold</b> shirt"
    page.goto("/?item=item-03")
    page.wait_for_selector("#shelf a.card")
    assert page.locator("#query-title").inner_text() == title
    assert page.title() == f"{title} · Similar looks"
    assert page.locator("main script, main b").count() == 0


def test_a_japanese_title_is_marked_as_japanese(page: Page) -> None:
    page.goto("/?item=item-03")
    page.wait_for_selector("#shelf a.card")
    assert page.locator("#shelf .title").evaluate_all("titles => titles.map(t => t.lang)")[:2] == ["ja", ""]


@pytest.mark.parametrize("address", ["/", "/?item=item-03", "/?q=shirt"])
def test_a_phone_shows_two_cards_a_row_and_never_scrolls_sideways(page: Page, address: str) -> None:
    grid = "#starts" if address == "/" else "#shelf"
    page.set_viewport_size({"width": 375, "height": 812})
    page.goto(address)
    page.wait_for_selector(f"{grid} a.card")
    cards = page.locator(f"{grid} a.card")
    tops = cards.evaluate_all("cards => cards.map(card => card.getBoundingClientRect().top)")
    assert tops[0] == tops[1] < tops[2] == tops[3]
    assert page.evaluate("document.documentElement.scrollWidth") == 375

    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_an_arriving_answer_moves_nothing(page: Page, shelf: Shelf) -> None:
    release = shelf.held_words["shirt"] = threading.Event()
    page.goto("/?q=shirt")
    page.wait_for_selector("#starts a.card")
    before = page.locator("#starts").bounding_box()
    release.set()
    page.wait_for_selector("#shelf a.card")
    assert page.locator("#starts").bounding_box() == before


def test_show_others_asks_for_another_window(page: Page) -> None:
    page.goto("/")
    page.wait_for_selector("#starts a.card[data-item-id='item-23']")  # seed 0: items 0 to 23
    page.get_by_role("button", name="Show others").click()
    page.wait_for_selector("#starts a.card[data-item-id='item-24']")  # seed 1: items 1 to 24
    assert page.locator("#starts a.card").count() == 24


def texts(page: Page, selector: str) -> list[str]:
    return [text.strip() for text in page.locator(selector).all_inner_texts()]


def search_words(page: Page, words: str) -> None:
    page.get_by_label("Search in words").fill(words)
    page.keyboard.press("Enter")


def hand_over(page: Page, way: str, name: str, kind: str, content: list[int]) -> None:
    """Drops or pastes a file; the browser's own events, with a made-up clipboard."""
    page.evaluate(
        """([way, name, kind, content]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(content)], name, { type: kind }));
            const about = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
            const events = way === "drop" ? ["dragover", "drop"] : ["paste"];
            const Kind = way === "drop" ? DragEvent : ClipboardEvent;
            for (const event of events) document.body.dispatchEvent(new Kind(event, about));
        }""",
        [way, name, kind, content],
    )
