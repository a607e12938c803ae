"""The laws of the settings: one reader, a clear order, and no value in an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from chronicle import config
from chronicle.errors import ConfigError


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHRONICLE_CONFIG", raising=False)


def test_the_environment_wins_over_the_file_and_the_file_over_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three values of one section, each from another place."""
    (tmp_path / "chronicle.toml").write_text('[kafka]\nbootstrap_servers = "file:1"\naudit_topic = "from-file"\n')
    monkeypatch.setenv("CHRONICLE_KAFKA__BOOTSTRAP_SERVERS", "environment:1")
    kafka = config.load().kafka
    assert (kafka.bootstrap_servers, kafka.audit_topic, kafka.retry_topic) == ("environment:1", "from-file", "chronicle.retry")


def test_an_unknown_key_is_an_error_that_names_it(tmp_path: Path) -> None:
    """A misspelt key would otherwise be silently without effect."""
    (tmp_path / "chronicle.toml").write_text("[worker]\nbatch_rows = 5\n")
    with pytest.raises(ConfigError, match=r"worker\.batch_rows"):
        config.load()


def test_an_error_never_shows_a_value(tmp_path: Path) -> None:
    """A wrong value may be a secret in the wrong place."""
    (tmp_path / "chronicle.toml").write_text('[clickhouse]\ntimeout_s = "hunter2"\n')
    with pytest.raises(ConfigError, match=r"clickhouse\.timeout_s") as caught:
        config.load()
    assert "hunter2" not in str(caught.value)


def test_a_file_that_was_named_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Falling back to defaults would send data to another place than the operator thinks."""
    monkeypatch.setenv("CHRONICLE_CONFIG", "nowhere.toml")
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        config.load()


def test_broken_toml_is_a_configuration_error(tmp_path: Path) -> None:
    """Exit 2 with the file's name, not a traceback."""
    (tmp_path / "chronicle.toml").write_text("[kafka\n")
    with pytest.raises(ConfigError, match=r"chronicle\.toml"):
        config.load()


def test_the_local_stack_is_found_without_any_setting(tmp_path: Path) -> None:
    """`chronicle dev up` writes .chronicle/chronicle.toml; later commands need no argument."""
    (tmp_path / ".chronicle").mkdir()
    (tmp_path / ".chronicle" / "chronicle.toml").write_text('[clickhouse]\nurl = "http://localhost:9"\n')
    assert config.load().clickhouse.url == "http://localhost:9"


def test_a_section_is_not_set_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names a variable that can be set, and never the value."""
    monkeypatch.setenv("CHRONICLE_KAFKA", "hunter2")
    with pytest.raises(ConfigError, match="CHRONICLE_KAFKA__BOOTSTRAP_SERVERS") as caught:
        config.load()
    assert "hunter2" not in str(caught.value)
