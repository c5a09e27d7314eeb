"""The detectors: a pattern in linear time (RE2), a check of what it found, and what must not stand around it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

import re2

from taut.trust.pii import checksums

_PHONE_WORDS: Final = (
    r"(?i)\b(?:phone|telephone|tel|mobile|cell|fax|call|calling|dial|ring|reach|answering|messages? to|desk|office|home|"
    r"work|whatsapp|sms|telefon|handy|portable|m[oó]vil)\b"
)
_WORD_REACH_BEFORE: Final = 32
_WORD_REACH_AFTER: Final = 10
"""How many characters around a weak phone number one of the words must stand."""


class Span(NamedTuple):
    """Where something was found: `text[start:end]`."""

    type: str
    start: int
    end: int


class Detector(NamedTuple):
    """One kind of finding.

    hint: a regular expression that every value with a finding matches, cheap to test on a whole column.
    needs_word: one that must also match shortly before or after the finding.
    """

    type: str
    hint: str
    pattern: str
    holds: Callable[[str], bool]
    needs_word: str | None = None


_LIKE_A_DATE: Final = re.compile(r"\d{2}([./\-])\d{2}\1(19|20)\d{2}|\d{3}-\d{2}-\d{4}")


def _always(_: str) -> bool:
    return True


def _phone(text: str) -> bool:
    number = checksums.digits(text.partition("x")[0])
    # a national number that begins with 0 has nine digits or more: dates and social security numbers have eight or nine
    enough = 9 if text.startswith("0") else 8
    return enough <= len(number) <= 15 and len(set(number)) > 1 and not _LIKE_A_DATE.match(text)


def _weak_phone(text: str) -> bool:
    return 7 <= len(checksums.digits(text)) <= 13


def _email(text: str) -> bool:
    local, _, domain = text.rpartition("@")
    labels = domain.split(".")
    return 0 < len(local) <= 64 and ".." not in local and all(0 < len(label) <= 63 for label in labels)


_SEP: Final = r"[ .\-/]?"
_SECRETS: Final = "|".join(
    (
        r"(?:AKIA|ASIA)[A-Z0-9]{16}",  # AWS
        r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,}",
        r"glpat-[A-Za-z0-9_\-]{20,}",
        r"sk-(?:ant-|proj-|or-v1-)?[A-Za-z0-9_\-]{20,}",  # OpenAI, Anthropic and alike
        r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
        r"xox[abposr]-[A-Za-z0-9\-]{10,}",  # Slack
        r"AIza[A-Za-z0-9_\-]{35}",  # Google
        r"hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_\-]{50,}",
        r"taut_[A-Za-z0-9_\-]{20,}",
        r"eyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}",  # JWT
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[A-Za-z0-9+/=\s\\:,.\-]*?-----END [A-Z ]*PRIVATE KEY-----)?",
    )
)
_DIGITS_7: Final = r"(?:\d[ .()/\-]{0,3}){7}"

DETECTORS: Final = (
    Detector(
        "secret",
        r"AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|sk-|k_live_|k_test_|xox|AIza|hf_|npm_|pypi-|taut_|eyJ|PRIVATE KEY",
        _SECRETS,
        _always,
    ),
    Detector(
        "email",
        "@",
        r"[A-Za-z0-9._%+\-'\x{80}-\x{10FFFF}]+@[A-Za-z0-9\x{80}-\x{10FFFF}][A-Za-z0-9.\-\x{80}-\x{10FFFF}]*\.[A-Za-z\x{80}-\x{10FFFF}]{2,24}",
        _email,
    ),
    Detector(
        "iban",
        r"(?i)[a-z]{2}\d{2} ?[a-z0-9]{4}",
        r"(?i)[a-z]{2}\d{2}(?: ?[a-z0-9]{4}){2,7}(?: ?[a-z0-9]{1,4})?",
        checksums.iban,
    ),
    Detector("credit_card", r"(?:\d[ \-]?){12}", r"\d(?:[ \-]?\d){11,18}", checksums.credit_card),
    Detector("us_ssn", r"\d{3}[- ]\d{2}[- ]\d{4}", r"\d{3}[- ]\d{2}[- ]\d{4}", checksums.us_ssn),
    Detector(
        "national_id",
        r"(?i)\d{7}-?[a-z]|[a-z]{6}[0-9l-v]{2}[a-t]|\d{3}\.\d{3}\.\d{3}-|\d{6}[-+a-fu-y]\d{3}|\d{6} ?\d{5}|[12](?: ?\d){5}",
        r"(?i)[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[ab]) ?\d{3} ?\d{3} ?\d{2}|[xyz\d]\d{7}-?[a-z]"
        r"|[a-z]{6}[0-9l-v]{2}[a-t][0-9l-v]{2}[a-z][0-9l-v]{3}[a-z]|\d{3}\.\d{3}\.\d{3}-\d{2}"
        r"|(?:\d{2})?\d{6}[-+]\d{4}|\d{6}[-+a-fu-y]\d{3}[0-9a-y]|\d{6} ?\d{5}",
        checksums.national_id,
    ),
    Detector(
        "ip_address",
        r"\d\.\d{1,3}\.\d{1,3}\.\d|::|(?i)(?:[0-9a-f]{1,4}:){4}",
        r"(?i)(?:\d{1,3}\.){3}\d{1,3}|(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}",
        checksums.ip_address,
    ),
    Detector(
        "phone",
        _DIGITS_7,
        rf"(?:\+|\b00)[1-9]\d{{0,2}}{_SEP}(?:\(\d{{1,4}}\){_SEP})?\d(?:{_SEP}\d){{5,12}}(?:x\d{{1,5}})?"
        r"|(?:\b(?:1|001)[ .\-])?(?:\([2-9]\d{2}\) ?|\b[2-9]\d{2}[ .\-])[2-9]\d{2}[ .\-]\d{4}(?:x\d{1,5})?"
        r"|\b0\d{1,4}[ ./\-](?:\d{2,4}[ .\-/]?){1,3}\d{2,4}",
        _phone,
    ),
    Detector("phone", _PHONE_WORDS, r"\(?\d(?:[ ().\-/]{0,2}\d){6,12}", _weak_phone, needs_word=_PHONE_WORDS),
)
"""In order of precedence: where two overlap, the first one counts."""

TYPES: Final = tuple(dict.fromkeys(detector.type for detector in DETECTORS))


_CARD_DIGITS: Final = 19
_DIGIT_RUN: Final = r"\d(?:[ \-]?\d){11,}"
_GROUP: Final = re.compile(r"[0-9]+")

ALL: Final = (1 << len(DETECTORS)) - 1


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> Any:
    return re2.compile(pattern)


def find(text: str, *, detectors: int = ALL) -> list[Span]:
    """Return the findings in a text, in order, none overlapping.

    detectors: bit n set for each of DETECTORS that is to look.

    Time is linear in the length of the text. A number that stands inside a longer word or number is not a finding.
    """
    spans: list[Span] = []
    for index, detector in enumerate(DETECTORS):
        if not detectors >> index & 1:
            continue
        for start, end in _candidates(detector, text):
            if _stands_alone(text, start, end) and detector.holds(text[start:end]):
                if detector.needs_word and not _word_near(text, start, end, detector.needs_word):
                    continue
                if all(end <= span.start or span.end <= start for span in spans):
                    spans.append(Span(detector.type, start, end))
    return sorted(spans, key=lambda span: span.start)


def _candidates(detector: Detector, text: str) -> Iterator[tuple[int, int]]:
    """Yield where a detector's pattern matches; for cards also where other numbers stand before or after one.

    `12 4111 1111 1111 1111` is one match, which is no card and would hide the one in it. So each group of digits is
    taken as a beginning, with as many groups as a card may have.
    """
    for match in _compiled(detector.pattern if detector.type != "credit_card" else _DIGIT_RUN).finditer(text):
        if detector.type != "credit_card":
            yield match.span()
            continue
        groups = [group.span() for group in _GROUP.finditer(text, *match.span())]
        for index, (start, _) in enumerate(groups):
            digits, end = 0, start
            for low, high in groups[index : index + _CARD_DIGITS]:
                digits += high - low
                if digits > _CARD_DIGITS:
                    break
                end = high
            if end > start:
                yield start, end


def _stands_alone(text: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start], text[end : end + 1]
    if before.isalnum() or after.isalnum() or before == "_":
        return False
    # 1.2.3.4.5, 12-34-56-78: a longer number, of which this is a part
    return not (_joins(before, text[start - 2 : start - 1]) or _joins(after, text[end + 1 : end + 2]))


def _joins(sign: str, beyond: str) -> bool:
    return bool(sign) and sign in ".-+:" and beyond.isdigit()


def _word_near(text: str, start: int, end: int, words: str) -> bool:
    search = _compiled(words).search
    before = text[max(0, start - _WORD_REACH_BEFORE) : start]
    return search(before) is not None or search(text[end : end + _WORD_REACH_AFTER]) is not None
