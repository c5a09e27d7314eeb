"""Checks that tell a real number of its kind from one that only looks alike. Each takes a candidate as it stands."""

from __future__ import annotations

import ipaddress
import re
from datetime import date
from typing import Final

_IBAN_LENGTHS: Final = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18,
    "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24,
    "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24,
    "XK": 20,
}  # fmt: skip
"""Lengths by country, from the IBAN registry of SWIFT."""

_ISSUERS: Final = re.compile(
    r"4(\d{12}|\d{15}|\d{18})"  # Visa
    r"|(5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(0[0-5]|[689]\d)\d{11}"  # Diners Club
    r"|(6011|65\d{2}|64[4-9]\d)(\d{12}|\d{15})"  # Discover
    r"|35\d{14}|(1800|2131)\d{11}"  # JCB
    r"|(5018|5020|5038|5893|6304|6759|676[1-3])\d{8,15}"  # Maestro
    r"|62\d{14,17}"  # UnionPay
)
_SPANISH_LETTERS: Final = "TRWAGMYFPDXBNJZSQVHLCKE"
_FINNISH_SIGNS: Final = "0123456789ABCDEFHJKLMNPRSTUVWXY"
_ITALIAN_ODD: Final = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16,
         10, 22, 25, 24, 23),
        strict=True,
    )
)  # fmt: skip


def digits(text: str) -> str:
    return "".join(sign for sign in text if "0" <= sign <= "9")


def luhn(number: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    total = 0
    for index, sign in enumerate(reversed(number)):
        value = int(sign) * (1 + index % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def credit_card(text: str) -> bool:
    number = digits(text)
    return bool(_ISSUERS.fullmatch(number)) and luhn(number) and len(set(number)) > 1


def iban(text: str) -> bool:
    """ISO 13616: the length of the country, and remainder 1 modulo 97."""
    code = text.replace(" ", "").upper()
    if _IBAN_LENGTHS.get(code[:2]) != len(code):
        return False
    return int("".join(str(int(sign, 36)) for sign in code[4:] + code[:4])) % 97 == 1


def us_ssn(text: str) -> bool:
    """The parts that the Social Security Administration never issues are refused; there is no checksum."""
    area, group, serial = text[:3], text[4:6], text[7:]
    return (
        text[3] == text[6]
        and area not in ("000", "666")
        and area < "900"
        and group != "00"
        and serial != "0000"
    )


def ip_address(text: str) -> bool:
    """An address that can name a host: not unspecified, loopback or a network mask."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    # shorter forms of version 6, such as `a::1`, are more often something else
    if address.version == 6 and len(text) < 6:
        return False
    return not (address.is_unspecified or address.is_loopback or text.startswith("255.255."))


def national_id(text: str) -> bool:
    """France (NIR), Spain (DNI, NIE), Italy (codice fiscale), Brazil (CPF), Finland, Sweden, Norway."""
    code = text.upper()
    return any(
        check(code) for check in (_french, _spanish, _italian, _brazilian, _finnish, _swedish, _norwegian)
    )


def _french(code: str) -> bool:
    body = code.replace(" ", "")
    if not re.fullmatch(r"[12]\d{4}(\d{2}|2[AB])\d{8}", body) or not (
        1 <= int(body[3:5]) <= 12 or int(body[3:5]) >= 20
    ):
        return False
    number = int(body[:13].replace("2A", "19").replace("2B", "18"))
    return int(body[13:]) == 97 - number % 97


def _spanish(code: str) -> bool:
    if not re.fullmatch(r"[XYZ0-9]\d{7}-?[A-Z]", code):
        return False
    number = int(code[:8].replace("X", "0").replace("Y", "1").replace("Z", "2"))
    return code[-1] == _SPANISH_LETTERS[number % 23]


def _italian(code: str) -> bool:
    if not re.fullmatch(
        r"[A-Z]{6}[0-9LMNPQRSTUV]{2}[ABCDEHLMPRST][0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{3}[A-Z]", code
    ):
        return False
    odd = sum(_ITALIAN_ODD[sign] for sign in code[0:15:2])
    even = sum(int(sign) if sign.isdigit() else ord(sign) - 65 for sign in code[1:15:2])
    return chr(65 + (odd + even) % 26) == code[15]


def _brazilian(code: str) -> bool:
    if not re.fullmatch(r"\d{3}\.\d{3}\.\d{3}-\d{2}", code):
        return False
    number = digits(code)
    return len(set(number)) > 1 and all(
        int(number[size])
        == sum(int(sign) * (size + 1 - at) for at, sign in enumerate(number[:size])) * 10 % 11 % 10
        for size in (9, 10)
    )


def _finnish(code: str) -> bool:
    if not re.fullmatch(r"\d{6}[-+A-FU-Y]\d{3}[0-9A-Y]", code) or not _is_date(
        code[0:2], code[2:4], code[4:6]
    ):
        return False
    return _FINNISH_SIGNS[int(code[:6] + code[7:10]) % 31] == code[10]


def _swedish(code: str) -> bool:
    if not re.fullmatch(r"(\d{2})?\d{6}[-+]\d{4}", code):
        return False
    number = digits(code)[-10:]
    return _is_date(number[4:6], number[2:4], number[0:2]) and luhn(number)


def _norwegian(code: str) -> bool:
    if not re.fullmatch(r"\d{6} ?\d{5}", code):
        return False
    number = [int(sign) for sign in digits(code)]
    first = sum(a * b for a, b in zip((3, 7, 6, 1, 8, 9, 4, 5, 2, 1), number, strict=False))
    second = sum(a * b for a, b in zip((5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1), number, strict=True))
    return _is_date(code[0:2], code[2:4], code[4:6]) and first % 11 == 0 and second % 11 == 0


def _is_date(day: str, month: str, year: str) -> bool:
    """Say whether a day exists; of the two centuries that a short year may mean, 2000 knows every leap day."""
    try:
        date(2000 + int(year), int(month), int(day))
    except ValueError:
        return False
    return True
