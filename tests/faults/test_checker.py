"""The checker is itself checked: a clean run passes, and each planted fault is found by its law."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults import perfect
from tests.faults.checker import Allowance, check
from tests.faults.observation import DeadLetter
from tests.faults.plants import PLANTS, Plant, doubled
from tests.faults.report import Report

PLANTED = (DeadLetter("shop.public.accounts", 0, 900, "not_decodable"),)


def checked(plant: Plant | None = None, allowance: Allowance | None = None) -> Report:
    """A check of the perfect observation, with or without a fault."""
    truth = perfect.truth()
    observation = perfect.observation(truth, PLANTED)
    return check(perfect.TABLES, truth, plant.apply(observation) if plant else observation, PLANTED, allowance)


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
    assert all(f"── {law} in shop" in text for law in report.laws()), text


def test_a_double_is_allowed_only_where_it_was_said() -> None:
    """An allowance for tables without a key excuses no table that has one."""
    plant = next(item for item in PLANTS if item.apply is doubled)
    report = checked(plant, Allowance(doubled_keyless=frozenset({"shop.public.accounts"})))
    assert "doubled" in report.laws()


def test_a_transaction_that_is_named_otherwise_must_be_named_so_always() -> None:
    """Where the truth cannot know the id (MariaDB), two transactions never share one and one never has two."""
    accounts = replace(perfect.ACCOUNTS, exact_transactions=False)
    tables = type(perfect.TABLES)(dict(perfect.TABLES.by_topic) | {accounts.topic: accounts})
    truth = perfect.truth()
    clean = perfect.observation(truth, PLANTED)
    assert check(tables, truth, clean, PLANTED).ok
    changes = [replace(change, transaction_id="3") if change.transaction_id == "2" else change for change in clean.changes]
    assert "transaction" in check(tables, truth, replace(clean, changes=changes), PLANTED).laws()
