"""`chronicle keys` and `chronicle api` as a person uses them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from typer import Typer
from typer.testing import CliRunner

from chronicle.cli import api as api_cli
from chronicle.cli import keys as keys_cli
from chronicle.dev.stack import Stack
from tests.stack.api_process import ApiSite
from tests.stack.worker_process import until

pytestmark = pytest.mark.stack

Run = Callable[..., tuple[int, str, str]]
EVENT = {"type": "security.login", "source": "shop"}


@pytest.fixture
def site(stack: Stack, unique: str, tmp_path: Path) -> Iterator[ApiSite]:
    """A deployment of its own, with nothing running."""
    made = ApiSite(stack, unique, tmp_path)
    yield made
    made.close()


@pytest.fixture
def cli(site: ApiSite, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with the deployment's settings: exit code, standard output, standard error."""
    monkeypatch.setenv("CHRONICLE_CONFIG", str(site.settings_file))
    app = Typer()
    app.add_typer(keys_cli.app, name="keys")
    app.command("api")(api_cli.api)

    def run(*words: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, words)
        return result.exit_code, result.stdout, result.stderr

    return run


def test_a_key_is_shown_once_listed_and_revoked(site: ApiSite, cli: Run) -> None:
    """Its text on standard output alone; a list has all but the text; a revoked one opens nothing."""
    code, text, told = cli("keys", "create", "--name", "shop [b]", "--role", "ingest", "--source", "shop", "--expires", "90d")
    assert (code, text.count("\n")) == (0, 1)
    assert text.strip() not in told
    site.serve()
    headers = {"authorization": f"Bearer {text.strip()}"}
    assert site.post(EVENT, headers).status_code == 202
    assert site.post({**EVENT, "source": "hiring"}, headers).status_code == 422
    code, listed, _ = cli("keys", "list", "--json")
    [key] = map(json.loads, listed.splitlines())
    assert (code, key["name"], key["state"], key["sources"]) == (0, "shop [b]", "active", ["shop"])
    secret = text.strip().rpartition("_")[2]
    assert secret not in listed + cli("keys", "list", "--all")[1]
    assert site.rows(f"SELECT count() FROM {site.name}.api_keys WHERE hash LIKE '%{secret}%'") == [(0,)]
    assert cli("keys", "revoke", key["id"])[0] == 0
    until(lambda: site.post(EVENT, headers).status_code == 401, "the key is taken back", 10)
    assert cli("keys", "list", "--json")[1] == ""
    assert json.loads(cli("keys", "list", "--all", "--json")[1])["state"] == "revoked"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("create", "--name", "x"), 2),
        (("create", "--name", "x", "--role", "root"), 2),
        (("create", "--name", "x", "--role", "reader", "--expires", "2001-01-01"), 2),
        (("create", "--name", "x", "--role", "reader", "--tenant", ""), 2),
        (("revoke", "nothing"), 1),
    ],
)
def test_what_is_wrong_is_said(cli: Run, words: tuple[str, ...], code: int) -> None:
    """With the fix, and no key is made."""
    found, out, told = cli("keys", *words)
    assert (found, out) == (code, "")
    assert told.startswith("error: ")
    assert cli("keys", "list", "--all", "--json")[1] == ""


def test_without_a_key_it_listens_on_this_machine_only(site: ApiSite, cli: Run) -> None:
    """Whatever the settings say, and it says so; with a key it does as it is told, and asks for it."""
    process = site.serve("--host", "0.0.0.0")  # noqa: S104
    assert process.until_event("api.listening")["host"] == "127.0.0.1"
    assert any("not bound to 0.0.0.0" in str(event["text"]) for event in process.events("operator.warning"))
    assert site.post(EVENT).status_code == 202
    process.term()
    assert process.wait() == 0
    text = cli("keys", "create", "--name", "a", "--role", "ingest")[1].strip()
    process = site.serve("--host", "0.0.0.0")  # noqa: S104
    assert process.until_event("api.listening")["host"] == "0.0.0.0"  # noqa: S104
    assert process.events("operator.warning") == []
    assert site.post(EVENT).status_code == 401
    assert site.post(EVENT, {"authorization": f"Bearer {text}"}).status_code == 202


def test_a_port_that_is_taken_is_said(site: ApiSite) -> None:
    """Exit code 2."""
    site.serve()
    second = site.serve(ready=False, CHRONICLE_API__PORT=str(site.api_port), spill_directory=str(site.directory / "other"))
    assert second.wait() == 2
    assert "api.port" in second.log_text()


def test_a_setting_that_cannot_be_is_said(site: ApiSite) -> None:
    """Before a port is opened: exit code 2."""
    process = site.serve(ready=False, oidc_issuer="https://issuer.example", oidc_algorithms='["HS256"]')
    assert process.wait() == 2
    assert "oidc_algorithms" in process.log_text()


def test_it_reads_with_a_user_who_can_do_nothing_else(site: ApiSite) -> None:
    """The local stack's reader, who may not even change a setting; every kind of question is answered."""
    site.add_event(1, actor_id="ann")
    site.add_change(1, "create", after={"id": 7})
    site.serve(clickhouse_username="chronicle_reader")
    paths = ("/events", "/changes", "/history/customers/7", "/transactions/1", "/actors/ann/activity", "/export", "/entities")
    assert {path: site.get(path).status_code for path in paths} == dict.fromkeys(paths, 200)
    assert site.get("/ready").json() == {"status": "ready"}
    assert len(site.get("/export").text.splitlines()) == 1


def test_grants_are_printed(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQL on standard output; without a user's name, what to set."""
    assert cli("api", "--grants")[0] == 2
    monkeypatch.setenv("CHRONICLE_API__CLICKHOUSE_USERNAME", "it's`reader")
    code, text, _ = cli("api", "--grants")
    assert code == 0
    assert "GRANT SELECT ON `" in text
    assert "TO `it's\\`reader`;" in text


def test_a_slow_question_is_cut_off(site: ApiSite) -> None:
    """A question that would read more rows than it may is refused in time, with nothing of the store's own words."""
    for n in range(3):
        site.add_event(n)
    site.serve(query_rows_max="1")
    answer = site.get("/events")
    assert answer.status_code == 503
    assert "DB::" not in answer.text
    assert httpx.get(f"{site.url}/health", timeout=10).status_code == 200
