"""Personal and secret things in a text: e-mail addresses, telephone numbers, public IP addresses, payment cards, keys.

Precision comes before recall where a false alarm would damage code and mathematics: a number needs the form of a telephone number,
not its digits only; a card passes Luhn's check and belongs to an issuer.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from abruzzi.contracts.curation import PrivacyConfig

_EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9](?:[\w.+-]{0,62}[\w+-])?@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}\b"
)
_EXAMPLE_DOMAINS = ("example.com", "example.org", "example.net", "example.edu")
"""RFC 2606: nobody's."""
_PHONE = re.compile(
    r"(?<![\w.+/-])(?:"
    r"\+[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,5}"  # +49 30 1234567
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}"  # (212) 555-0123
    r"|(?:1[ .-])?[2-9]\d{2}([ .-])[2-9]\d{2}\1\d{4}"  # 212-555-0123
    r")(?![\w.-]*\d)"
)
_PHONE_DIGITS = range(8, 16)
_IP = re.compile(r"(?<![\w.:])(?:(?:\d{1,3}\.){3}\d{1,3}|(?:[0-9a-fA-F]{0,4}:){3,7}[0-9a-fA-F]{0,4})(?![\w:]|\.\d)")
_CARD = re.compile(r"(?<![\w.-])(?:\d[ -]?){12,18}\d(?![\w-]|\.\d)")
_ISSUER = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|6(?:011|5\d\d)\d{12}|35\d{14}|3(?:0[0-5]|[68]\d)\d{11}"
)
_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----(?:[\s\S]{0,8192}?-----END (?:[A-Z0-9]+ )*PRIVATE KEY-----)?"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{36,255}\b|\bgithub_pat_[A-Za-z0-9_]{60,255}\b"
    r"|\bglpat-[A-Za-z0-9_-]{20,}"
    r"|\bxox[abeprs]-[A-Za-z0-9-]{10,}"
    r"|\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}"
    r"|\bAIza[0-9A-Za-z_-]{35}\b"
    r"|\b[rs]k_live_[0-9A-Za-z]{20,}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}"
)


def mask(text: str, config: PrivacyConfig) -> tuple[str, dict[str, int], str | None]:
    """(text with `<kind>` in the place of what is to be masked, {kind: times}, the kind for which the document is dropped or None)."""
    found: dict[str, int] = {}
    for kind, pattern, really, hint in _KINDS:
        treatment = getattr(config, kind)
        if treatment == "keep" or not any(h in text for h in hint):
            continue
        masked, count = _replace(text, kind, pattern, really)
        if count and treatment == "drop":
            return text, found, kind
        if count:
            text, found[kind] = masked, count
    return text, found, None


def _replace(text: str, kind: str, pattern: re.Pattern[str], really: Callable[[str], bool]) -> tuple[str, int]:
    count = 0

    def one(match: re.Match[str]) -> str:
        nonlocal count
        if not really(match[0]):
            return match[0]
        count += 1
        return f"<{kind}>"

    return pattern.sub(one, text), count


def luhn(digits: str) -> bool:
    """ISO/IEC 7812: the last digit checks the others."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def _is_email(found: str) -> bool:
    return not found.lower().endswith(_EXAMPLE_DOMAINS)


def _is_phone(found: str) -> bool:
    return sum(c.isdigit() for c in found) in _PHONE_DIGITS


def _is_public_address(found: str) -> bool:
    try:
        return ipaddress.ip_address(found).is_global
    except ValueError:
        return False


def _is_card(found: str) -> bool:
    digits = re.sub(r"[ -]", "", found)
    return _ISSUER.fullmatch(digits) is not None and luhn(digits) and len(set(digits)) > 2


_KINDS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool], tuple[str, ...]], ...] = (
    (
        "key",
        _KEY,
        lambda _: True,
        ("-----BEGIN", "AKIA", "ASIA", "gh", "glpat-", "xox", "sk-", "AIza", "k_live_", "eyJ"),
    ),
    ("email", _EMAIL, _is_email, ("@",)),
    ("card", _CARD, _is_card, tuple("23456")),
    ("ip", _IP, _is_public_address, (".", ":")),
    ("phone", _PHONE, _is_phone, tuple("+23456789")),
)
"""(kind, pattern, whether a match really is one, strings of which a text with one has at least one)"""
