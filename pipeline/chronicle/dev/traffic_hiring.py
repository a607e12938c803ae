"""The demo's recruiting: an application on MariaDB that says who did what by rows of the context table or by comments, and
what happened by events."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from typing import Any

import pymysql
from pymysql.cursors import Cursor

from chronicle.dev.traffic import CLERKS, PEOPLE, email_of, weighted
from chronicle.dev.traffic_sessions import Sessions

DATABASE = "hiring"
TABLES = ("hiring.campaigns", "hiring.candidates", "hiring.applications")
SUBMITTED = "application.submitted"
SEEDED_CAMPAIGNS, SEEDED_CANDIDATES = 5, 30
STAGES = ("interview", "offer", "hired", "rejected")
OPENING = datetime(2026, 3, 1, 9, 30, 0, 123_000)  # DATETIME has no zone

ACTIONS = (
    (22, "register"),
    (30, "apply"),
    (24, "review"),
    (8, "edit"),
    (6, "withdraw"),
    (2, "erase"),
    (3, "renumber"),
    (5, "roll_back"),
)


class Hiring:
    """An `Application` (see `traffic`): registrations, applications, reviews, withdrawals."""

    source = "hiring"

    def __init__(self, login: Mapping[str, Any], sessions: Sessions) -> None:
        self.connection = pymysql.connect(**login, charset="utf8mb4", autocommit=False)
        self.sessions = sessions
        with self.connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00'")
            self.campaigns = _column(cursor, "SELECT id FROM campaigns ORDER BY id")
            self.candidates = _column(cursor, "SELECT id FROM candidates ORDER BY id")
            cursor.execute("SELECT campaign_id, candidate_id FROM applications ORDER BY 1, 2")
            self.applications: list[tuple[int, int]] = list(cursor.fetchall())
        self.connection.commit()
        self.next_candidate = max([0, *self.candidates]) + 1
        self.written_before = self.next_candidate
        self.truncated = False

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    def act(self, chosen: random.Random, step: float) -> tuple[str, str | None]:
        """One transaction: the clean-up once, else by weight; without applications a new one."""
        if step >= 0.5 and not self.truncated:
            self.truncated = True
            return "clean_up", self._clean_up()
        action = weighted(chosen, ACTIONS)
        if action in ("review", "withdraw") and not self.applications:
            action = "apply"
        return action, getattr(self, f"_{action}")(chosen)

    def finish(self, chosen: random.Random) -> str:
        """A registration."""
        return self._register(chosen)

    # -- one transaction each ------------------------------------------------------------------------------------------

    def _register(self, chosen: random.Random) -> str:
        numbers = list(range(self.next_candidate, self.next_candidate + chosen.choice((1, 1, 3))))
        with self._transaction(chosen, "registration") as cursor:
            insert_candidates(cursor, numbers, chosen)
        self.next_candidate = numbers[-1] + 1
        self.candidates += numbers
        return self._gtid()

    def _apply(self, chosen: random.Random) -> str:
        taken = set(self.applications)
        wanted = {(chosen.choice(self.campaigns), chosen.choice(self.candidates)) for _ in range(3)}
        new = sorted(wanted - taken)
        at = OPENING + timedelta(minutes=len(taken))
        with self._transaction(chosen, "application form") as cursor:
            cursor.executemany(
                "INSERT INTO applications (campaign_id, candidate_id, rating, salary, note, applied_at) "
                "VALUES (%s, %s, %s, %s, %s, %s)",
                [
                    (*one, chosen.choice((None, -3, 5)), Decimal("61250.50"), chosen.choice((None, "très motivé·e ✨")), at)
                    for one in new
                ],
            )
            cursor.execute(
                "UPDATE candidates SET score = %s WHERE id = %s",
                (chosen.randrange(10_000) / 1000, chosen.choice(self.candidates)),
            )
            for campaign, candidate in new:
                resource = ("application", f"{campaign}-{candidate}")
                self.sessions.in_transaction(self.connection, SUBMITTED, resource, {"campaign_id": campaign})
        self.applications += new
        return self._gtid()

    def _review(self, chosen: random.Random) -> str:
        with self._transaction(chosen, "hiring meeting") as cursor:
            for one in chosen.sample(self.applications, min(3, len(self.applications))):
                cursor.execute(
                    "UPDATE applications SET stage = %s, rating = %s WHERE campaign_id = %s AND candidate_id = %s",
                    (chosen.choice(STAGES), chosen.randrange(-5, 6), *one),
                )
            cursor.execute(
                "UPDATE campaigns SET budget = budget - %s WHERE id = %s", (Decimal("0.05"), chosen.choice(self.campaigns))
            )
        return self._gtid()

    def _edit(self, chosen: random.Random) -> str:
        with self._transaction(chosen, "profile") as cursor:
            cursor.execute(
                "UPDATE candidates SET phone = %s, resume = %s, api_token = %s WHERE id = %s",
                (
                    chosen.choice((None, "+41 44 000 00 00")),
                    chosen.choice((None, "Wrote a compiler. " * chosen.randrange(1, 200))),
                    f"{chosen.getrandbits(128):x}",
                    chosen.choice(self.candidates),
                ),
            )
            cursor.execute(
                "UPDATE campaigns SET settings = %s, status = %s, closes_at = %s WHERE id = %s",
                (
                    json.dumps({"channel": chosen.choice(("fair", "웹")), "max": chosen.randrange(99)}, ensure_ascii=False),
                    chosen.choice(("draft", "open", "closed")),
                    chosen.choice((None, OPENING + timedelta(microseconds=chosen.randrange(10**12)))),
                    chosen.choice(self.campaigns),
                ),
            )
        return self._gtid()

    def _withdraw(self, chosen: random.Random) -> str:
        gone = self.applications.pop(chosen.randrange(len(self.applications)))
        if chosen.random() < 0.3:
            self.sessions.refused(chosen, "applications.withdraw", ("application", "{}-{}".format(*gone)))
        with self._transaction(chosen, "withdrawn") as cursor:
            cursor.execute("DELETE FROM applications WHERE campaign_id = %s AND candidate_id = %s", gone)
        return self._gtid()

    def _erase(self, chosen: random.Random) -> str:
        gone = self.candidates.pop(chosen.randrange(len(self.candidates)))
        self.sessions.refused(chosen, "candidates.erase", ("candidate", gone))
        with self._transaction(chosen, "right to be forgotten") as cursor:
            # children first and by name: what a foreign key's cascade deletes is not in the binlog
            cursor.execute("DELETE FROM applications WHERE candidate_id = %s", (gone,))
            cursor.execute("DELETE FROM candidates WHERE id = %s", (gone,))
        self.applications = [one for one in self.applications if one[1] != gone]
        return self._gtid()

    def _renumber(self, chosen: random.Random) -> str:
        old, new = chosen.choice(self.candidates), self.next_candidate
        with self._transaction(chosen, "duplicate profile") as cursor:
            cursor.execute("UPDATE applications SET candidate_id = %s WHERE candidate_id = %s", (new, old))
            cursor.execute("UPDATE candidates SET id = %s WHERE id = %s", (new, old))
        self.candidates[self.candidates.index(old)] = new
        self.applications = [(campaign, new if candidate == old else candidate) for campaign, candidate in self.applications]
        self.next_candidate += 1
        return self._gtid()

    def _roll_back(self, chosen: random.Random) -> None:
        with self.connection.cursor() as cursor:
            insert_candidates(cursor, [-1], chosen)
            self.sessions.in_transaction(self.connection, SUBMITTED, ("application", "never"), {})
        self.connection.rollback()
        self.sessions.ended(committed=False)

    def _clean_up(self) -> str:
        with self.connection.cursor() as cursor:
            cursor.execute("TRUNCATE TABLE applications")
        self.applications = []
        return self._gtid()

    @contextmanager
    def _transaction(self, chosen: random.Random, reason: str) -> Iterator[Cursor]:
        """Some say who it is in the context table, some in comments, some not at all."""
        how = chosen.random()
        with ExitStack() as open_, self.connection.cursor() as cursor:
            if how < 0.7:
                who = chosen.choice(CLERKS)
                open_.enter_context(self.sessions.request(self.connection, chosen, who, reason, comment=how < 0.25))
            yield cursor
            self.connection.commit()
        self.sessions.ended(committed=True)

    def _gtid(self) -> str:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT @@last_gtid")
            return str((cursor.fetchone() or ("",))[0])


def create(login: Mapping[str, Any], seed: int) -> bool:
    """Make the database with its tables and first rows, unless it is there; says whether it was made now."""
    connection = pymysql.connect(**login, charset="utf8mb4", autocommit=True)
    try:
        with connection.cursor() as cursor:
            if cursor.execute("SHOW DATABASES LIKE 'hiring'"):
                return False
            cursor.execute("CREATE DATABASE hiring CHARACTER SET utf8mb4")
            cursor.execute("USE hiring")
            text = files("chronicle.dev").joinpath("demo_hiring.sql").read_text(encoding="utf-8")
            text = "\n".join(line.partition("--")[0] for line in text.splitlines())
            for statement in filter(str.strip, text.split(";")):
                cursor.execute(statement)
            chosen = random.Random(f"{seed} hiring rows")  # noqa: S311  (repeatable on purpose)
            cursor.executemany(
                "INSERT INTO campaigns (title, budget, opens_on, settings) VALUES (%s, %s, %s, %s)",
                [
                    (f"Engineers {year} – Zürich", 12_000 + year / 100, f"{year}-02-28", '{"channel":"fair"}')
                    for year in range(2020, 2025)
                ],
            )
            insert_candidates(cursor, list(range(1, SEEDED_CANDIDATES + 1)), chosen)
            cursor.executemany(
                "INSERT INTO applications (campaign_id, candidate_id, applied_at) VALUES (%s, %s, %s)",
                [(campaign, campaign, OPENING) for campaign in range(1, SEEDED_CAMPAIGNS + 1)],
            )
    finally:
        connection.close()
    return True


def insert_candidates(cursor: Cursor, numbers: list[int], chosen: random.Random) -> None:
    """New candidates in one statement."""
    rows = []
    for number in numbers:
        name = chosen.choice(PEOPLE)
        phone = chosen.choice((None, "unlisted", "+33 1 00 00 00 00"))
        rows.append(
            (number, email_of(name, number), name, phone, chosen.randrange(10_000) / 1000, f"{chosen.getrandbits(128):x}")
        )
    cursor.executemany(
        "INSERT INTO candidates (id, email, name, phone, score, api_token) VALUES (%s, %s, %s, %s, %s, %s)", rows
    )


def _column(cursor: Cursor, sql: str) -> list[int]:
    cursor.execute(sql)
    return [row[0] for row in cursor.fetchall()]
