"""The page in a real browser, with a stub of the service."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from tests.e2e.stub_shelf import SPECIAL_IDS, StubShelf, photo_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Item n: the colour changes with every item (Red, Blue, Green, Black, Cream), the noun with every fifth
# (shirt, dress, bag); price 1000 + 234 n. Neighbours of item n: n + 1, n + 2, ... at 0.98, 0.95, ...
FIRST_SCORES = ["0.98", "0.95", "0.92", "0.89", "0.86", "0.83"]
FAILED_RESOURCE = "Failed to load resource: the server responded with a status of {}"


def test_selected_product_shows_its_neighbours_with_scores(page: Page) -> None:
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


def test_card_has_an_accessible_name_and_alt_text(page: Page) -> None:
    page.goto("/?item=item-00")
    card = page.get_by_role("link", name="Blue shirt, ¥1,234, similarity 0.98", exact=True)
    card.wait_for()
    assert card.locator("img").get_attribute("alt") == "Blue shirt"
    assert card.locator(".meter > span").get_attribute("style") == "width: 98%;"


def test_footer_shows_space_index_items_and_time(page: Page) -> None:
    page.goto("/?item=item-00")
    page.wait_for_selector("#shelf a.card")
    page.wait_for_selector("#starts a.card")
    assert texts(page, "#space, #index, #items, #arm") == ["3f9a3f9a3f9a", "2026-01-31.7", "2,980", "control"]
    assert page.locator("#search-time").inner_text().removesuffix(" ms").replace(",", "").isdigit()


def test_neighbour_becomes_the_query_and_back_returns(page: Page) -> None:
    page.goto("/?item=item-00")
    page.locator("#shelf a.card").nth(1).click()  # item-02
    page.locator("#query-title", has_text="Green shirt").wait_for()
    page.locator("#shelf .title", has_text="<script>").wait_for()  # item-03, the first neighbour of item-02
    assert page.url.endswith("/?item=item-02")

    page.go_back()
    page.locator("#query-title", has_text="Red shirt").wait_for()
    page.wait_for_selector("#shelf a.card")
    assert texts(page, "#shelf .title")[0] == "Blue shirt"

    page.go_forward()
    page.locator("#query-title", has_text="Green shirt").wait_for()
    page.reload()
    page.locator("#query-title", has_text="Green shirt").wait_for()


def test_card_opens_from_the_keyboard(page: Page) -> None:
    page.goto("/?item=item-00")
    page.locator("#shelf a.card").first.focus()
    page.keyboard.press("Enter")
    page.locator("#query-title", has_text="Blue shirt").wait_for()
    assert page.evaluate("document.activeElement.id") == "query-title"


def test_text_search_shows_products(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Search by text").fill("Red")
    page.keyboard.press("Enter")
    page.wait_for_selector("#shelf a.card")
    assert page.url.endswith("/?q=Red")
    assert page.locator("#query-title").inner_text() == "Red"
    # Red items: 0 shirt, 5 dress, 10 bag, 15 shirt, 20 dress, 25 bag
    assert texts(page, "#shelf .title") == ["Red shirt", "Red dress", "Red bag"] * 2
    assert texts(page, "#shelf .score") == FIRST_SCORES


def test_text_search_without_results_shows_a_message(page: Page) -> None:
    page.goto("/?q=umbrella")
    page.get_by_text("No similar looks found").wait_for()
    assert page.locator("#status").inner_text() == "No similar looks for umbrella"
    assert page.locator("#shelf li").count() == 0


def test_late_response_does_not_replace_a_newer_one(page: Page, shelf: StubShelf) -> None:
    release = shelf.delayed_texts["Black"] = threading.Event()
    page.goto("/")
    search_text(page, "Black")
    page.wait_for_selector("#shelf .skeleton", state="attached")
    search_text(page, "Green bag")
    page.locator("#shelf .title", has_text="Green bag").first.wait_for()

    release.set()
    page.wait_for_timeout(200)
    assert texts(page, "#shelf .title") == ["Green bag", "Green bag"]  # items 12 and 27


def test_uploaded_photo_is_sent_unchanged_and_shown(page: Page, shelf: StubShelf) -> None:
    photo = photo_of(5)
    page.goto("/")
    page.get_by_label("Photo to search with").set_input_files(
        {"name": "coat.png", "mimeType": "image/png", "buffer": photo}
    )
    page.wait_for_selector("#shelf a.card")
    assert shelf.uploads == [photo]
    assert page.locator("#query-title").inner_text() == "coat.png"
    preview = page.get_by_role("img", name="Your photo")
    assert preview.evaluate("img => [img.naturalWidth, img.naturalHeight]") == [192, 256]
    assert texts(page, "#shelf .title")[0] == "Red shirt"

    page.locator("#shelf a.card").first.click()
    page.locator("#query-kind", has_text="Similar to").wait_for()
    page.go_back()
    page.locator("#query-title", has_text="coat.png").wait_for()


def test_without_an_encoder_only_products_are_queries(page: Page, shelf: StubShelf) -> None:
    shelf.has_encoder = False
    page.goto("/")
    page.locator("#items-only").wait_for()
    assert texts(page, "#items-only") == [
        "Choose a product. The results are the products that look most similar."
    ]
    assert [page.locator(part).is_visible() for part in ("#search", "#hero .actions")] == [False, False]
    for gesture in ("drop", "paste"):
        give_file(page, gesture, "coat.png", "image/png", list(photo_of(5)))
    page.locator("#starts a.card").first.click()
    page.locator("#shelf .title", has_text="Blue shirt").wait_for()
    assert shelf.uploads == []


@pytest.mark.parametrize("gesture", ["drop", "paste"])
def test_photo_can_be_dropped_or_pasted(page: Page, shelf: StubShelf, gesture: str) -> None:
    page.goto("/")
    give_file(page, gesture, "coat.png", "image/png", list(photo_of(5)))
    page.wait_for_selector("#shelf a.card")
    assert shelf.uploads == [photo_of(5)]
    assert page.locator("#drop").is_hidden()


def test_file_of_another_type_is_refused_without_a_request(page: Page, shelf: StubShelf) -> None:
    page.goto("/")
    give_file(page, "drop", "terms.pdf", "application/pdf", [37, 80, 68, 70])
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text().strip() == "“terms.pdf” is not a photo. Choose a JPEG, PNG or WebP file."
    assert shelf.uploads == []

    page.get_by_role("button", name="Dismiss").click()
    assert alert.is_hidden()


def test_error_shows_the_message_of_the_service_and_can_be_retried(
    page: Page, shelf: StubShelf, console: list[str]
) -> None:
    shelf.fail_next(503, "overloaded", "too many searches at once", retry_after_s=1)
    page.goto("/?item=item-00")
    page.get_by_text("too many searches at once").wait_for()
    retry = page.get_by_role("button", name="Try again")
    assert retry.inner_text() == "Try again in 1 s"
    assert page.locator("#shelf li").count() == 0

    retry.click()  # waits until the button is enabled
    page.wait_for_selector("#shelf a.card")
    assert page.get_by_role("alert").is_hidden()
    assert texts(page, "#shelf .score")[:6] == FIRST_SCORES
    assert console == [FAILED_RESOURCE.format("503 (Service Unavailable)")]
    console.clear()


def test_unknown_item_shows_products_to_start_from(page: Page, console: list[str]) -> None:
    page.goto("/?item=gone")
    page.get_by_text("no item gone").wait_for()
    assert page.locator("#result").is_hidden()
    page.locator("#starts a.card").first.click()
    page.wait_for_selector("#shelf a.card")
    assert page.get_by_role("alert").is_hidden()
    assert console == [FAILED_RESOURCE.format("404 (Not Found)")]
    console.clear()


def test_markup_in_a_title_is_shown_as_text(page: Page) -> None:
    title = "<script>document.title = 'taken'</script> & <b>bold</b> shirt"
    page.goto("/?item=item-03")
    page.wait_for_selector("#shelf a.card")
    assert page.locator("#query-title").inner_text() == title
    assert page.title() == f"{title} · Similar looks"
    assert page.locator("main script, main b").count() == 0


@pytest.mark.parametrize("number", SPECIAL_IDS)
def test_product_with_any_id_opens_from_its_card_and_its_url(page: Page, number: int) -> None:
    item_id = SPECIAL_IDS[number]
    page.goto("/?item=item-05")  # followed by items 6, 7, 8 and 9
    page.locator("#shelf a.card").nth(number - 6).click()
    page.locator("#query-attributes .key dd").get_by_text(item_id, exact=True).wait_for()
    assert page.url.rpartition("/")[2] == "?" + urlencode({"item": item_id}).replace("%2A", "*")
    page.wait_for_selector("#shelf a.card")  # until then the shelf has placeholders
    neighbour = texts(page, "#shelf .title")[3 if number < 9 else 1]  # a title of visible text

    page.reload()
    page.locator("#query-attributes .key dd").get_by_text(item_id, exact=True).wait_for()
    page.wait_for_selector("#shelf a.card")
    assert texts(page, "#shelf .title")[3 if number < 9 else 1] == neighbour
    assert page.locator("main b").count() == 0


@pytest.mark.parametrize("width_px", [1280, 320])
@pytest.mark.parametrize("path", ["/", "/?item=item-05", f"/?{urlencode({'item': SPECIAL_IDS[8]})}"])
def test_long_title_and_id_keep_the_layout(page: Page, path: str, width_px: int) -> None:
    page.set_viewport_size({"width": width_px, "height": 900})
    page.goto(path)
    page.wait_for_selector("#starts a.card")
    grid = "#starts" if path == "/" else "#shelf"
    page.wait_for_selector(f"{grid} a.card")
    heights = page.locator(f"{grid} a.card").evaluate_all("cards => cards.map(card => card.offsetHeight)")
    assert max(heights) == min(heights)
    assert page.evaluate("document.documentElement.scrollWidth") == width_px
    assert page.evaluate("document.querySelector('#query').offsetHeight") < 1000


def test_photo_from_another_host_is_shown(page: Page) -> None:
    page.goto("/?item=item-10")
    page.wait_for_selector("#shelf a.card")
    subject = page.locator("#query-photo .subject")
    assert subject.get_attribute("src").startswith("http://localhost:")  # the page is at 127.0.0.1
    page.wait_for_function("document.querySelector('#query-photo .subject').naturalWidth === 192")
    assert page.locator("#query-photo.broken").count() == 0


def test_japanese_title_has_its_lang_attribute(page: Page) -> None:
    page.goto("/?item=item-03")
    page.wait_for_selector("#shelf a.card")
    assert page.locator("#shelf .title").evaluate_all("titles => titles.map(t => t.lang)")[:2] == ["ja", ""]


@pytest.mark.parametrize("path", ["/", "/?item=item-03", "/?q=shirt"])
def test_phone_shows_two_cards_a_row_without_horizontal_scrolling(page: Page, path: str) -> None:
    grid = "#starts" if path == "/" else "#shelf"
    page.set_viewport_size({"width": 375, "height": 812})
    page.goto(path)
    page.wait_for_selector(f"{grid} a.card")
    cards = page.locator(f"{grid} a.card")
    tops = cards.evaluate_all("cards => cards.map(card => card.getBoundingClientRect().top)")
    assert tops[0] == tops[1] < tops[2] == tops[3]
    assert page.evaluate("document.documentElement.scrollWidth") == 375

    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_response_does_not_move_the_products_below(page: Page, shelf: StubShelf) -> None:
    release = shelf.delayed_texts["shirt"] = threading.Event()
    page.goto("/?q=shirt")
    page.wait_for_selector("#starts a.card")
    before = page.locator("#starts").bounding_box()
    release.set()
    page.wait_for_selector("#shelf a.card")
    assert page.locator("#starts").bounding_box() == before


def test_start_page_opens_on_the_item_of_the_service(page: Page) -> None:
    page.goto("/")
    page.wait_for_selector("#shelf a.card")
    assert page.locator("#hero").is_visible()
    assert texts(page, "#query-kind, #query-title") == ["For example", "Red dress"]  # item 20
    assert texts(page, "#shelf .title")[:2] == ["Blue dress", "Green dress"]
    assert texts(page, "#shelf .score")[:6] == FIRST_SCORES
    assert page.title() == "Similar looks"
    assert page.url.endswith("/")


def test_example_text_is_a_search(page: Page) -> None:
    page.goto("/")
    page.wait_for_selector("#shelf a.card")
    assert texts(page, "#examples a") == ["Red dress", "長袖ワンピース"]
    assert page.locator("#examples a").evaluate_all("links => links.map(l => l.lang)") == ["", "ja"]
    page.locator("#examples a").first.click()
    page.locator("#query-kind", has_text="Your description").wait_for()
    page.wait_for_selector("#shelf a.card")
    assert page.url.endswith("/?q=Red+dress")
    assert texts(page, "#shelf .title") == ["Red dress", "Red dress"]  # items 5 and 20
    assert page.locator("#hero").is_hidden()

    page.go_back()
    page.locator("#query-kind", has_text="For example").wait_for()
    assert texts(page, "#shelf .title")[:2] == ["Blue dress", "Green dress"]
    assert page.locator("#hero").is_visible()


def test_start_page_without_examples_has_products_to_start_from(page: Page, shelf: StubShelf) -> None:
    shelf.examples = {"texts": [], "item": None}
    page.goto("/")
    page.wait_for_selector("#starts a.card")
    page.locator("#result").wait_for(state="hidden")
    assert page.locator("#examples").is_hidden()
    assert page.locator("#hero").is_visible()


def test_show_others_loads_other_products(page: Page) -> None:
    page.goto("/")
    page.wait_for_selector("#starts a.card[data-item-id='item-23']")  # seed 0: items 0 to 23
    page.get_by_role("button", name="Show others").click()
    page.wait_for_selector("#starts a.card[data-item-id='item-24']")  # seed 1: items 1 to 24
    assert page.locator("#starts a.card").count() == 24


def texts(page: Page, selector: str) -> list[str]:
    return [text.strip() for text in page.locator(selector).all_inner_texts()]


def search_text(page: Page, text: str) -> None:
    page.get_by_label("Search by text").fill(text)
    page.keyboard.press("Enter")


def give_file(page: Page, gesture: str, name: str, mime_type: str, content: list[int]) -> None:
    """Drop or paste a file, by browser events with a constructed clipboard."""
    page.evaluate(
        """([gesture, name, type, content]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(content)], name, { type }));
            const init = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
            const events = gesture === "drop" ? ["dragover", "drop"] : ["paste"];
            const EventClass = gesture === "drop" ? DragEvent : ClipboardEvent;
            for (const event of events) document.body.dispatchEvent(new EventClass(event, init));
        }""",
        [gesture, name, mime_type, content],
    )


def test_page_asks_once_for_a_token_and_sends_it_with_photos(
    page: Page, shelf: StubShelf, console: list[str]
) -> None:
    shelf.token = "raysys_right"
    page.goto("/?item=item-00")
    give_token(page, "raysys_wrong")
    page.get_by_text("The last token was not accepted.").wait_for()
    give_token(page, "raysys_right")
    page.wait_for_selector("#shelf a.card")
    page.wait_for_selector("#starts a.card")
    first = page.locator("#shelf a.card img").first
    page.wait_for_function("img => img.complete && img.naturalWidth === 192", arg=first.element_handle())
    assert str(first.get_attribute("src")).startswith("blob:")
    assert page.evaluate("document.cookie + JSON.stringify(localStorage) + location") == f"{{}}{page.url}"
    page.reload()  # the tab keeps the token
    page.wait_for_selector("#shelf a.card")
    assert not page.locator("#token-dialog").is_visible()
    assert set(console) == {FAILED_RESOURCE.format("401 (Unauthorized)")}
    console.clear()


def test_cancelled_token_shows_the_error_of_the_service(
    page: Page, shelf: StubShelf, console: list[str]
) -> None:
    shelf.token = "raysys_right"
    page.goto("/?item=item-00")
    page.get_by_role("button", name="Cancel").click()
    page.locator("#error-message", has_text="a token is required").wait_for()
    console.clear()


def test_token_that_is_no_longer_needed_is_dropped(page: Page, console: list[str]) -> None:
    page.goto("/")
    page.wait_for_selector("#starts a.card")
    page.evaluate("sessionStorage.setItem('raysys-token', 'old')")
    page.reload()
    page.wait_for_selector("#starts a.card")
    assert not page.locator("#token-dialog").is_visible()


def give_token(page: Page, token: str) -> None:
    page.get_by_placeholder("raysys_").fill(token)
    page.get_by_role("button", name="Continue").click()
