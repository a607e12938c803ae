"""One spill directory for all processes of an application: each takes a part of its own, and those that nobody has any more
are taken over."""

from __future__ import annotations

import os
from pathlib import Path

from chronicle.errors import ChronicleError
from chronicle.journal.outgoing import Outgoing
from chronicle.journal.spill import Spill, SpillLocked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chronicle.journal.counting import Counting

PARTS_MAX = 4_096
REFUSED = "refused"


class Spilling:
    """`<directory>/<number>` is one process's spill, `<directory>/<number>/refused` what the transport refused for good: the
    reason in a line of its own, then the record. Parts that another user has are left alone.

    Raises:
        SpillLocked: more processes than parts.
        OSError: the directory cannot be used.
    """

    def __init__(self, directory: Path | str, *, bytes_max: int) -> None:
        self.directory = Path(directory)
        self._bytes_max = bytes_max
        self.own = self._taken()
        self._refused: Spill | None = None

    def keep_refused(self, record: bytes, problem: str) -> None:
        """What the transport refuses is kept beside the rest, for people to look at (`chronicle events refused`).

        Raises:
            SpillFull, OSError: as `Spill.append`.
        """
        if self._refused is None:
            self._refused = Spill(self.own.directory / REFUSED, bytes_max=self._bytes_max)
        self._refused.append([" ".join(problem.split()).encode(errors="replace") + b"\n" + record])

    def left_by_others(self, tell: Callable[[Exception], None]) -> Iterator[Spill]:
        """Spills of processes that are gone, with something in them. Each is closed when the next one is asked for.

        Args:
            tell: of those that cannot be used, which are passed over.
        """
        for path in parts(self.directory):
            if path == self.own.directory:
                continue
            try:
                spill = Spill(path, bytes_max=self._bytes_max)
            except SpillLocked:
                continue
            except OSError as error:
                tell(error)
                continue
            try:
                if spill.count:
                    yield spill
            finally:
                spill.close()

    def close(self) -> None:
        """Let go; in a forked child, of its copy."""
        self.own.close()
        if self._refused is not None:
            self._refused.close()

    def _taken(self) -> Spill:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(PARTS_MAX):
            path = self.directory / str(number)
            try:
                return Spill(path, bytes_max=self._bytes_max)
            except SpillLocked:
                continue
            except PermissionError:
                if not path.exists():  # it is the directory itself that does not let us in
                    raise
        raise SpillLocked(f"process {os.getpid()}: all {PARTS_MAX} parts of the spill are taken")


def parts(directory: Path) -> list[Path]:
    """The processes' parts of a spill directory, the oldest numbers first."""
    found = [path for path in directory.iterdir() if path.name.isdecimal() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


def readable(records: Sequence[bytes], counting: Counting) -> list[Outgoing]:
    """The events in records; what is none is counted as damaged."""
    found: list[Outgoing] = []
    for record in records:
        try:
            found.append(Outgoing.read(record))
        except ChronicleError as error:
            counting.add("damaged")
            counting.tell(error)
    return found
