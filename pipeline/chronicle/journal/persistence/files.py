"""Events in files: one JSON object a line, rotated by size and age, compressed, kept for so long.

A directory holds, for each process that writes,

- `events-<time>-<pid>-<number>.open.ndjson`: being written; locked by its writer as long as that lives;
- `events-….ndjson.gz`: complete, never written again. It appears whole: it is compressed beside (`.part`), synced, and renamed.

A process that is killed leaves its open file, whose last line may be torn: whoever starts next in the directory cuts the torn
line (nobody was told that it is kept) and completes the file. Times in names are UTC and sort.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chronicle.errors import ConfigError
from chronicle.journal.transports import TransportAway

if TYPE_CHECKING:
    from chronicle.journal.outgoing import Outgoing

OPEN = ".open.ndjson"
COMPLETE = ".ndjson"
COMPRESSED = ".ndjson.gz"
PART = ".part"
FILE_BYTES_MAX = 64 * 1024 * 1024
FILE_AGE_MAX_S = 24 * 3600.0
_DAY_S = 24 * 3600.0
_IN_URL: Mapping[str, Callable[[int], Any]] = {
    **{"file_bytes_max": int, "file_age_max_s": float, "compress": bool},
    **{"keep_bytes_max": int, "keep_days_max": float, "keep_files_max": int},
}


class EventFiles:
    """A transport to files. Durable: `send` returns when the lines are on the disk (fsync). Safe in threads and after forks.

    Args:
        directory: made when it is not there; may be shared by processes of one machine (not over a network file system).
        file_bytes_max: a file is completed before it grows beyond this; one event larger than that has a file of its own.
        file_age_max_s: and when it is so old, at the next event (or `rotate`).
        compress: complete files by gzip.
        keep_bytes_max, keep_days_max, keep_files_max: the oldest complete files beyond any of them are deleted; None: kept.

    Raises:
        ConfigError: the directory cannot be made or written.
    """

    name = "files"
    durable = True

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        file_bytes_max: int = FILE_BYTES_MAX,
        file_age_max_s: float = FILE_AGE_MAX_S,
        compress: bool = True,
        keep_bytes_max: int | None = None,
        keep_days_max: float | None = None,
        keep_files_max: int | None = None,
    ) -> None:
        self.directory = Path(directory)
        self._bytes_max, self._age_max_s, self._compress = file_bytes_max, file_age_max_s, compress
        self._keep = (keep_bytes_max, keep_days_max, keep_files_max)
        self._lock = threading.Lock()
        self._file: FileIO | None = None
        self._path = Path()
        self._born, self._size, self._number, self._pid = 0.0, 0, 0, os.getpid()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._complete_orphans()
            self._retain()
        except OSError as error:
            raise ConfigError(f"make {self.directory} a directory that can be written ({type(error).__name__})") from None

    def send(self, batch: Sequence[Outgoing]) -> Sequence[str | None]:
        """Append the events and sync. An event sent again stands there again: readers take the id.

        The call that completes a file compresses it first.

        Raises:
            TransportAway: the disk is full or refuses; the batch is to be sent again.
        """
        lines = [outgoing.text + b"\n" for outgoing in batch]
        with self._lock:
            at = 0
            while at < len(lines):
                at = self._append(lines, at)
        return [None] * len(batch)

    def rotate(self) -> None:
        """Complete the file that is being written, if there is one. Raises as `send`."""
        with self._lock:
            try:
                self._finish()
            except OSError as error:
                raise _away(error) from None

    def close(self) -> None:
        """As `rotate`; a later `send` begins a new file."""
        self.rotate()

    def forked(self) -> None:
        """The journal calls it in a child of fork: the file is the parent's, and nobody here holds the lock."""
        self._lock, self._file, self._pid = threading.Lock(), None, os.getpid()

    def _append(self, lines: Sequence[bytes], at: int) -> int:
        """Write from `at` on what the file still takes; the index after it."""
        try:
            if self._file is not None and (
                self._size + len(lines[at]) > self._bytes_max or time.monotonic() - self._born > self._age_max_s
            ):
                self._finish()
            file = self._file or self._begin()
        except OSError as error:
            raise _away(error) from None
        taken, size = 0, self._size
        for line in lines[at:]:
            if taken and size + len(line) > self._bytes_max:
                break
            taken, size = taken + 1, size + len(line)
        try:
            rest = memoryview(b"".join(lines[at : at + taken]))
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError as error:
            self._abandon(file)
            raise _away(error) from None
        self._size = size
        return at + taken

    def _abandon(self, file: FileIO) -> None:
        """After a failed write: cut what of it is there, and go on in a new file."""
        self._file = None
        with contextlib.suppress(OSError):
            file.truncate(self._size)
        file.close()  # unlocked, it is completed with the next one

    def _begin(self) -> FileIO:
        while True:
            moment = datetime.fromtimestamp(time.time(), UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            self._number += 1
            path = self.directory / f"events-{moment}-{self._pid}-{self._number:06d}{OPEN}"
            file = FileIO(path, "xb")
            fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists():  # not completed by another process between the two
                break
            file.close()
        _sync_directory(self.directory)
        self._file, self._path, self._born, self._size = file, path, time.monotonic(), 0
        return file

    def _finish(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            self._complete(self._path)
        finally:
            file.close()  # gives the lock up
        self._complete_orphans()
        self._retain()

    def _complete(self, path: Path) -> None:
        """The open file, whose lock is held here, as a complete one."""
        if path.stat().st_size == 0:
            path.unlink()
            return
        whole = path.with_name(path.name.removesuffix(OPEN) + (COMPRESSED if self._compress else COMPLETE))
        if not self._compress:
            path.rename(whole)
        else:
            part = whole.with_name(whole.name + PART)
            with path.open("rb") as source, part.open("wb") as target:
                with gzip.GzipFile(filename="", mode="wb", fileobj=target, mtime=0) as packed:
                    shutil.copyfileobj(source, packed, 1 << 20)
                target.flush()
                os.fsync(target.fileno())
            part.rename(whole)
            _sync_directory(self.directory)
            path.unlink()
        _sync_directory(self.directory)

    def _complete_orphans(self) -> None:
        """Files whose writer has ended: their lock can be had."""
        for path in sorted(self.directory.glob(f"events-*{OPEN}")):
            with contextlib.suppress(FileNotFoundError), FileIO(path, "r+b") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                if path.exists():
                    file.truncate(_end_of_last_line(file))
                    self._complete(path)

    def _retain(self) -> None:
        bytes_max, days_max, files_max = self._keep
        now, total, count = time.time(), 0, 0
        for path in sorted(complete_files(self.directory), reverse=True):
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                total, count = total + found.st_size, count + 1
                if (
                    (bytes_max is not None and total > bytes_max)
                    or (days_max is not None and now - found.st_mtime > days_max * _DAY_S)
                    or (files_max is not None and count > files_max)
                ):
                    path.unlink()


def complete_files(directory: Path) -> list[Path]:
    """Files that are not written any more, the oldest first."""
    found = [*directory.glob(f"events-*{COMPLETE}"), *directory.glob(f"events-*{COMPRESSED}")]
    return sorted(path for path in found if not path.name.endswith(OPEN))


def read(directory: str | os.PathLike[str]) -> Iterator[bytes]:
    """Every event of the directory as JSON, file by file, the oldest first; of open files what is complete."""
    place = Path(directory)
    for path in sorted([*complete_files(place), *place.glob(f"events-*{OPEN}")]):
        with contextlib.suppress(FileNotFoundError), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1]


def _end_of_last_line(file: FileIO) -> int:
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65_536)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _away(error: OSError) -> TransportAway:
    return TransportAway(f"make room for the journal's files, or let them be written ({type(error).__name__} {error.errno})")


def opened(url: str, settings: object) -> EventFiles:  # noqa: ARG001 (a scheme's function)
    """`file:///directory`, with the numbers among the arguments after a question mark: `?keep_days_max=30&compress=0`.

    Raises:
        ConfigError: no such argument, not a number, or as `EventFiles`.
    """
    from urllib.parse import parse_qsl, unquote, urlsplit

    parts = urlsplit(url)
    given = parse_qsl(parts.query)
    if not parts.path or parts.netloc or not all(name in _IN_URL and value.isdecimal() for name, value in given):
        raise ConfigError(f"write file:///directory, with numbers of {', '.join(_IN_URL)} after a ?")
    return EventFiles(unquote(parts.path), **{name: _IN_URL[name](int(value)) for name, value in given})
