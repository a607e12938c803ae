"""Whose rights the databases run with: Postgres and MariaDB refuse to run as root."""

from __future__ import annotations

import hashlib
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from chronicle.errors import StackError


@dataclass(frozen=True)
class Account:
    """A system account that a database drops to."""

    name: str
    uid: int
    gid: int

    def prefix(self) -> list[str]:
        """The start of a command line that runs the rest with this account's rights (same process, no shell)."""
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]

    def can_traverse(self, directory: Path) -> bool:
        """Whether every existing directory on the way lets this account through."""
        for step in (directory, *directory.parents):
            if not step.exists():
                continue
            status = step.stat()
            owner = status.st_uid == self.uid and status.st_mode & 0o100
            group = status.st_gid == self.gid and status.st_mode & 0o010
            if not (owner or group or status.st_mode & 0o001):
                return False
        return True


def database_account(name: str) -> Account | None:
    """The account for a database when this process is root; None for an ordinary user, who runs it as himself.

    Raises:
        StackError: root, and the account is missing (the distribution's server package creates it).
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise StackError(f"install the database's package, which creates the account '{name}' (make demo does it)") from None
    return Account(name, entry.pw_uid, entry.pw_gid)


def database_home(directory: Path, part: str, account: Account | None) -> Path:
    """Where a database keeps its files: in the state directory, or in /var/lib when its account cannot get there.

    A checkout below /root (mode 0700) is the usual case for the second. The path follows from the state directory,
    so that `reset` finds it again.
    """
    home = directory / part
    if account is None or account.can_traverse(directory):
        return home
    digest = hashlib.blake2b(str(directory).encode(), digest_size=6).hexdigest()
    return Path("/var/lib/chronicle-dev") / digest / part
