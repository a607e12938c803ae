"""Where e-mail addresses, IP addresses, IBANs, card and phone numbers stand in a text. Each search takes time linear in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import AddressValueError, IPv6Address

Span = tuple[int, int]
"""Start and end in the text; the spans of a search are in order and do not overlap."""

# E-mail -------------------------------------------------------------------------------------------------------------

_LOCAL = r"[\w.!#$%&'*+/=?^`{|}~-]{1,128}+"
_EMAIL = re.compile(
    rf"""(?:"[^"\r\n]{{1,128}}+"|{_LOCAL})@(?:[\w-]++(?:\.[\w-]++)++|\[[0-9A-Fa-f:.]{{3,45}}+\])""",
)


def emails(text: str) -> list[Span]:
    """Addresses with a dot in their domain, or an IP address in brackets."""
    return [found.span() for found in _EMAIL.finditer(text)] if "@" in text else []


# IP -----------------------------------------------------------------------------------------------------------------

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"(?<![0-9])(?<![0-9]\.){_OCTET}(?:\.{_OCTET}){{3}}(?![0-9]|\.[0-9])")
_COLONS = re.compile(r"[0-9A-Fa-f:.]{2,}+")
_IPV6_CHARACTERS_MAX = 47


def ips(text: str) -> list[Span]:
    """IPv4 in four decimal numbers (a version such as 1.2.3.4 looks the same), IPv6 in all its forms."""
    spans = [found.span() for found in _IPV4.finditer(text)]
    return _apart([*_ipv6(text), *spans]) if ":" in text else spans


def _ipv6(text: str) -> Iterator[Span]:
    for found in _COLONS.finditer(text):
        start, end = found.span()
        if text.count(":", start, end) < 2:
            continue
        if text[start] == ":" and text[start + 1] != ":":
            start += 1
        elif start and text[start - 1].isalnum():
            continue
        while end > start and (text[end - 1] == "." or (text[end - 1] == ":" and text[end - 2] != ":")):
            end -= 1
        beside = end == found.end() and end < len(text) and text[end].isalnum()
        if not beside and end - start <= _IPV6_CHARACTERS_MAX and _is_ipv6(text[start:end]):
            yield start, end


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return len(text) > 2  # `::` alone is nobody's


def _apart(spans: Sequence[Span]) -> list[Span]:
    """In order, of two that overlap the first."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda one: (one[0], -one[1])):
        if not kept or span[0] >= kept[-1][1]:
            kept.append(span)
    return kept


# IBAN ---------------------------------------------------------------------------------------------------------------

_REGISTRY = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 "
    "FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 "
    "LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 "
    "RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
)
_LENGTHS = {one[:2]: int(one[2:]) for one in _REGISTRY.split()}
"""Characters of an IBAN by country (SWIFT's registry)."""
_IBAN = re.compile(r"(?<![0-9A-Za-z])[A-Za-z]{2}[0-9]{2}(?=[ -]?[0-9A-Za-z])")
_PART = re.compile(r"[ -]?([0-9A-Za-z])")


def ibans(text: str) -> list[Span]:
    """Account numbers of the registry's countries with a right check sum; single spaces or dashes between, any case."""
    spans: list[Span] = []
    for found in _IBAN.finditer(text):
        start = found.start()
        length = _LENGTHS.get(found.group()[:2].upper())
        if length is None or (spans and start < spans[-1][1]):
            continue
        characters = list(found.group())
        end = found.end()
        while len(characters) < length and (part := _PART.match(text, end)):
            characters.append(part[1])
            end = part.end()
        whole = len(characters) == length and not (end < len(text) and text[end].isascii() and text[end].isalnum())
        if whole and _checked("".join(characters)):
            spans.append((start, end))
    return spans


def _checked(iban: str) -> bool:
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97 == 1


# Digits in groups ---------------------------------------------------------------------------------------------------

_GROUP = re.compile(r"[0-9]++")
_BETWEEN = r"[ ().\-/]"
_SEPARATOR = re.compile(_BETWEEN + "{0,3}+")
_GROUPS_MAX = 9


def _groups(text: str, at: int) -> list[Span]:
    """The groups of digits from this place on, at most three separators between them."""
    groups: list[Span] = []
    while len(groups) < _GROUPS_MAX and (found := _GROUP.match(text, at)):
        groups.append(found.span())
        separator = _SEPARATOR.match(text, found.end())
        at = separator.end() if separator else found.end()
    return groups


_CARD = re.compile(r"(?<![0-9])(?:[3-6][0-9]|2[2-7])[0-9]")
"""First digits of all networks' card numbers; 1 would be airlines, and every timestamp."""
_CARD_DIGITS = (13, 19)
_CARD_GROUP_MIN = 3


def cards(text: str) -> list[Span]:
    """13 to 19 digits with a right check digit (Luhn), whole or in groups of three and more (the last may be shorter)."""
    spans: list[Span] = []
    for found in _CARD.finditer(text):
        start = found.start()
        if not spans or start >= spans[-1][1]:
            end = _card_end(text, _groups(text, start))
            if end:
                spans.append((start, end))
    return spans


def _card_end(text: str, groups: list[Span]) -> int:
    """Where the longest card number that begins with these groups ends; 0: there is none."""
    digits, best = "", 0
    for index, (start, end) in enumerate(groups):
        apart = start - groups[index - 1][1] if index else 0
        if len(digits) + end - start > _CARD_DIGITS[1] or apart > 1:
            break
        digits += text[start:end]
        if len(digits) >= _CARD_DIGITS[0] and _luhn(digits):
            best = end
        if end - start < _CARD_GROUP_MIN:
            break
    return best


_DOUBLED = str.maketrans("0123456789", "0246813579")


def _luhn(digits: str) -> bool:
    return (sum(map(int, digits[-1::-2])) + sum(map(int, digits[-2::-2].translate(_DOUBLED)))) % 10 == 0


# Phone --------------------------------------------------------------------------------------------------------------

_PHONE = re.compile(
    rf"""(?P<abroad>\+\(?|\(\+)(?=[0-9])
    |(?<![0-9])\(?(?:
        (?P<zeros>)(?=00[1-9])
        |(?P<national>)(?=0[1-9])
        |(?P<american>(?:1{_BETWEEN}{{1,3}})?[2-9][0-9]{{2}}{_BETWEEN}{{1,3}}[0-9]{{3}}{_BETWEEN}{{1,3}}[0-9]{{4}})(?![0-9])
    )""",
    re.VERBOSE,
)
"""Where a number may begin; an American one is whole."""
_DATE = re.compile(r"[0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{4}(?![0-9])")
_ABROAD_DIGITS = (7, 15)  # E.164
_NATIONAL_DIGITS = (9, 12)
_NATIONAL_GROUPS_MAX = 5


def phones(text: str) -> list[Span]:
    """Numbers with + or 00, national ones with a leading 0, and American ones in their grouping."""
    spans: list[Span] = []
    for found in _PHONE.finditer(text):
        if not spans or found.start() >= spans[-1][1]:
            end = _phone_end(text, found.end(), found.lastgroup or "")
            if end:
                spans.append((found.start(), end))
    return spans


def _phone_end(text: str, at: int, kind: str) -> int:
    if kind == "american":
        return at
    if kind == "abroad":
        return _longest(_groups(text, at), *_ABROAD_DIGITS, least=1)
    if kind == "zeros":
        return _longest(_groups(text, at), _ABROAD_DIGITS[0] + 2, _ABROAD_DIGITS[1] + 2, least=1)
    return 0 if _DATE.match(text, at) else _longest(_groups(text, at)[:_NATIONAL_GROUPS_MAX], *_NATIONAL_DIGITS, least=2)


def _longest(groups: list[Span], low: int, high: int, *, least: int) -> int:
    """Where the most groups with so many digits together end; each has at least `least`. 0: there are none."""
    total, best = 0, 0
    for start, end in groups:
        total += end - start
        if total > high or end - start < least:
            break
        if total >= low:
            best = end
    return best


FINDERS: Mapping[str, Callable[[str], list[Span]]] = {
    "email": emails,
    "ip": ips,
    "iban": ibans,
    "card": cards,
    "phone": phones,
}
"""By kind, in the order of the search: what is found first is not looked at as another kind."""
