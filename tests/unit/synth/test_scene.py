"""Rendered photos: reproducible, of the requested size, and dependent on the latent attributes."""

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from raysys.synth import BACKDROPS, KINDS, PATTERNS, DrawnItem, generate_items, render_item

ITEMS = generate_items(300, seed=7)


def pixels(item: DrawnItem, size_px: int = 96) -> NDArray[np.float64]:
    return np.asarray(Image.open(io.BytesIO(render_item(item, size_px))), dtype=np.float64)


def test_same_item_gives_the_same_bytes() -> None:
    first = [render_item(item) for item in ITEMS[:6]]
    np.random.seed(1)  # global state must not matter
    assert [render_item(item) for item in reversed(ITEMS[:6])] == first[::-1]


def test_item_of_a_smaller_catalogue_gives_the_same_bytes() -> None:
    assert render_item(generate_items(10, seed=7)[9]) == render_item(ITEMS[9])


def test_photo_does_not_depend_on_title_price_or_id() -> None:
    other = replace(ITEMS[0], item_id="d00000000", title="?", price=1, seller="s999")
    assert render_item(other) == render_item(ITEMS[0])


@pytest.mark.parametrize("size_px", [33, 64, 96, 224])
def test_photo_is_an_rgb_jpeg_of_the_requested_size(size_px: int) -> None:
    image = Image.open(io.BytesIO(render_item(ITEMS[0], size_px)))
    image.load()
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (size_px, size_px))


@pytest.mark.parametrize("kind", KINDS)
def test_styles_of_a_kind_give_different_photos(kind: str) -> None:
    styles = KINDS[kind].styles
    photos = {render_item(replace(ITEMS[0], kind=kind, style=style, category="")) for style in styles}
    assert len(photos) == len(styles) >= 2


def test_patterns_and_backdrops_give_different_photos() -> None:
    mug = replace(ITEMS[0], kind="mug", style="straight", category="home/kitchen", colour="red")
    assert len({render_item(replace(mug, pattern=pattern)) for pattern in PATTERNS}) == len(PATTERNS)
    assert len({render_item(replace(mug, backdrop=backdrop)) for backdrop in BACKDROPS}) == len(BACKDROPS)


def test_photo_depends_on_the_colour() -> None:
    """Same shot in two colours: the mean difference is from blue to red."""
    mug = replace(ITEMS[0], kind="mug", style="straight", category="home/kitchen", pattern="plain")
    difference = pixels(replace(mug, colour="red")) - pixels(replace(mug, colour="sky blue"))
    red, green, blue = difference.mean((0, 1))
    assert red > 3
    assert green < -3
    assert blue < -3


def test_cropped_photo_is_nearer_to_its_source_than_a_new_shot() -> None:
    item = replace(ITEMS[0], crop_seed=0)
    cropped, reshot = replace(item, crop_seed=5), replace(item, shot_seed=item.shot_seed + 1)
    source = pixels(item)
    near, far = np.abs(pixels(cropped) - source).mean(), np.abs(pixels(reshot) - source).mean()
    assert 0 < near < far


def test_thumbnails_do_not_identify_the_kind() -> None:
    """At 12 x 12 px the nearest photo of another seller is rarely of the same kind."""
    items = ITEMS[:150]
    thumbnails = np.stack(
        [
            np.asarray(
                Image.open(io.BytesIO(render_item(item, 48))).resize((12, 12), Image.Resampling.BOX),
                dtype=np.float64,
            ).ravel()
            for item in items
        ]
    )
    thumbnails -= thumbnails.mean(1, keepdims=True)
    thumbnails /= np.linalg.norm(thumbnails, axis=1, keepdims=True)
    sellers = np.array([item.seller for item in items])
    kinds = np.array([item.kind for item in items])
    similarity = np.where(sellers[:, None] == sellers[None], -1, thumbnails @ thumbnails.T)
    assert (kinds[similarity.argmax(1)] == kinds).mean() < 0.25
