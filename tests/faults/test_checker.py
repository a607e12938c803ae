"""The checker is itself checked: a clean run passes, and each planted fault is found by its law."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults import perfect, plants
from tests.faults.catalog import Tables
from tests.faults.checker import Allowance, check
from tests.faults.observation import DeadLetter
from tests.faults.plants import PLANTS, Plant, doubled
from tests.faults.report import Report

PLANTED = (DeadLetter("shop.public.accounts", 0, 900, "not_decodable"),)


def checked(plant: Plant | None = None, allowance: Allowance | None = None) -> Report:
    """A check of the perfect observation, with or without a fault."""
    truth = perfect.truth()
    observation = perfect.observation(truth, PLANTED)
    seen = plant.apply(observation) if plant else observation
    return check(perfect.TABLES, truth, seen, PLANTED, allowance, perfect.contexts())


def test_a_run_without_a_fault_passes() -> None:
    """The checker has nothing to say about a perfect run, and counts its redelivery."""
    report = checked()
    assert report.ok, report.text()
    assert report.counts["duplicates_audit"] == 1
    assert report.counts["duplicates_clickhouse"] == 1


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_planted_fault_is_found(plant: Plant) -> None:
    """Each planted fault breaks at least the laws that name it."""
    report = checked(plant)
    assert plant.laws <= set(report.laws()), report.text()


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_difference_can_be_read(plant: Plant) -> None:
    """The text names each broken law and a place."""
    report = checked(plant)
    text = report.text()
    assert all(f"── {law} in " in text for law in report.laws()), text


def test_a_double_is_allowed_only_where_it_was_said() -> None:
    """An allowance for tables without a key excuses no table that has one."""
    plant = next(item for item in PLANTS if item.apply is doubled)
    report = checked(plant, Allowance(doubled_keyless=frozenset({"shop.public.accounts"})))
    assert "doubled" in report.laws()


def test_a_transaction_that_is_named_otherwise_must_be_named_so_always() -> None:
    """Where the truth cannot know the id (MariaDB), two transactions never share one and one never has two."""
    accounts = replace(perfect.ACCOUNTS, exact_transactions=False)
    tables = Tables(dict(perfect.TABLES.by_topic) | {accounts.topic: accounts})
    truth = perfect.truth()
    clean = perfect.observation(truth, PLANTED)
    said = perfect.contexts()
    assert check(tables, truth, clean, PLANTED, contexts=said).ok
    changes = [replace(change, transaction_id="3") if change.transaction_id == "2" else change for change in clean.changes]
    assert "transaction" in check(tables, truth, replace(clean, changes=changes), PLANTED, contexts=said).laws()


@pytest.mark.parametrize("name", ["lost_context", "context_never_captured", "context_captured_on_wrong_transaction"])
def test_a_context_is_found_missing_although_its_transaction_is_named_otherwise(name: str) -> None:
    """Where the truth cannot know the id, the transaction's changes say which it is."""
    tables = Tables({topic: replace(table, exact_transactions=False) for topic, table in perfect.TABLES.by_topic.items()})
    truth = perfect.truth()
    seen = getattr(plants, name)(perfect.observation(truth, PLANTED))
    assert "context" in check(tables, truth, seen, PLANTED, contexts=perfect.contexts()).laws()


@pytest.mark.parametrize("what", ["records", "transactions", "changes", "left_out", "dead_letters"])
def test_a_record_that_the_worker_counted_otherwise_is_found(what: str) -> None:
    """An END leaves no offset in any sink: the worker's own count must account for it, as for all others."""
    truth = perfect.truth()
    clean = perfect.observation(truth, PLANTED)
    whole = clean.work
    assert whole is not None
    value = whole.counted[what]
    less = value - 1 if isinstance(value, int) else dict(list(value.items())[1:])
    more = value + 1 if isinstance(value, int) else {**value, next(iter(value)): 99}

    def laws(counted: object, assignments: int) -> set[str]:
        work = replace(whole, counted={**whole.counted, what: counted}, assignments=assignments)
        return set(check(perfect.TABLES, truth, replace(clean, work=work), PLANTED, contexts=perfect.contexts()).laws())

    assert laws(less, 1) == laws(more, 1) == laws(less, 2) == {"counted"}
    assert laws(more, 2) == set(), "a rebalance in the middle may bring records again"
