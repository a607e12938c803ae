"""Which names look like secrets, so that their values are redacted although nobody classified them."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

SECRET_WORDS = frozenset(
    {
        *("password", "passwd", "passwort", "passphrase", "passcode", "pwd", "pw", "pin", "otp", "totp"),
        *("secret", "secrets", "token", "tokens", "credential", "credentials", "apikey", "authtoken"),
        *("accesskey", "accesstoken", "refreshtoken", "privatekey", "secretkey", "jwt"),
        *("ssn", "cvv", "cvc", "cardnumber", "creditcard"),
    }
)
"""A name with one of these words is a secret wherever the word stands (`user_password_old`)."""

SECRET_PHRASES = (
    ("api", "key"),
    ("access", "key"),
    ("private", "key"),
    ("encryption", "key"),
    ("signing", "key"),
    ("card", "number"),
    ("card", "no"),
    ("card", "num"),
    ("credit", "card"),
    ("social", "security"),
    ("security", "code"),
    ("auth", "key"),
    ("recovery", "code"),
)
"""Words that make a secret only side by side."""

SECRET_SUFFIXES = frozenset({"crypt", "encrypted", "hmac", "digest"})
"""Last words that mark a value derived from a secret (`ssn_hmac`); alone, such a word is a name like any other."""

_EMBEDDED = ("password", "passwd", "passphrase")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")


def words(name: str) -> tuple[str, ...]:
    """The lower-case words of a snake_case, kebab-case or camelCase name: `cardNumber` → card, number."""
    return tuple(word.lower() for word in _WORD.findall(name))


def _singular(word: str) -> str:
    """`keys` is as secret as `key`."""
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


@lru_cache(maxsize=65_536)
def looks_secret(name: str) -> bool:
    """Whether the values under this name are redacted: case does not matter, only whole words count."""
    parts = tuple(_singular(word) for word in words(name) if not word.isdigit())
    if any(word in SECRET_WORDS or any(embedded in word for embedded in _EMBEDDED) for word in parts):
        return True
    if len(parts) > 1 and parts[-1] in SECRET_SUFFIXES:
        return True
    return any(pair in SECRET_PHRASES for pair in pairwise(parts))
