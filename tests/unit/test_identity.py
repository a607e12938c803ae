"""Event ids and entities: the same change has the same id always, different changes never."""

from __future__ import annotations

import hashlib
from typing import Any

import polars as pl
import pytest

from chronicle.model import identity
from chronicle.testing import Record, run
from tests.unit.envelopes import Table

ITEMS = Table([("id", "long"), ("v", ["null", "string"])])
KEYLESS = Table([("a", "int")], key=(), name="keyless", schema_id=200)
CANDIDATES = Table([("id", "long"), ("v", ["null", "string"])], connector="mariadb", source="hiring", schema_id=300)
SCHEMAS = ITEMS.schemas | KEYLESS.schemas | CANDIDATES.schemas


def ids(*records: Record, key: bytes = b"k" * 32) -> list[bytes]:
    return run(records, schemas=SCHEMAS, identity_key=key).changes["event_id"].to_list()


def test_the_same_change_read_twice_has_one_id() -> None:
    """Redelivery at another offset, another time, with another total_order changes nothing."""
    again = ITEMS.change("c", after={"id": 1, "v": "x"}, order=9, offset=77)
    assert len(set(ids(ITEMS.change("c", after={"id": 1, "v": "x"}), again))) == 1


@pytest.mark.parametrize("differs", [{"lsn": 101}, {"txId": 8}])
def test_another_place_in_the_log_is_another_change(differs: dict[str, Any]) -> None:
    """Same row, same operation, other transaction or LSN."""
    assert (
        len(set(ids(ITEMS.change("c", after={"id": 1, "v": "x"}), ITEMS.change("c", after={"id": 1, "v": "x"}, **differs))))
        == 2
    )


def test_both_halves_of_a_key_change_are_two_changes_at_one_lsn() -> None:
    """They share transaction and LSN; key and operation tell them apart."""
    old, new = {"id": 1, "v": "x"}, {"id": 2, "v": "x"}
    assert len(set(ids(ITEMS.change("d", before=old), ITEMS.change("c", after=new)))) == 2


def test_equal_rows_of_a_table_without_a_key_differ_by_order() -> None:
    """Nothing but total_order tells two equal rows of one COPY apart."""
    assert len(set(ids(KEYLESS.change("c", after={"a": 1}, order=1), KEYLESS.change("c", after={"a": 1}, order=2)))) == 2


def test_a_truncate_does_not_depend_on_its_order_in_the_transaction() -> None:
    """total_order is not stable over restarts, and a truncate has no key in any table."""
    assert len(set(ids(ITEMS.change("t", order=1), ITEMS.change("t", order=2)))) == 1


def test_binlog_rows_differ_by_row_and_not_by_order() -> None:
    """file, pos and row are exact; total_order is never used there."""
    row = {"id": 1, "v": "x"}
    same = CANDIDATES.change("u", before=row, after=row, order=1), CANDIDATES.change("u", before=row, after=row, order=2)
    assert len(set(ids(*same))) == 1
    assert len(set(ids(same[0], CANDIDATES.change("u", before=row, after=row, row=1)))) == 2


def test_a_snapshot_row_is_an_observation_at_a_position() -> None:
    """Seen again at the same position it is the same observation, elsewhere another one."""
    row = {"id": 1, "v": "x"}
    first = ITEMS.change("r", after=row, lsn=None, txId=None, sequence='["5","6"]')
    again = ITEMS.change("r", after=row, lsn=None, txId=None, sequence='["5","6"]', offset=5)
    later = ITEMS.change("r", after=row, lsn=None, txId=None, sequence='["7","8"]')
    assert len(set(ids(first, again))) == 1
    assert len(set(ids(first, later))) == 2


def test_snapshot_rows_without_a_key_are_told_apart_by_their_coordinates() -> None:
    """Two equal rows of a table without a key are two rows."""
    rows = [KEYLESS.change("r", after={"a": 1}, offset=offset, lsn=None, txId=None) for offset in (3, 4)]
    assert len(set(ids(*rows))) == 2
    assert ids(rows[0]) == ids(rows[0])
    anew = KEYLESS.change("r", after={"a": 1}, offset=3, lsn=None, txId=None, headers=(("chronicle.epoch", b"1"),))
    assert ids(anew) != ids(rows[0])


def test_an_epoch_makes_another_change() -> None:
    """A restored server reuses positions; its epoch does not."""
    row = {"id": 1, "v": "x"}
    old, new = (ITEMS.change("c", after=row, headers=(("chronicle.epoch", epoch),)) for epoch in (b"0", b"1"))
    assert len(set(ids(old, new))) == 2


def test_an_entity_is_the_row_whatever_happens_to_it() -> None:
    """Create, update and delete of one row have one entity; another row has another."""
    row, other = {"id": 1, "v": "x"}, {"id": 2, "v": "x"}
    records = (ITEMS.change("c", after=row), ITEMS.change("u", after=row, lsn=101), ITEMS.change("d", before=row, lsn=102))
    entities = run((*records, ITEMS.change("c", after=other)), schemas=SCHEMAS).changes["entity"].to_list()
    assert len(set(entities[:3])) == 1
    assert entities[3] != entities[0]


def test_ids_depend_on_the_deployments_key() -> None:
    """An unkeyed hash could be guessed back; ids and entities are different domains of one key."""
    change = ITEMS.change("c", after={"id": 1, "v": "x"})
    assert ids(change, key=b"a" * 32) != ids(change, key=b"b" * 32)
    assert identity.event_ids(["x"], b"k") != identity.entities(["x"], b"k")


def test_fields_cannot_be_shifted_into_each_other() -> None:
    """The separator does not occur in fields, and a null is not the same as a neighbour's text."""
    frame = pl.DataFrame({"source": ["a", "ab"], "schema": ["bc", "c"], "table": ["t", "t"], "raw_key": ["{}", "{}"]})
    first, second = frame.select(identity.entity_text().alias("text"))["text"]
    assert first != second


def test_the_format_of_ids_is_fixed() -> None:
    """Ids are kept in ClickHouse and in the audit topic for ever: what they are the hash of is part of the format."""
    key = b"k" * 32
    changes = run([ITEMS.change("c", after={"id": 1, "v": "x"})], schemas=SCHEMAS, identity_key=key).changes

    def digest(person: bytes, *fields: str) -> bytes:
        return hashlib.blake2b("\x1f".join(fields).encode(), digest_size=16, key=key, person=person).digest()

    expected = digest(b"chronicle.event", "0", "shop", "shop.public.t", '{"id":1}', "c", "7", "100")
    assert changes["event_id"][0] == expected
    assert changes["entity"][0] == digest(b"chronicle.entity", "shop", "public", "t", '{"id":1}')
