"""Each of the 22 damaged or unusual files of the shared catalogue, as the photo of a search."""

from __future__ import annotations

import pytest

from tests.unit.pack.test_hard_photos import ACCEPTED, HARD, REFUSED, pytestmark  # noqa: F401
from tests.unit.serve.conftest import Service


@pytest.mark.parametrize("name", [*REFUSED, *ACCEPTED])
def test_hard_photo_is_a_query_or_one_line(service: Service, name: str) -> None:
    response = service.post("/v1/search", files={"image": (name, (HARD / name).read_bytes())})
    if name in ACCEPTED:
        assert response.status_code == 200, response.text
    else:
        assert response.status_code == 415, response.text
        assert response.json()["error"]["code"] == "unreadable_image"
