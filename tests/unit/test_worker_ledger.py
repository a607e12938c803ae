"""The ledger: what may be committed, and what is a gap."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from chronicle.worker.ledger import Gap, Ledger, Ticket, describe, find_gaps

P = ("shop.public.t", 0)


def begun(position: int = 0, committed: int | None = None) -> Ledger:
    ledger = Ledger()
    ledger.begin(P, position, committed)
    return ledger


def deliver(ledger: Ledger, first: int, last: int, rows: int | None = None) -> Ticket:
    return ledger.deliver(
        P, first=first, last=last, timestamp_ms=first, rows=rows or last - first + 1, size=10 * (last - first + 1)
    )


def test_only_the_acknowledged_prefix_may_be_committed() -> None:
    """A later chunk that is done first commits nothing."""
    ledger = begun()
    one, two = deliver(ledger, 0, 4), deliver(ledger, 5, 9)
    ledger.committed(ledger.committable(), ledger.epoch)
    assert ledger.acknowledge(two)
    assert ledger.committable() == {}
    assert ledger.acknowledge(one)
    assert ledger.committable() == {P: 10}


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.integers(0, 2**32))
def test_nothing_in_flight_is_ever_committable(lengths: list[int], seed: int) -> None:
    """Whatever the order of acknowledgements, the committable offset is at most the first unacknowledged one."""
    ledger = begun()
    tickets, at = [], 0
    for length in lengths:
        tickets.append(deliver(ledger, at, at + length - 1))
        at += length + random.Random(seed + at).randrange(3)  # markers leave holes
    open_tickets = list(tickets)
    random.Random(seed).shuffle(tickets)
    for ticket in tickets:
        assert ledger.acknowledge(ticket)
        open_tickets.remove(ticket)
        committable = ledger.committable().get(P, 0)
        assert committable <= min((t.first for t in open_tickets), default=at)
    assert ledger.committable() == {P: max(t.last for t in tickets) + 1}
    assert (ledger.rows, ledger.size) == (0, 0)


def test_an_acknowledgement_of_an_earlier_epoch_is_void() -> None:
    """After a seek the same offsets come again: the old delivery must not commit them."""
    ledger = begun()
    old = deliver(ledger, 0, 9)
    ledger.reset()
    ledger.begin(P, 0, None)
    ledger.committed(ledger.committable(), ledger.epoch)
    deliver(ledger, 0, 9)
    assert not ledger.acknowledge(old)
    assert ledger.committable() == {}
    assert ledger.rows == 10


def test_a_chunk_is_acknowledged_once() -> None:
    """Acknowledging twice frees room once."""
    ledger = begun()
    ticket = deliver(ledger, 0, 9)
    assert ledger.acknowledge(ticket)
    assert not ledger.acknowledge(ticket)
    assert (ledger.rows, ledger.size) == (0, 0)


def test_markers_are_committed_only_when_nothing_is_in_flight() -> None:
    """Skipping to a position never passes a chunk that is not acknowledged."""
    ledger = begun()
    ticket = deliver(ledger, 0, 9)
    ledger.skip_to(P, 12)
    ledger.committed(ledger.committable(), ledger.epoch)
    assert ledger.committable() == {}
    ledger.acknowledge(ticket)
    assert ledger.committable() == {P: 12}


def test_a_commit_of_an_earlier_epoch_is_not_remembered() -> None:
    """A slow commit that returns after a rebalance must not hide what is to be committed now."""
    ledger = begun()
    ledger.acknowledge(deliver(ledger, 0, 9))
    offsets, epoch = ledger.committable(), ledger.epoch
    ledger.reset()
    ledger.begin(P, 0, None)
    ledger.acknowledge(deliver(ledger, 0, 4))
    ledger.committed(offsets, epoch)
    assert ledger.committable() == {P: 5}


def test_standings_show_the_first_unacknowledged_offset() -> None:
    """Lag counts what is in flight."""
    ledger = begun()
    first = deliver(ledger, 0, 9)
    deliver(ledger, 10, 19)
    ledger.acknowledge(first)
    (standing,) = ledger.standings()
    assert (standing.position, standing.unacknowledged_from, standing.oldest_ms) == (20, 10, 10)


def test_retention_that_overtook_us_is_a_gap() -> None:
    """The range named is exactly what is missing."""
    (gap,) = find_gaps({P: 5}, {P: 8}, {P: 20})
    assert (gap.first, gap.last) == (5, 7)
    assert "shop.public.t[0] offsets 5 to 7" in describe([gap])
    assert "--accept-gap" in describe([gap]).splitlines()[0]


def test_a_recreated_topic_is_a_gap() -> None:
    """A log that ends before the committed offset is another log."""
    (gap,) = find_gaps({P: 50}, {P: 0}, {P: 20})
    assert "recreated" in gap.reason


def test_a_group_at_either_end_of_the_log_has_no_gap() -> None:
    """Exactly at the start, exactly at the end, and nothing committed on a whole log: no alarm."""
    for committed in (8, 20):
        assert find_gaps({P: committed}, {P: 8}, {P: 20}) == []
    assert find_gaps({P: None}, {P: 0}, {P: 20}) == []


def test_offsets_that_the_broker_forgot_are_a_gap_on_a_log_that_lost_its_start() -> None:
    """After an outage as long as the retention neither the records nor the committed offset are there."""
    (gap,) = find_gaps({P: None}, {P: 8}, {P: 20})
    assert (gap.first, gap.last) == (0, 7)


def test_a_long_list_of_gaps_is_cut() -> None:
    """A message stays readable with a thousand partitions."""
    gaps = [Gap(("t", n), 0, 1, "x") for n in range(100)]
    assert "80 more" in describe(gaps)
