"""The command line as a person uses it: right, wrong and missing words, services that are away, pipes, small screens."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from chronicle import cli
from chronicle.dev.proof import audit_records
from chronicle.dev.stack import Stack
from tests.stack.test_worker import Deployment

COMMAND = str(Path(sys.executable).with_name("chronicle"))
NOWHERE = "http://localhost:1"
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
Done = subprocess.CompletedProcess[str]


def chronicle(*words: str, cwd: Path, given: str | None = None, **settings: str) -> Done:
    """`chronicle …` as the console script, in a directory and with settings of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CHRONICLE_")}
    return subprocess.run(
        [COMMAND, *words], cwd=cwd, env={**clean, **settings}, input=given, capture_output=True, text=True, check=False
    )


def at_a_terminal(*words: str, columns: int, environment: Mapping[str, str], interrupt_after: str | None = None) -> Done:
    """`chronicle …` at a terminal so wide; Ctrl-C is typed as soon as a text is on the screen."""
    process, terminal = pty.fork()
    if process == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        os.execve(COMMAND, [COMMAND, *words], dict(environment))  # noqa: S606 (what a terminal does)
    screen, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([terminal], [], [], 1)
        try:
            screen += (read := os.read(terminal, 65536)) if ready else (read := b"-")
        except OSError:  # the terminal's other end is closed
            break
        if not read:
            break
        if interrupt_after and interrupt_after.encode() in screen:
            interrupt_after, deadline = None, time.monotonic() + 10
            os.write(terminal, b"\x03")
    else:
        os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    os.close(terminal)
    return Done(words, code, ANSI.sub("", screen.decode(errors="replace")).replace("\r\n", "\n"), "")


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its words; groups too."""

    def below(words: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield words, command
        for sub, each in getattr(command, "commands", {}).items():
            yield from below(f"{words} {sub}", each)

    for name in cli.GROUPS:
        yield from below(name, cli._load(name))


def test_every_help_ends_with_an_example_that_can_be_typed() -> None:
    """The example names this very command (a group: one of its own), and its words are understood."""
    seen = 0
    leaves = {words: command for words, command in commands() if not hasattr(command, "commands")}
    for words, command in commands():
        epilog = command.epilog or ""
        assert epilog.startswith("Example: "), f"{words}: no example"
        typed = shlex.split(
            re.split(r" (?:\||>>) ", epilog.removeprefix("Example: "))[0]
        )  # what the shell does with it is not ours
        typed = shlex.split(typed[1].strip("$()")) if typed[0] == "eval" else typed
        assert typed.pop(0) == "chronicle"
        assert " ".join(typed).startswith(words), epilog
        name = next(name for name in (" ".join(typed[:3]), " ".join(typed[:2]), typed[0]) if name in leaves)
        leaves[name].make_context(name, typed[len(name.split()) :])  # a usage error if a word is wrong
        seen += 1
    assert seen > 20


def test_the_help_of_everything_is_there_without_settings(tmp_path: Path) -> None:
    """Help needs no file, no service and no terminal, and its last words are the example."""
    for words in ((), ("dead-letters",), ("changes",)):
        done = chronicle(*words, "--help", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip().splitlines()[-1].strip().startswith("Example: chronicle")
        assert "\x1b" not in done.stdout


BAD = '[kafka]\nbootstrap_server = "geheim-1"\n[clickhouse]\ntimeout_s = -1\npassword = "geheim-2"\n'
WRONG: list[tuple[tuple[str, ...], dict[str, str], int, str]] = [
    # words, settings, exit code, how the first line begins
    (("nosuch",), {}, 2, "error: no such command 'nosuch'"),
    (("history", "customers"), {}, 2, "error: missing argument 'key'"),
    (("changes", "--limit", "0"), {}, 2, "error: invalid value for '--limit'"),
    (("changes", "--since", "yesterday"), {}, 2, "error: write a time as"),
    (("changes", "--operation", "upsert"), {}, 2, "error: choose an operation"),
    (("changes", "--attribution", "nobody"), {}, 2, "error: choose an attribution from message, table"),
    (("changes", "--since", "1h", "--until", "2h"), {}, 2, "error: choose a --since before --until"),
    (("changes", "--key", "7"), {}, 2, "error: add --table"),
    (("dead-letters", "list", "--reason", "nosuch"), {}, 2, "error: choose a --reason from"),
    (("dead-letters", "show", "shop.public.customers"), {}, 2, "error: name topic, partition and offset"),
    (("--config", "bad.toml", "changes"), {}, 2, "error: correct the settings in bad.toml"),
    (("--config", "nosuch.toml", "worker"), {}, 2, "error: no settings file at nosuch.toml: correct"),
    (("connectors", "plan"), {}, 2, "error: no directory connectors: set connect.directory"),
    (("dev", "logs", "kafak"), {}, 2, "error: choose from kafka"),
    (("dev", "demo"), {}, 2, "error: start the demo in Chronicle's own directory"),
    (("changes",), {"CHRONICLE_CLICKHOUSE__URL": NOWHERE}, 1, "error: start ClickHouse, or correct clickhouse.url"),
    (("sql", "SELECT 1"), {"CHRONICLE_CLICKHOUSE__URL": "localhost"}, 2, "error: set clickhouse.url to an address like"),
]


@pytest.mark.parametrize(("words", "settings", "code", "first"), WRONG, ids=[" ".join(each[0]) for each in WRONG])
def test_what_is_wrong_is_said_first_and_ends_with_its_exit_code(
    words: tuple[str, ...], settings: dict[str, str], code: int, first: str, tmp_path: Path
) -> None:
    """2 when words or settings are wrong, 1 when the world is; nothing on standard output, no traceback, no secret."""
    (tmp_path / "bad.toml").write_text(BAD)
    done = chronicle(*words, cwd=tmp_path, **settings)
    assert done.stderr.startswith(first), done.stderr
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr
    assert "geheim" not in done.stderr


def test_connect_that_is_away_is_named_with_its_address() -> None:
    """A command that needs Connect says what to start; one that does not, works."""
    root = Path(__file__).parents[2]
    done = chronicle("connectors", "status", cwd=root, CHRONICLE_CONNECT__URL=NOWHERE)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: start Kafka Connect, or correct connect.url ({NOWHERE})")
    rendered = json.loads(chronicle("connectors", "render", "shop", "--json", cwd=root, CHRONICLE_CONNECT__URL=NOWHERE).stdout)
    assert rendered["shop"]["database.password"] == "${env:SHOP_DB_PASSWORD}"


def test_ctrl_c_ends_a_wait_for_a_broker_at_once() -> None:
    """The broker's library would wait fifteen seconds more; the exit code is the shell's for Ctrl-C, without a traceback."""
    environment = {**os.environ, "CHRONICLE_KAFKA__BOOTSTRAP_SERVERS": "localhost:1", "TERM": "xterm"}
    began = time.monotonic()
    done = at_a_terminal(
        "dead-letters", "replay", "--dry-run", columns=80, environment=environment, interrupt_after="reading dead letters"
    )
    assert done.returncode == 130, done.stdout
    assert "Traceback" not in done.stdout
    assert time.monotonic() - began < 14


@pytest.fixture(scope="module")
def site(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A trail that a real worker wrote: 30 rows created, one renamed, one deleted, one record that nobody can read."""
    made = Deployment(stack, f"t{os.urandom(4).hex()}x", tmp_path_factory.mktemp("site"))
    try:
        made.create(30)
        made.send([(made.table.key(2), made.change("u", 2, note="new\x1b[31m\n", email="x" * 300))])
        made.send([(made.table.key(4), made.change("d", 4)), (b"\7", b"\7not Avro, and secret")])
        made.drain()
        yield made
    finally:
        made.close()


@pytest.fixture
def run(site: Deployment) -> Callable[..., Done]:
    """`chronicle …` beside that trail."""
    return lambda *words, **more: chronicle(*words, cwd=site.directory, CHRONICLE_CONFIG=str(site.settings_file), **more)


@pytest.mark.stack
def test_a_history_tells_what_became_of_a_row(run: Callable[..., Done]) -> None:
    """From what to what, as text for a person and as JSON lines for a pipe; no value steers the terminal."""
    done = run("history", "t", "2")
    assert done.returncode == 0, done.stderr
    assert "public.t 2  2 changes" in done.stdout
    assert r'null → "new\u001b[31m\n"' in done.stdout
    assert "\x1b" not in done.stdout
    told = [json.loads(line) for line in run("history", "t", "2", "--json").stdout.splitlines()]
    assert [one["operation"] for one in told] == ["create", "update"]
    assert [(one["actor"], one["stub"], one["labels"]) for one in told] == [(None, "", [])] * 2


POLICY = """
[[tables]]
match = "**"
images = "changed"
where = "amount > 1"
columns = { id = "clear", amount = "clear", email = "redact", note = "redact" }
[[tables.label]]
columns = ["note"]
as = "noted"
"""


@pytest.mark.stack
def test_a_history_under_a_policy_hides_values_and_not_that_they_changed(
    stack: Stack, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a real worker leaves of a row: hidden changes, missing columns, a change that is left out but not silently."""
    (tmp_path / "policy.toml").write_text(POLICY)
    monkeypatch.setenv("CHRONICLE_POLICY_FILE", str(tmp_path / "policy.toml"))
    made = Deployment(stack, unique, tmp_path)
    try:
        source = tmp_path / "connectors" / f"{unique}.toml"
        source.write_text(f'full_identity = ["public.t"]\n{source.read_text()}')
        changes = (made.change("c", 2), made.change("u", 2, note="x"), made.change("u", 2, amount=0.5), made.change("d", 2))
        made.send([(made.table.key(2), change) for change in changes])
        made.drain()
        done = chronicle("history", "t", "2", cwd=tmp_path, CHRONICLE_CONFIG=str(made.settings_file))
        listed = chronicle("changes", "--label", "noted", "--json", cwd=tmp_path, CHRONICLE_CONFIG=str(made.settings_file))
    finally:
        made.close()
    told = [re.sub(r"^[-0-9]+ [:.0-9]+  ", "", line.strip()) for line in done.stdout.splitlines()[1:] if line]
    assert [re.sub(r"  tx [0-9]+$", "", line) for line in told] == [
        "create  by whom is not known yet  #noted", "amount  1.5", 'email   "[FILTERED]"', "id      2", "note    null",
        "update  by whom is not known yet  #noted", "note  changed (hidden)",
        "delete  by whom is not known yet  #noted", "amount  1.5", 'email   "[FILTERED]"', "id      2", 'note    "[FILTERED]"',
    ]  # fmt: skip
    assert done.stderr == "(1 change left out by the policy: --stubs)\n"
    assert [json.loads(line)["operation"] for line in listed.stdout.splitlines()] == ["create", "update", "delete"]
    assert "example.org" not in done.stdout + listed.stdout


@pytest.mark.stack
def test_what_is_not_there_is_told_apart_from_what_is_empty(run: Callable[..., Done]) -> None:
    """A table or row that the trail does not know is exit 1 and a way on; an empty answer is exit 0 and said aside."""
    for words, first in (
        (("history", "tt", "1"), "error: did you mean "),
        (("history", "t", "4711"), "error: look for the row with `chronicle changes --table "),
        (("changes", "--table", "nosuch"), "error: name one of "),
        (("changes", "--source", "nosuch"), "error: correct --source"),
    ):
        done = run(*words)
        assert (done.returncode, done.stdout) == (1, ""), words
        assert done.stderr.startswith(first), done.stderr
    nothing: list[tuple[str, ...]] = [
        ("changes", "--since", "2099-01-01"),
        ("dead-letters", "list", "--topic", "nosuch"),
        ("sql", "SELECT 1 WHERE 0"),
    ]
    for asked in nothing:
        done = run(*asked)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.stack
def test_a_pipe_gets_whole_lines_and_may_close_early(run: Callable[..., Done], site: Deployment) -> None:
    """One row is one line without colours, however long; a reader that has enough ends the command quietly."""
    lines = run("changes", "--limit", "5").stdout.splitlines()
    assert len(lines) == 6
    assert len({len(line) for line in lines}) == 1
    assert not ANSI.search("".join(lines))
    environment = {**os.environ, "CHRONICLE_CONFIG": str(site.settings_file)}
    query = "SELECT number, repeat('x', 1000) FROM numbers(2000)"
    words = (COMMAND, "sql", query, "--limit", "2000", "--json")
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as piped:
        assert piped.stdout is not None
        assert piped.stderr is not None
        assert json.loads(piped.stdout.readline())["number"] == 0
        piped.stdout.close()
        assert piped.stderr.read() == ""


@pytest.mark.stack
def test_a_small_screen_cuts_nothing_off(site: Deployment) -> None:
    """What does not fit as a table is shown row by row; a wide screen gets the table."""
    environment = {**os.environ, "CHRONICLE_CONFIG": str(site.settings_file), "TERM": "xterm"}
    topic = site.table.topic
    small = at_a_terminal("dead-letters", "list", columns=60, environment=environment).stdout
    assert f"topic         {topic}\n" in small
    assert "reason        wrong_frame\n" in small
    assert "neither magic byte 0 nor {\n" in small
    wide = at_a_terminal("dead-letters", "list", columns=200, environment=environment).stdout
    [line] = [line for line in wide.splitlines() if topic in line]
    assert "wrong_frame" in line
    assert "neither magic byte 0 nor {" in line


@pytest.mark.stack
def test_sql_answers_in_every_form_and_only_reads(run: Callable[..., Done], site: Deployment) -> None:
    """Values that JSON's numbers cannot hold are texts, times have their zone, and nothing can be written."""
    query = f"SELECT position, committed_at, event_id, NULL AS n, 0/0 AS nan FROM {site.name}.changes LIMIT 1"
    told = json.loads(run("sql", query, "--json").stdout)
    assert told["position"].isdigit()
    assert told["committed_at"].endswith("+00:00")
    assert told["n"] is told["nan"] is None
    assert run("sql", "-", "--csv", given="SELECT 1 AS a, ['x'] AS b").stdout == 'a,b\n1,"[""x""]"\n'
    for statement, first in (
        (f"DROP TABLE {site.name}.changes", "error: ask with SELECT"),
        ("SELECT 1 FORMAT JSON", "error: leave FORMAT out"),
        ("SELEC 1", "error: correct the SQL\n"),
        (f"SELECT toUInt8(assumeNotNull(after)) FROM {site.name}.changes", "error: correct the query"),
    ):
        done = run("sql", statement)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(first), done.stderr
        assert "example.org" not in done.stderr
    done = run("sql", " ;")
    assert done.returncode == 2
    assert done.stderr.startswith("error: write a query")


@pytest.mark.stack
def test_the_newest_dead_letter_is_shown_without_its_coordinates(run: Callable[..., Done], site: Deployment) -> None:
    """Metadata alone; the bytes on request, and that somebody looked is logged and on the audit topic."""
    plain = run("dead-letters", "show")
    assert plain.returncode == 0, plain.stderr
    assert site.table.topic in plain.stdout
    assert "secret" not in plain.stdout
    raw = json.loads(run("dead-letters", "show", "--raw", "--json").stdout)
    assert raw["raw"]["key"] == "Bw=="
    assert "dead_letter.raw_read" in run("dead-letters", "show", "--raw").stderr
    records = site.broker.read(site.settings.kafka.audit_topic)
    readings = [json.loads(value or b"")["core"] for key, value, _ in records if (key or b"").startswith(b"access:")]
    assert [each["activity_name"] for each in readings] == ["Read", "Read"]
    assert {each["unmapped"]["topic"] for each in readings} == {site.table.topic}
    # readers of changes pass them over
    held = audit_records(site.settings.kafka, [site.name])
    assert len(held) == len(records) - len(readings) > 0
    lost = run("dead-letters", "show", "--raw", CHRONICLE_KAFKA__AUDIT_TOPIC="nowhere")
    assert (lost.returncode, lost.stdout) == (1, "")
    assert lost.stderr.startswith("error: run `chronicle setup`"), lost.stderr
    assert "nothing is shown" in lost.stderr


@pytest.mark.stack
def test_setup_twice_makes_nothing_new_and_says_so(run: Callable[..., Done]) -> None:
    """Everything is present the second time, in a table that a pipe does not break."""
    steps = json.loads(run("setup", "--json").stdout)
    assert {step["action"] for step in steps} == {"present"}
    done = run("setup", CHRONICLE_CLICKHOUSE__URL=NOWHERE)
    assert done.returncode == 1
    assert done.stderr.startswith("error: start what does not answer")
    assert len(run("setup").stdout.splitlines()) == len(steps) + 4


@pytest.mark.stack
def test_a_trail_that_was_never_set_up_says_what_to_run(run: Callable[..., Done], site: Deployment) -> None:
    """Another database is empty: `chronicle setup` is the answer."""
    done = run("changes", CHRONICLE_CLICKHOUSE__DATABASE=f"{site.name}_nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("error: run `chronicle setup`")
