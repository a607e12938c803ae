"""The spill: records on disk in the order in which they came, until whoever they are for has them.

A directory of append-only segments. What `append` has returned for survives `kill -9` and a loss of power; what `forget` has
returned for does not come again. A record that was being written when the process died is cut off; one that the disk
damaged later is passed over and counted. One process at a time has a directory (a lock says so), with any number of threads.

Segment: `<number of its first record>.spill`, of records `magic, CRC-32, length, number, body`; the CRC is over all that
follows it. `forgotten` holds the number of the last record that was delivered, and its CRC; it is written over in place, so
that a full disk does not keep what was delivered from being deleted.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import contextmanager
from pathlib import Path

from chronicle.errors import ChronicleError, ConfigError
from chronicle.journal.spill_format import HEADER_BYTES, number_in, numbered, records_in, written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BYTES_MAX = 1 << 30
SEGMENT_BYTES = 8 << 20

_UNBOUNDED = 1 << 63
_ended_at_the_disk = getattr(os, "fdatasync", os.fsync)


class SpillFull(ChronicleError):
    """The spill holds as much as it may: nothing of these records was kept."""


class SpillLocked(ConfigError):
    """Another process has this spill, or this one has it from before a fork."""


class Spill:
    """Records in one directory, which is made if it is not there (mode 0700, files 0600: records may be personal).

    Args:
        directory: of this spill alone.
        bytes_max: what the segments may hold together, their headers (20 bytes a record) included.
        segment_bytes: a segment that has these (or a quarter of `bytes_max`) takes no more; space comes free by segments.

    Raises:
        SpillLocked: another process has the directory.
        OSError: the directory cannot be read or written.
    """

    def __init__(self, directory: Path | str, *, bytes_max: int = BYTES_MAX, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.directory = Path(directory)
        self.bytes_max = bytes_max
        self._segment_bytes = min(segment_bytes, max(1, bytes_max // 4))
        self._lock = threading.Lock()
        self._inside = 0
        """The thread that has the lock."""
        self._door = threading.RLock()
        self._waiting: list[_Append] = []
        self._fd: int | None = None
        self._cursor: int | None = None
        self._segments: list[_Segment] = []
        self._durable = 0
        self._tail = 0
        """The last number in the last segment."""
        self.forgotten = 0
        """The position up to which everything was delivered."""
        self._damage: dict[int, int] = {}
        self._pid = os.getpid()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_fd: int | None = _locked(self.directory / "lock")
        try:
            self._opened()
        except BaseException:
            self.close()
            raise

    def append(self, records: Sequence[bytes]) -> None:
        """Keep these, in this order, after all that is here: they are on the disk when it returns. All of them, or none.

        Threads that append at the same time share one fsync.

        Raises:
            SpillFull: they do not fit; nothing was kept.
            SpillLocked: the spill is closed, or was opened before a fork.
            OSError: the disk refuses, or this thread is in here already; what comes out later may or may not hold these.
        """
        if not records:
            return
        self._usable()
        if self._inside == threading.get_ident():  # called by a signal's handler, or by the garbage collector
            raise BlockingIOError(errno.EDEADLK, "this thread is at work in the spill")
        mine = _Append(records)
        with self._door:
            self._waiting.append(mine)
        with self._alone():
            if not mine.done:
                self._usable()
                with self._door:
                    group, self._waiting = self._waiting, []
                self._write(group if mine in group else [mine])  # not there: who had taken it was interrupted before it wrote
        if mine.error is not None:
            raise mine.error

    def read(self, *, records_max: int = 500, bytes_max: int = 1 << 20) -> Iterator[tuple[int, list[bytes]]]:
        """What is here and not forgotten, in order: pieces of at most `records_max` records and `bytes_max` bytes (one
        larger record comes alone), each with the position for `forget`. It ends when it has given all there is.

        A piece without records stands for damaged ones: forget it like any other.

        Raises:
            OSError: a segment cannot be read.
        """
        done = self.forgotten
        while done < self._durable:
            segment, stop = self._segment_of(done + 1)
            if segment is None:  # all that is left was never readable
                self._damaged(done + 1, stop - done - 1)
                yield stop - 1, []
                done = stop - 1
                continue
            for position, records in self._pieces(segment, done, stop, records_max, bytes_max):
                yield position, records
                done = position

    def forget(self, position: int) -> None:
        """All records up to this position were delivered: they never come again, and whole segments of them are deleted.

        Raises:
            SpillLocked: the spill is closed, or was opened before a fork.
            OSError: the disk refuses; the records may come again.
        """
        with self._alone():
            self._usable()
            position = min(position, self._durable)
            if position <= self.forgotten:
                return
            assert self._cursor is not None  # noqa: S101 (usable)
            os.pwrite(self._cursor, numbered(position), 0)  # torn it counts as none, and records come again
            _ended_at_the_disk(self._cursor)
            self.forgotten = position
            self._delete_forgotten()

    @property
    def count(self) -> int:
        """Records that are here and not forgotten, damaged ones included."""
        return self._durable - self.forgotten

    @property
    def damaged(self) -> int:
        """Records that this process could not read any more."""
        return sum(self._damage.values())

    def close(self) -> None:
        """Let go of the directory; what is in it stays. In a forked child: of this copy, the parent keeps its own."""
        fds = (self._fd, self._cursor, self._lock_fd)
        self._fd = self._cursor = self._lock_fd = None
        for fd in fds:
            if fd is not None:
                os.close(fd)

    def _opened(self) -> None:
        self._cursor = os.open(self.directory / "forgotten", os.O_RDWR | os.O_CREAT, 0o600)
        self.forgotten = number_in(os.pread(self._cursor, 64, 0))
        os.ftruncate(self._cursor, 0 if not self.forgotten else len(numbered(0)))
        os.pwrite(self._cursor, numbered(self.forgotten), 0)  # it has its room on the disk from now on
        _directory_kept(self.directory)
        self._segments = sorted(
            (
                _Segment(int(path.stem), path, path.stat().st_size)
                for path in self.directory.glob("*.spill")
                if path.stem.isdecimal()
            ),
            key=lambda segment: segment.first,
        )
        last = 0
        if self._segments:
            tail = self._segments[-1]
            last, end = tail.first - 1, 0
            for last, _, end in records_in(tail.path.read_bytes(), tail.first, _UNBOUNDED):  # noqa: B007 (the last counts)
                pass
            if end < tail.size:  # a torn tail
                os.truncate(tail.path, end)
                tail.size = end
            if self.forgotten == 0:
                self.forgotten = self._segments[0].first - 1
        self._durable = max(last, self.forgotten)
        self._tail = last
        self._delete_forgotten()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock:
            self._inside = threading.get_ident()
            try:
                yield
            finally:
                self._inside = 0

    def _usable(self) -> None:
        if self._lock_fd is None or self._pid != os.getpid():
            raise SpillLocked("open the spill again: this one is closed, or was opened before a fork")

    def _write(self, group: list[_Append]) -> None:
        """One write and one fsync for all who wait. Failed: the segment is not written to again, since after a failed fsync
        nobody knows what is on the disk; the numbers are used again by the next segment, which hides what was left there."""
        taken: list[_Append] = []
        texts: list[bytes] = []
        number = self._durable + 1
        free = self.bytes_max - self.bytes
        for one in group:
            one.done = True
            size = sum(map(len, one.records)) + HEADER_BYTES * len(one.records)
            if size > free:
                one.error = SpillFull(f"the spill may hold {self.bytes_max} bytes: raise it, or bring the transport back")
                continue
            free -= size
            taken.append(one)
            for record in one.records:
                texts.append(written(number, record))
                number += 1
        if not taken:
            return
        try:
            self._kept(b"".join(texts))
        except BaseException as error:  # a signal's handler may raise anything while the disk is waited for
            failed = error if isinstance(error, OSError) else InterruptedError(errno.EINTR, "interrupted while it was written")
            for one in taken:
                one.error = failed
            self._abandon()
            if failed is not error:
                raise
        else:
            self._durable = self._tail = number - 1

    def _kept(self, text: bytes) -> None:
        if self._fd is not None and self._segments[-1].size >= self._segment_bytes:
            fd, self._fd = self._fd, None
            os.close(fd)
        if self._fd is not None and not os.fstat(self._fd).st_nlink:
            raise FileNotFoundError(errno.ENOENT, "the spill's directory was deleted")
        if self._fd is None:
            first = self._durable + 1
            path = self.directory / f"{first:020d}.spill"
            if self._segments and self._segments[-1].first == first:
                del self._segments[-1]
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
            self._segments.append(_Segment(first, path, 0))
            _directory_kept(self.directory)
        rest = memoryview(text)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        _ended_at_the_disk(self._fd)
        self._segments[-1].size += len(text)

    def _abandon(self) -> None:
        fd, self._fd = self._fd, None
        if fd is None:
            return
        try:
            os.ftruncate(fd, self._segments[-1].size)
        except OSError:
            pass  # the next segment hides it
        finally:
            os.close(fd)

    def _delete_forgotten(self) -> None:
        kept: list[_Segment] = []
        for at, segment in enumerate(self._segments):
            is_last = at == len(self._segments) - 1
            end = self._tail if is_last else self._segments[at + 1].first - 1
            if end > self.forgotten or (is_last and self._fd is not None and segment.size < self._segment_bytes // 8):
                kept.append(segment)  # the one that is written to is kept while it is small: quiet times make no new file
                continue
            if is_last and self._fd is not None:
                fd, self._fd = self._fd, None
                os.close(fd)
            segment.path.unlink(missing_ok=True)
        self._segments = kept

    def _segment_of(self, number: int) -> tuple[_Segment | None, int]:
        """The segment that this record is in, and the number after its last."""
        with self._alone():
            stop = self._durable + 1
            for segment in reversed(self._segments):
                if segment.first <= number:
                    return segment, stop
                stop = segment.first
            return None, stop

    def _pieces(
        self, segment: _Segment, done: int, stop: int, records_max: int, bytes_max: int
    ) -> Iterator[tuple[int, list[bytes]]]:
        try:
            data = segment.path.read_bytes()
        except FileNotFoundError:
            data = b""
        piece: list[bytes] = []
        size = 0
        expected = done + 1
        for number, body, _ in records_in(data, segment.first, stop):
            if number <= done:
                continue
            if piece and (len(piece) >= records_max or size + len(body) > bytes_max):
                yield expected - 1, piece
                piece, size = [], 0
            if number > expected:
                self._damaged(expected, number - expected)
            piece.append(body)
            size += len(body)
            expected = number + 1
        if expected < stop and self.forgotten < stop - 1:
            self._damaged(expected, stop - expected)
        if expected < stop or piece:
            yield stop - 1, piece

    def _damaged(self, first: int, count: int) -> None:
        self._damage[first] = count

    @property
    def bytes(self) -> int:
        """What the segments hold, headers and forgotten records of unfinished segments included."""
        return sum(segment.size for segment in self._segments)


class _Segment:
    __slots__ = ("first", "path", "size")

    def __init__(self, first: int, path: Path, size: int) -> None:
        self.first = first
        self.path = path
        self.size = size


class _Append:
    """The records of one `append`, and what became of them."""

    __slots__ = ("done", "error", "records")

    def __init__(self, records: Sequence[bytes]) -> None:
        self.records = records
        self.done = False
        self.error: Exception | None = None


def _locked(path: Path) -> int:
    import fcntl

    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise SpillLocked(f"give each process a spill of its own: another one has {path.parent}") from None
        raise
    return fd


def _directory_kept(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
