"""The URL of the database: the default, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys.config import Config
from raysys.config.schema import StoreConfig
from raysys.errors import InputError
from raysys.store.change_log import ChangeLog
from raysys.store.url import parse_url, store_url


def test_default_is_a_file_under_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_url(Config(root="here")) == f"sqlite:///{tmp_path}/here/store.db"


def test_path_of_root_may_have_any_characters(tmp_path: Path) -> None:
    root = tmp_path / "50% of #1? a:b@c é"
    ChangeLog(store_url(Config(root=str(root)))).close()
    assert (root / "store.db").is_file()


def test_object_store_as_root_needs_a_url() -> None:
    with pytest.raises(InputError) as caught:
        store_url(Config(root="s3://shop/raysys"))
    assert str(caught.value) == (
        "root: s3://shop/raysys: an object store cannot hold the SQLite file of the change log; "
        "set store.url=postgresql://USER@HOST/DATABASE"
    )


def test_configured_url_keeps_its_password() -> None:
    url = "postgresql://raysys:pw@db/shop"
    assert store_url(Config(root="s3://shop/raysys", store=StoreConfig(url=url))) == url
    assert parse_url(url).drivername == "postgresql+psycopg"


def test_relative_path_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"^store.url: sqlite:///store.db: the path is relative .*; give an absolute"
    ):
        store_url(Config(store=StoreConfig(url="sqlite:///store.db")))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("store.db", "store.db: not the URL of a database; give postgresql"),
        ("postgresql://u:pw@db:port/shop", "postgresql://u@db:port/shop: not the URL of a database; give"),
        (
            "mysql://u:pw@db/shop",
            "mysql://u@db/shop: databases of kind mysql are not supported; use postgresql",
        ),
        ("postgresql+psycopg2://db/shop", "databases of kind postgresql+psycopg2 are not supported"),
        ("postgresql://u:p@w@db/shop", "postgresql://u@db/shop: has more than one @; write %40"),
        ("postgresql://u@db/shop?password=pw", "u@db/shop?password=: has a password in its query; give"),
        ("sqlite:////data/store.db?mode=ro", "has options (?), which SQLite takes none of here; remove"),
        ("sqlite://", "sqlite://: a database in memory is not durable; give a file"),
        ("sqlite:///:memory:", "a database in memory is not durable; give a file"),
    ],
)
def test_url_that_cannot_be_used_is_refused_without_its_password(url: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        ChangeLog(url)
    assert message in str(caught.value)
    assert "pw" not in str(caught.value)
    assert "p@w" not in str(caught.value)
