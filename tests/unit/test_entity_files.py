"""Files of entities: all of it or nothing, each bad line named, no value in any message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chronicle.codec.entity import Entity
from chronicle.entities import PROBLEMS_MAX, InvalidFile, parsed
from chronicle.errors import ConfigError

SECRET = "sesame-4711"
ACME = Entity("org:acme", "Acme, Corp", {"tier": "enterprise"})
BERT = Entity("org:bert", "Bert\nand Sons")


def written(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.ndjson", "\n".join(json.dumps(one.as_json()) for one in (ACME, BERT)) + "\n\n"),
        ("a.jsonl", "\r\n".join(json.dumps(one.as_json()) for one in (ACME, BERT))),
        ("a.json", json.dumps([ACME.as_json(), {"id": BERT.id, "name": BERT.name}], indent=2)),
        ("a.csv", 'id,name,metadata\norg:acme,"Acme, Corp","{""tier"":""enterprise""}"\norg:bert,"Bert\nand Sons",\n'),
        ("a.CSV", '\ufefftier,name,id\r\nenterprise,"Acme, Corp",org:acme\r\n,"Bert\nand Sons",org:bert\r\n'),
    ],
)
def test_each_format_tells_the_same_entities(tmp_path: Path, name: str, text: str) -> None:
    """NDJSON, JSON, and CSV with metadata as JSON or as columns of its own, with a byte order mark or without."""
    assert parsed(written(tmp_path, name, text)) == [ACME, BERT]


def test_a_name_without_a_known_ending_needs_a_format(tmp_path: Path) -> None:
    """What a file is, is not guessed from what is in it."""
    path = written(tmp_path, "entities", '{"id":"org:acme","name":"n"}')
    with pytest.raises(ConfigError, match="--format"):
        parsed(path)
    assert parsed(path, "ndjson") == [Entity("org:acme", "n")]


def test_every_bad_line_is_named_and_nothing_comes_of_the_others(tmp_path: Path) -> None:
    """One run shows all there is to correct."""
    lines = [
        '{"id":"k:a","name":"n"}',
        f'{{"id":"{SECRET}","name":"n"}}',
        f'{{"id":"k:b","name":"{SECRET}"',
        "",
        f'{{"id":"k:c","name":"n","{SECRET}":1}}',
        f'["{SECRET}"]',
        f'{{"id":"k:a","name":"{SECRET}"}}',
        f'{{"id":"k:d","name":"n","metadata":"{SECRET}"}}',
        f'{{"id":"k:d","name":7,"metadata":{{"{SECRET}":NaN}}}}',
    ]
    with pytest.raises(InvalidFile) as caught:
        parsed(written(tmp_path, "a.ndjson", "\n".join(lines)))
    first, *named = str(caught.value).splitlines()
    assert "7 of its entities" in first
    assert [line.split(":")[0] for line in named] == [f"line {number}" for number in (2, 3, 5, 6, 7, 8, 9)]
    assert "the same id as line 1" in named[4]
    assert SECRET not in str(caught.value)


def test_bad_lines_of_csv_are_named_by_their_line(tmp_path: Path) -> None:
    """The line where they end: a cell may have several."""
    text = f'id,name,metadata\nk:a,n,\nk:b,"n\nm",{SECRET}\nk:c\nk:d,n,,{SECRET}\n,n,\n'
    with pytest.raises(InvalidFile) as caught:
        parsed(written(tmp_path, "a.csv", text))
    assert [line.split(":")[0] for line in str(caught.value).splitlines()[1:]] == ["line 4", "line 5", "line 6", "line 7"]
    assert SECRET not in str(caught.value)


def test_not_more_lines_are_named_than_a_person_reads(tmp_path: Path) -> None:
    """The rest is counted."""
    with pytest.raises(InvalidFile) as caught:
        parsed(written(tmp_path, "a.ndjson", "x\n" * (PROBLEMS_MAX + 5)))
    assert len(str(caught.value).splitlines()) == PROBLEMS_MAX + 2
    assert str(caught.value).endswith("and 5 more")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", f'{{"id":"{SECRET}"}}'),
        ("a.json", f'["{SECRET}'),
        ("a.json", "[" * 100_000),
        ("a.csv", f"{SECRET}\n"),
        ("a.csv", ""),
        ("a.csv", "id,name,name\n"),
        ("a.csv", f'id,name\n"k:a"{SECRET},n\n'),
    ],
)
def test_a_file_that_is_no_list_of_entities_is_refused_whole(tmp_path: Path, name: str, text: str) -> None:
    """With what it should be, and without what it is."""
    with pytest.raises(ConfigError) as caught:
        parsed(written(tmp_path, name, text))
    assert SECRET not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """By its path, and why."""
    with pytest.raises(ConfigError, match=r"gone.csv \(No such file"):
        parsed(tmp_path / "gone.csv")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        parsed(tmp_path / "a.csv")


def test_an_empty_list_is_a_list(tmp_path: Path) -> None:
    """Nothing to do is no mistake."""
    assert parsed(written(tmp_path, "a.json", "[]")) == []
    assert parsed(written(tmp_path, "a.csv", "id,name\n")) == []
