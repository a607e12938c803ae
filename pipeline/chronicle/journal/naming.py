"""Names that applications put into events: the commit that runs, and actors as URIs."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from urllib.parse import quote

from chronicle.journal import settings

_SAID_BY = ("GIT_COMMIT", "SOURCE_COMMIT", "GITHUB_SHA", "CI_COMMIT_SHA", "HEROKU_SLUG_COMMIT")


@cache
def commit_hash() -> str | None:
    """The commit of the running program, to be said as a tag: what `CHRONICLE_JOURNAL_COMMIT` says, or one of the variables
    that build systems set; else what is checked out where the program lies, from git's own files. None: unknown."""
    said = settings.read().commit or next((os.environ[name] for name in _SAID_BY if os.environ.get(name)), None)
    if said:
        return said
    start = Path(sys.argv[0] if sys.argv and sys.argv[0] not in ("", "-c", "-m") else ".").resolve()
    for directory in (start, *start.parents):
        git = directory / ".git"
        try:
            if git.is_file():  # a work tree: the file names the place
                git = (directory / git.read_text().partition("gitdir:")[2].strip()).resolve()
            if (git / "HEAD").is_file():
                return _head(git)
        except OSError:
            return None
    return None


def _head(git: Path) -> str | None:
    text = (git / "HEAD").read_text().strip()
    name = text.partition("ref:")[2].strip()
    if not name:
        return text or None
    common = git / "commondir"
    places = [git, (git / common.read_text().strip()).resolve()] if common.is_file() else [git]
    for place in places:
        if (place / name).is_file():
            return (place / name).read_text().strip() or None
        packed = place / "packed-refs"
        if packed.is_file():
            for line in packed.read_text().splitlines():
                commit, _, ref = line.partition(" ")
                if ref == name:
                    return commit
    return None


def actor_uri(type: str, id: object, *, authority: str = "") -> str:
    """An actor's id that is one over all applications: `actor_uri("user", 7, authority="shop.example.com")` is
    `chronicle://shop.example.com/user/7`. Parts are percent-encoded; without an authority it is `chronicle:///user/7`.

    Raises:
        ValueError: a part is empty.
    """
    if not type or str(id) == "":
        raise ValueError("an actor has a type and an id")
    return f"chronicle://{quote(authority, safe=':')}/{quote(type, safe='')}/{quote(str(id), safe='')}"
