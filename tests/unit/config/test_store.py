"""The password of `store.url` reaches the database, and nothing that is printed or written."""

from __future__ import annotations

import io

import pytest

from raysys import cli
from raysys.cluster.jobs import config_text
from raysys.commands import demo_config
from raysys.config import Config, load_config
from raysys.config.store import StoreConfig, without_password
from raysys.errors import ConfigError
from raysys.evaluate.provenance import command_line

URL = "postgresql://raysys:secret@db:5432/shop"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (URL, "postgresql://raysys@db:5432/shop"),
        ("postgresql://raysys:se@cr:et@db/shop?sslmode=require", "postgresql://raysys@db/shop?sslmode=require"),
        ("postgresql://raysys:se/cret@db/shop", "postgresql://raysys@db/shop"),
        ("postgresql://:secret@db/shop", "postgresql://@db/shop"),
        ("postgresql://raysys@db/shop?password=secret&sslmode=require", "postgresql://raysys@db/shop?password=&sslmode=require"),
        ("postgresql://raysys@db:5432/shop", "postgresql://raysys@db:5432/shop"),
        ("sqlite:////data/a:b@c.db", "sqlite:////data/a:b@c.db"),
        (f"store.url={URL}: unknown key", "store.url=postgresql://raysys@db:5432/shop: unknown key"),
    ],
)  # fmt: skip
def test_only_the_password_is_left_out(url: str, expected: str) -> None:
    assert without_password(url) == expected


def test_password_is_kept_in_memory_only() -> None:
    config = load_config(None, [f"store.url={URL}"])
    assert config.store.url == URL
    assert "secret" not in repr(config)
    assert "secret" not in config.model_dump_json()
    assert config.model_dump(mode="json")["store"] == {"url": without_password(URL), "timeout_s": 10.0}
    assert Config().model_dump(mode="json")["store"]["url"] is None
    assert Config.model_validate(config.model_dump()) == config  # Ray workers get it


@pytest.mark.parametrize(
    "word",
    [
        f"store.ulr={URL}",
        f"store={URL}",
        f"store.timeout_s={URL}",
        f"store.url=[{URL}]",
        f"store.url={{{URL}",
        f"store.url={{{'x' * 40}: {URL}",
        f"{URL}",
    ],
)
def test_errors_of_the_configuration_have_no_password(word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [word])
    assert "raysys@db" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_printed_configuration_has_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", str(demo_config()), f"store.url={URL}"]) == 0
    printed = capsys.readouterr()
    assert f"url: {without_password(URL)}\n" in printed.out
    assert "secret" not in printed.out + printed.err


def test_job_gets_no_password_and_a_line_says_so() -> None:
    err = io.StringIO()
    config = Config(root="s3://shop/raysys", store=StoreConfig(url=URL))
    assert f"url: {without_password(URL)}\n" in config_text(config, where="http://head:8265", err=err)
    assert err.getvalue() == "store.url: the job gets it without its password; set PGPASSWORD on the nodes\n"


def test_command_of_a_report_has_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["raysys", "evaluate", "my.yaml", f"store.url={URL}"])
    assert command_line() == f"raysys evaluate my.yaml store.url={without_password(URL)}"
