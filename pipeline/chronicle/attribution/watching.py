"""What must be said before a statement, decided without a driver: the adapters run what `Watch` asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chronicle.attribution import context
from chronicle.attribution.context import AttributionError
from chronicle.attribution.statements import Dialect, Statement, read

_REMEMBERED = "chronicle.said"
"""A Postgres setting local to the transaction: it goes with a rollback to a savepoint exactly when the message does."""


@dataclass(frozen=True, slots=True)
class Block:
    """One `with attribute(…)`, as it was written."""

    fields: Mapping[str, Any] = field(repr=False)
    comment: bool | None
    table: str | None
    selects_write: bool | None


@dataclass(frozen=True, slots=True)
class Voice:
    """A block merged with those around it on one connection: what is to be said, ready to be sent."""

    block: Block
    """With all that it takes over from outside."""
    text: str = field(repr=False)
    token: str

    @property
    def comment(self) -> str | None:
        """What stands before each write; None: the transaction is told instead."""
        return context.as_comment(self.text) if self.block.comment else None


@dataclass(frozen=True, slots=True)
class Step:
    """What to do about one statement. `say` first; then the statement; then `Watch.after`."""

    statement: Statement
    say: Voice | None = None
    """When no transaction is open and the database would commit the statement by itself: open one around both, or raise."""
    comment: str | None = None


class Watch:
    """The blocks on one connection, and what its present transaction has been told.

    Protocol: `before` for each statement; when the step has `say`, run `message` or `row` in the same transaction and call
    `heard`; then the statement; then `after`. A statement that failed is one for which `after` was not called. `forget`
    whenever the transaction may be another. Forgetting too often costs a round trip (Postgres says a thing once all the
    same) or a second row (MySQL); forgetting too seldom would lose a context.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.voices: list[Voice] = []
        self.speaking = False
        """Set by an adapter while it runs what it was asked to say: that is not to be watched."""
        self._said: tuple[Voice, ...] | None = None
        self._savepoints: list[str] = []
        """Set since it was said: a rollback to one of them takes nothing back."""
        self._pending = False

    def enter(self, block: Block) -> Voice:
        """The block's voice, to be given back to `leave`.

        Raises:
            ContextRefused: too long, together with what it takes over.
            AttributionError: an option that this database does not have.
        """
        if self.voices:
            outer = self.voices[-1].block
            block = Block(
                context.merged(outer.fields, block.fields),
                outer.comment if block.comment is None else block.comment,
                block.table or outer.table,
                outer.selects_write if block.selects_write is None else block.selects_write,
            )
        if self.dialect == "postgres" and (block.comment or block.table):
            raise AttributionError("leave out `comment` and `table` on Postgres: a message in its log says it, without either")
        if block.comment and context.AUDIT_TAG in block.fields.get("tags", {}):
            raise AttributionError("say `audit` without `comment`: a comment is about a statement, this about a transaction")
        if block.table is not None:
            context.quoted_table(block.table)
        text = context.written(block.fields, comment=bool(block.comment))
        voice = Voice(block, text, context.token(text))
        self.voices.append(voice)
        return voice

    def leave(self, voice: Voice) -> None:
        """End of a block; those around it speak again."""
        self.voices = [one for one in self.voices if one is not voice]

    def concerned(self, statement: Statement) -> bool:
        """Whether it may write, as the innermost block sees it."""
        return statement.writes or bool(statement.queries and self.voices and self.voices[-1].block.selects_write)

    def forget(self) -> None:
        """The transaction may be another, or may have lost what it was told."""
        self._said = None

    def heard(self) -> None:
        """What a step asked to say has been said, in this transaction."""
        self._said = tuple(self.voices)
        self._savepoints.clear()

    def before(self, sql: str, *, several: bool = True, backslashes: bool = True) -> Step:
        """What to do about a statement; call `forget` first when no transaction is open.

        Args:
            sql: its text.
            several: the server may take several statements in one call.
            backslashes: MySQL: a backslash escapes in literals.

        Raises:
            AttributionError: it cannot be attributed as it is.
        """
        if self.speaking or not self.voices:
            return Step(Statement())
        if self._pending:
            self.forget()  # the last statement failed, and who knows what it took with it
        self._pending = True
        voice = self.voices[-1]
        statement = read(sql, self.dialect, several=several, backslashes=backslashes)
        if not self.concerned(statement):
            return Step(statement)
        if statement.mixed:
            raise AttributionError(
                "call COMMIT, BEGIN and savepoints apart from what writes: one string with both has no place for a context"
            )
        if voice.comment is not None:
            if statement.several:
                raise AttributionError("send one statement a call: of several only the first keeps its comment")
            return Step(statement, comment=voice.comment)
        return Step(statement, say=None if self._covered() else voice)

    def after(self, step: Step) -> None:
        """The statement went through."""
        if self.speaking or not self.voices:
            return
        self._pending = False
        statement = step.statement
        if statement.ends:
            self.forget()
        if statement.savepoint is not None:
            self._savepoints.append(statement.savepoint)
        if statement.rollback_to is not None:
            if statement.rollback_to in self._savepoints:
                del self._savepoints[self._savepoints.index(statement.rollback_to) + 1 :]
            else:
                self.forget()

    def message(self, voice: Voice, marks: tuple[str, str, str] = ("%s", "%s", "%s")) -> tuple[str, tuple[str, str, str]]:
        """Postgres: the statement that says it once a transaction, and its parameters in the order of the placeholders.

        A message of the same transaction that said this block, or one inside it, is enough; the setting knows.
        """
        content, tokens, token = marks
        sql = (
            f"SELECT pg_logical_emit_message(true, 'chronicle', CAST({content} AS text)), "
            f"set_config('{_REMEMBERED}', CAST({tokens} AS text), true) "
            f"WHERE position(CAST({token} AS text) IN coalesce(current_setting('{_REMEMBERED}', true), '')) = 0"
        )
        return sql, (voice.text, " ".join(one.token for one in self.voices), voice.token)

    def row(self, voice: Voice, content: str = "%s") -> tuple[str, tuple[str]]:
        """MySQL: the statement that writes the row, and its parameter."""
        table = context.quoted_table(voice.block.table or context.CONTEXT_TABLE)
        return f"INSERT INTO {table} (context) VALUES ({content})", (voice.text,)  # noqa: S608  # a checked name

    def _covered(self) -> bool:
        """This block, or one that was open inside it, has been said: going outward nothing needs to be said again."""
        return self._said is not None and self._said[: len(self.voices)] == tuple(self.voices)


def commented(sql: str, comment: str, *, many: bool = False) -> str:
    """The statement with its comment.

    many: behind the first word, because drivers know a batch of rows by a text that begins with INSERT.
    """
    if many:
        word, rest = sql.lstrip()[:7], sql.lstrip()[7:].lstrip()
        if word.upper() in ("INSERT ", "REPLACE") and not rest.startswith("/*"):  # a hint must stay next to its word
            return f"{word.rstrip()} {comment}{rest}"
    return comment + sql
