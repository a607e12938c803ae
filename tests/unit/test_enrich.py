"""Reference data: ids out of clear values, joined once a batch, nothing hidden coming back by it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronicle.codec.entity import Entity, InvalidEntity, Record, entity_of, metadata_of, record_of
from chronicle.engine import Engine, Failed, Flood, Step
from chronicle.errors import TransientError
from chronicle.model.batch import Batch
from chronicle.model.chunk import SourceSpec
from chronicle.model.dead_letters import Reason, Stage
from chronicle.model.references import References
from chronicle.policy.file import Policy, parse
from chronicle.sinks.memory import MemorySink
from chronicle.stages.enrich import Enriching, EnrichPlan, EntityFrame, joined
from chronicle.stages.path import Path
from chronicle.testing import IDENTITY_KEY, chunks, rules
from chronicle.testing import Record as KafkaRecord
from chronicle.worker.entities import lacking
from tests.unit.envelopes import Table
from tests.unit.test_engine import Watch

TEXT = ["null", "string"]
ORDERS = Table([("id", "long"), ("customer_id", ["null", "long"]), ("org", TEXT), ("v", TEXT)], name="orders", schema_id=500)
NOTES = Table([("id", "long"), ("org", TEXT)], name="notes", schema_id=510)
SCHEMAS = ORDERS.schemas | NOTES.schemas
FULL = SourceSpec("shop", "postgresql", full_identity=None)
KEY_ONLY = SourceSpec("shop", "postgresql", full_identity=frozenset())
CLEAR = 'columns = { id = "clear", customer_id = "clear", org = "clear", v = "clear" }'
CUSTOMER = '[[tables.enrich]]\ncolumn = "customer_id"\nentity = "customer:{}"\ninto = "customer"\n'
ORG = '[[tables.enrich]]\ncolumn = "org"\nentity = "org:{}"\ninto = "organisation"\n'
ADA = Entity("customer:7", "Ada", {"tier": "gold", "since": 2021})
ACME = Entity("org:acme", 'Acme "Corp"\\ü')
KNOWN = EntityFrame.of([ADA, ACME])
ADA_TEXT = '"customer":{"id":"customer:7","metadata":{"since":2021,"tier":"gold"},"name":"Ada"}'
ACME_TEXT = '"organisation":{"id":"org:acme","metadata":{},"name":"Acme \\"Corp\\"\\\\ü"}'


def policy(*enrich: str, columns: str = CLEAR, more: str = "") -> Policy:
    return parse(f'[[tables]]\nmatch = "shop.public.*"\n{columns}\n{more}\n{"".join(enrich)}')


def path_of(found: Policy, spec: SourceSpec = FULL) -> Path:
    return Path([spec], IDENTITY_KEY, rules(found))


def run(found: Policy, *records: KafkaRecord, spec: SourceSpec = FULL, entities: EntityFrame = KNOWN) -> Batch:
    batch, failed = Enriching(entities)(path_of(found, spec).run(chunks(records), SCHEMAS, 1))
    assert not failed
    assert batch.references == ()
    return batch


def order(id_: int, customer: int | None = None, org: str | None = None, v: str | None = None) -> dict[str, Any]:
    return {"id": id_, "customer_id": customer, "org": org, "v": v}


def test_what_the_row_names_is_joined_as_canonical_json() -> None:
    """The new row's value; of a delete the old row's; several entities of one row in one object."""
    batch = run(
        policy(CUSTOMER, ORG),
        ORDERS.change("c", after=order(1, 7, "acme")),
        ORDERS.change("u", before=order(1, 7, "acme"), after=order(1, 7), lsn=101),
        ORDERS.change("d", before=order(1, None, "acme"), lsn=102),
        ORDERS.change("r", after=order(2, 7), lsn=103),
        NOTES.change("c", after={"id": 1, "org": "acme"}, lsn=104),
    )
    texts = [f"{{{ADA_TEXT},{ACME_TEXT}}}", f"{{{ADA_TEXT}}}", f"{{{ACME_TEXT}}}", f"{{{ADA_TEXT}}}", f"{{{ACME_TEXT}}}"]
    assert batch.changes.sort("topic", "offset", descending=[True, False])["enriched"].to_list() == texts
    assert batch.unknown_entities == {}


def test_an_unknown_entity_is_empty_and_counted_and_a_null_is_neither() -> None:
    """By table and by the name under which it was to stand; once a change."""
    batch = run(
        policy(CUSTOMER, ORG),
        ORDERS.change("c", after=order(1, 8, "acme")),
        ORDERS.change("c", after=order(2, 9), lsn=101),
        ORDERS.change("c", after=order(3, 9, "nobody"), lsn=102),
        ORDERS.change("c", after=order(4), lsn=103),
    )
    assert batch.changes["enriched"].to_list() == [
        f'{{"customer":{{}},{ACME_TEXT}}}',
        '{"customer":{}}',
        '{"customer":{},"organisation":{}}',
        None,
    ]
    assert batch.unknown_entities == {("shop.public.orders", "customer"): 3, ("shop.public.orders", "organisation"): 1}


def test_without_any_entity_everything_is_unknown() -> None:
    """An empty topic is no error."""
    batch = run(policy(CUSTOMER), ORDERS.change("c", after=order(1, 7)), entities=EntityFrame())
    assert batch.changes["enriched"].to_list() == ['{"customer":{}}']
    assert batch.unknown_entities == {("shop.public.orders", "customer"): 1}


@pytest.mark.parametrize("treatment", ['"redact"', '"drop"', '"token"', '"mask"', '{ class = "clear", scan = ["email"] }'])
def test_a_hidden_columns_value_does_not_come_back_as_an_id(treatment: str) -> None:
    """Name and metadata are what the policy's author asked for; the id is the clear value."""
    columns = f'columns = {{ id = "clear", customer_id = "clear", v = "clear", org = {treatment} }}'
    people = EntityFrame.of([Entity("org:ada@example.com", "Ada", {"tier": 1})])
    row = order(1, 7, "ada@example.com")
    found = policy(ORG, columns=columns)
    pure = path_of(found).run(chunks([ORDERS.change("c", after=row)]), SCHEMAS, 1)
    batch, _ = Enriching(people)(pure)
    assert batch.changes["enriched"].to_list() == ['{"organisation":{"metadata":{"tier":1},"name":"Ada"}}']
    shown = str([batch.changes.to_dicts(), [one.frame.to_dicts() for one in batch.tables], batch.unknown_entities])
    assert "ada@" not in shown
    assert "ada@" not in repr(pure)


def test_an_old_value_that_debezium_may_have_made_up_names_nothing() -> None:
    """Without REPLICA IDENTITY FULL a delete's columns are inventions, except its key (fact 8)."""
    by_key = '[[tables.enrich]]\ncolumn = "id"\nentity = "customer:{}"\ninto = "customer"\n'
    delete = ORDERS.change("d", before=order(7, 0, "acme"))
    (change,) = run(policy(by_key, ORG), delete, spec=KEY_ONLY).changes.to_dicts()
    assert change["enriched"] == f"{{{ADA_TEXT}}}"
    (change,) = run(policy(by_key, ORG), delete).changes.to_dicts()
    assert change["enriched"] == f"{{{ADA_TEXT},{ACME_TEXT}}}"


def test_a_value_that_was_not_sent_names_nothing() -> None:
    """An unchanged TOAST value is a placeholder."""
    placeholder = KEY_ONLY.unavailable_value_placeholder
    update = ORDERS.change("u", after=order(1, 7, placeholder))
    batch = run(policy(CUSTOMER, ORG), update, spec=KEY_ONLY)
    assert batch.changes["unavailable"].to_list() == [["org"]]
    assert batch.changes["enriched"].to_list() == [f"{{{ADA_TEXT}}}"]
    assert batch.unknown_entities == {}


def test_stubs_and_dead_letters_name_nothing_and_shift_nothing() -> None:
    """The places of what is left are right, and what left is not counted as unknown."""
    found = policy(
        '[[tables.rule]]\ncolumn = "v"\nin = ["good", "draft"]\n',
        CUSTOMER,
        more="where = \"v != 'draft'\"",
    )
    batch = run(
        found,
        ORDERS.change("c", after=order(1, 8, v="bad")),
        ORDERS.change("c", after=order(2, 8, v="draft"), lsn=101),
        ORDERS.change("c", after=order(3, 7, v="good"), lsn=102),
    )
    assert [letter.reason for letter in batch.dead_letters] == [Reason.RULE_BROKEN]
    assert batch.changes.select("stub", "enriched").rows() == [("filtered", None), ("", f"{{{ADA_TEXT}}}")]
    assert batch.unknown_entities == {}


def test_tables_without_the_column_and_truncates_name_nothing() -> None:
    """A rule for many tables holds for those that have its column."""
    batch = run(policy(CUSTOMER), NOTES.change("c", after={"id": 1, "org": "acme"}), ORDERS.change("t", lsn=101))
    assert batch.changes["enriched"].to_list() == [None, None]
    assert EnrichPlan([], policy(CUSTOMER).table("shop", "public", "orders", ["customer_id"], ()).enrich).exprs == []


@dataclass
class Changing:
    """Reference data that changes between batches, and is away at first."""

    states: list[EntityFrame | TransientError]
    asked: int = 0

    def snapshot(self) -> EntityFrame:
        self.asked += 1
        state = self.states.pop(0)
        if isinstance(state, TransientError):
            raise state
        return state


@dataclass
class Registry:
    def resolve(self, ids: Any) -> dict[int, str | None]:
        return {id_: SCHEMAS[id_] for id_ in ids}


@dataclass
class Failing:
    """A step before, which fails these rows."""

    rows: Sequence[int]
    name: str = "failing"

    def __call__(self, batch: Batch) -> tuple[Batch, Sequence[Failed]]:
        return batch, [Failed(row, Stage.PROCESS, Reason.PROCESSOR_FAILED, "x") for row in self.rows]


def engine(entities: Changing, sink: MemorySink, *before: Failing) -> Engine:
    steps: list[Step] = [*before, Enriching(entities)]
    return Engine(
        path_of(policy(CUSTOMER)), Registry(), [sink], watch=Watch(threading.Event()), flood=Flood(0.5, 100), steps=steps
    )


def test_an_update_of_the_reference_data_is_effective_at_the_next_batch() -> None:
    """Asked for once a batch that names an entity, and never by others; while it is away, the batch waits."""
    other = EntityFrame.of([Entity("customer:7", "Ada L.")])
    entities, sink = Changing([TransientError("away"), KNOWN, other]), MemorySink()
    worker = engine(entities, sink)
    for number, row in enumerate((order(1, 7), order(2), order(3, 7))):
        worker.process(chunks([replace(ORDERS.change("c", after=row, lsn=100 + number), offset=number)]))
    names = [
        json.loads(text)["customer"]["name"] if text else None for text in (one["enriched"] for one in sink.changes.values())
    ]
    assert names == ["Ada", None, "Ada L."]
    assert entities.asked == 3
    assert worker.retries == {"enrich": 1}


def test_rows_that_an_earlier_step_refuses_shift_nothing() -> None:
    """References follow their changes."""
    sink = MemorySink()
    worker = engine(Changing([KNOWN]), sink, Failing([0, 2]))
    rows = [order(1, 8), order(2, 7), order(3, 8), order(4), order(5, 7)]
    outcome = worker.process(chunks([ORDERS.change("c", after=row, lsn=100 + row["id"]) for row in rows]))
    assert outcome.batch.changes["enriched"].to_list() == [f"{{{ADA_TEXT}}}", None, f"{{{ADA_TEXT}}}"]
    assert outcome.batch.unknown_entities == {}
    assert outcome.batch.references == ()


# --- the join itself

IDS = st.sampled_from([f"k:{text}" for text in ("a", "b", "c", "ü", '"', "\\", "}", "{}", "a:b", " ")])
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
ENTITIES = st.builds(Entity, IDS, NAMES, st.dictionaries(NAMES, st.integers() | NAMES | st.none(), max_size=2))


class Colliding(EntityFrame):
    """Of whose ids many have one hash."""

    def _hashes(self, ids: pl.Series) -> npt.NDArray[np.uint64]:
        return super()._hashes(ids) % np.uint64(2)


@settings(max_examples=100)
@given(st.lists(ENTITIES, max_size=12), st.lists(st.none() | IDS, min_size=1, max_size=12), st.booleans(), st.booleans())
def test_the_join_is_a_lookup(entities: list[Entity], ids: list[str | None], hidden: bool, colliding: bool) -> None:
    """Whatever ids and entities there are, also where hashes are equal, as a dictionary would have it."""
    known = {one.id: one for one in entities}
    frame = EntityFrame.of(entities)
    frame = Colliding(frame.frame) if colliding else frame
    rows = len(ids) + 2
    places = pl.Series("_row", range(1, len(ids) + 1), pl.UInt32)
    references = References("t", pl.DataFrame([places, pl.Series("x", ids, pl.String)]), frozenset({"x"} if hidden else ()))
    texts, unknown = joined(rows, [references], frame)
    assert len(texts) == rows
    assert texts[0] is None and texts[-1] is None
    for id_, text in zip(ids, texts[1:-1], strict=True):
        if id_ is None:
            assert text is None
        elif id_ not in known:
            assert text == '{"x":{}}'
        else:
            told = known[id_].as_json()
            assert json.loads(text) == {"x": {name: value for name, value in told.items() if not hidden or name != "id"}}
    missing = sum(id_ is not None and id_ not in known for id_ in ids)
    assert unknown == ({("t", "x"): missing} if missing else {})


@settings(max_examples=100)
@given(st.lists(st.lists(st.tuples(IDS, st.none() | NAMES), max_size=6), max_size=5))
def test_a_state_follows_from_the_records_in_their_order(batches: list[list[tuple[str, str | None]]]) -> None:
    """Later records of an id replace earlier ones, none deletes; the states before stay as they were."""
    frame, model, offset = EntityFrame(), dict[str, Entity](), 0
    for batch in batches:
        before, held = frame, frame.frame.rows()
        records = []
        for id_, name in batch:
            model.pop(id_, None)
            body = None
            if name is not None:
                model[id_] = Entity(id_, name)
                body = model[id_].body
            records.append(Record(id_, body, 5, offset))
            offset += 1
        frame = frame.changed(records)
        assert before.frame.rows() == held
        found = {id_: entity_of(id_, body) for id_, body, _, _ in frame.frame.iter_rows()}
        assert found == model
        assert frame.size == sum(len(id_.encode()) + len(one.body.encode()) for id_, one in model.items())


VERSIONS = st.dictionaries(IDS, st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=6)


@given(VERSIONS, VERSIONS)
def test_what_is_lacking_makes_a_table_equal_to_the_topic(topic: Mapping[str, Any], table: Mapping[str, Any]) -> None:
    """Every state that differs is written, and what the topic does not have is deleted by a newer version."""
    schema: Any = {"id": pl.String, "body": pl.String, "at_ms": pl.Int64, "offset": pl.Int64}
    body = Entity("k:a", "n").body
    frame = EntityFrame(pl.DataFrame([(id_, body, *at) for id_, at in topic.items()], schema=schema, orient="row"))
    known = pl.DataFrame([(id_, "", *at) for id_, at in table.items()], schema=schema, orient="row").drop("body")
    after = dict(table)
    for record in lacking(frame, known):
        if record.body is None:
            assert record.id not in topic
            assert (record.at_ms, record.offset) > after.pop(record.id)
        else:
            assert table.get(record.id) != (record.at_ms, record.offset)
            after[record.id] = (record.at_ms, record.offset)
    assert after == topic


# --- entities


@given(ENTITIES)
def test_an_entity_comes_back_from_its_record(entity: Entity) -> None:
    """And has one text, whatever the order of its metadata."""
    record = record_of(entity.key, entity.value, 5, 6)
    assert record is not None
    assert record == Record(entity.id, entity.body, 5, 6)
    assert entity_of(record.id, record.body or "") == entity
    assert json.loads(entity.value) == entity.as_json()
    backwards = Entity(entity.id, entity.name, dict(reversed(list(entity.metadata.items()))))
    assert backwards.value == entity.value


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"{",
        b"\xff",
        b'{"id":"k:b","name":"n"}',
        b'{"id":"k:a","name":""}',
        b'{"id":"k:a"}',
        b'{"id":"k:a","name":"n","metadata":[]}',
        b'{"id":"k:a","name":"n","metadata":{"a":NaN}}',
        b'{"id":"k:a","name":"n","metadata":' + b'{"a":' * 5000,
    ],
)
def test_a_value_that_is_no_entity_leaves_its_id_without_one(value: bytes) -> None:
    """What stood there before is no longer true, and that it is so is said."""
    assert record_of(b"k:a", value, 1, 2) == Record("k:a", None, 1, 2, readable=False)


def test_a_record_without_value_deletes_and_one_without_id_is_about_nothing() -> None:
    """Tombstones, and what other programs write."""
    assert record_of(b"k:a", None, 1, 2) == Record("k:a", None, 1, 2)
    assert [record_of(key, b"{}", 1, 2) for key in (None, b"", b"a", b"\xff:a", b":a", b"k:", b"k:a\n")] == [None] * 7


SECRET = "sesame-4711"


@pytest.mark.parametrize(
    ("entity", "field_"),
    [
        ({"id": SECRET}, "id"),
        ({"id": f"k:{SECRET}\x1b"}, "id"),
        ({"id": f"k:{SECRET}\ud800"}, "id"),
        ({"id": "k:" + SECRET * 100}, "id"),
        ({"id": 7}, "id"),
        ({"name": ""}, "name"),
        ({"name": SECRET * 100}, "name"),
        ({"name": f"{SECRET}\ud800"}, "name"),
        ({"name": None}, "name"),
        ({"metadata": [SECRET]}, "metadata"),
        ({"metadata": {"a": SECRET * 2000}}, "metadata"),
        ({"metadata": {"a": object()}}, "metadata"),
    ],
)
def test_an_entity_that_cannot_be_is_refused_by_field_and_never_by_value(entity: dict[str, Any], field_: str) -> None:
    """The error goes to terminals and logs."""
    with pytest.raises(InvalidEntity) as caught:
        Entity(**{"id": "k:a", "name": "n", **entity})
    assert field_ in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "7", "{", '{"a":NaN}', '{"a":1e999}', "{'a':1}", "\ud800"])
def test_metadata_is_a_json_object(text: str) -> None:
    """As strict as what reads it later."""
    with pytest.raises(InvalidEntity, match="JSON object"):
        metadata_of(text)


def test_neither_entities_nor_references_show_what_they_hold() -> None:
    """A representation ends in logs and tracebacks."""
    entity = Entity("k:a", SECRET, {"a": SECRET})
    reference = References("t", pl.DataFrame({"_row": [0], "x": [SECRET]}))
    record = Record(SECRET, SECRET, 1, 2)
    assert SECRET not in repr([entity, reference, record, EntityFrame.of([entity]), Holder([entity])])


@dataclass
class Holder:
    held: list[Entity] = field(default_factory=list)
