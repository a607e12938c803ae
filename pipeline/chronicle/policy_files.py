"""The policy and the key ring as files: the only reader of either, and the writer of keys."""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from chronicle import config
from chronicle.errors import ConfigError
from chronicle.policy.file import Policy, parse
from chronicle.policy.keyring import EMPTY, KeyRing, Purpose, entry

BYTES = {Purpose.TOKEN: 32, Purpose.ENCRYPT: 64}
"""HMAC-SHA256's own size; AES-SIV with two keys of 256 bits."""
_HEAD = "# Keys of Chronicle's tokens and encryption. Keep a copy in a safe place: what a lost key encrypted is lost.\n"


def read_policy(path: Path) -> Policy:
    """The policy in a file.

    Raises:
        ConfigError: there is none, or something in it is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"write a policy first, as with `chronicle policy init`: there is no {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"make {path} readable: {type(error).__name__}") from None
    return parse(text, name=str(path))


def read_key_ring(settings: config.Settings, file: Path | None = None) -> KeyRing:
    """The keys there are: those of the file given, else of the environment, else of the settings' file; none without one.

    Raises:
        ConfigError: something in the key ring is wrong; never shows a secret.
    """
    if file is None and settings.key_ring is not None:
        return KeyRing.parse(settings.key_ring.get_secret_value(), name="CHRONICLE_KEY_RING")
    path = file or settings.key_ring_file
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return EMPTY
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"make {path} readable: {type(error).__name__}") from None
    return KeyRing.parse(text, name=str(path))


def add_key(path: Path, id: str, purpose: Purpose, now: datetime) -> None:
    """Make a random key and append it to the key ring, a file that only its owner can read.

    Raises:
        ConfigError: there is a key of this id, or the file cannot be read or written.
    """
    with _alone(path):
        _append(path, id, purpose, now)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No other command adds a key meanwhile: one of the two would be lost."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"make {path.parent} a directory you can write to: {type(error).__name__}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _append(path: Path, id: str, purpose: Purpose, now: datetime) -> None:
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else _HEAD
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"make {path} readable: {type(error).__name__}") from None
    if id in KeyRing.parse(before, name=str(path)).keys:
        raise ConfigError(f"choose another id: the key ring has {id} already, and a key is never replaced")
    text = f"{before.rstrip()}\n\n{entry(id, purpose, secrets.token_bytes(BYTES[purpose]), now)}"
    KeyRing.parse(text, name=str(path))  # a second key of this purpose in one second would leave open which is newer
    _replace(path, text)


def _replace(path: Path, text: str) -> None:
    """Write the file whole or not at all, for its owner only."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"make {path} writable: {type(error).__name__}") from None
