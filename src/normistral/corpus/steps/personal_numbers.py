"""Numbers that stand for a person or an account, known by their dates and checksums.

Each function takes the digits (and letters) without separators. Sources: the rules of the Norwegian and
Swedish tax agencies, the Danish CPR office, the Finnish Digital and Population Data Services Agency,
Registers Iceland, Bits (Norwegian account numbers) and ISO 13616 (IBAN).
"""

from __future__ import annotations

import calendar
from collections.abc import Sequence

NORWEGIAN_WEIGHTS_1 = (3, 7, 6, 1, 8, 9, 4, 5, 2, 1)
NORWEGIAN_WEIGHTS_2 = (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)
DANISH_WEIGHTS = (4, 3, 2, 7, 6, 5, 4, 3, 2, 1)
ICELANDIC_WEIGHTS = (3, 2, 7, 6, 5, 4, 3, 2, 1)
ACCOUNT_WEIGHTS = (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)
FINNISH_CHECKS = "0123456789ABCDEFHJKLMNPRSTUVWXY"
DANISH_UNCHECKED_SINCE = 2007
"""Since October 2007 personal numbers that fail modulus 11 have been given out."""
IBAN_LENGTHS = range(15, 35)


def is_norwegian(digits: str) -> bool:
    """Fødselsnummer or D-number: DDMMYY, three digits that follow the year, two checksums modulo 11."""
    if len(digits) != 11 or not digits.isascii() or not digits.isdigit():
        return False
    day = int(digits[:2])
    if day > 40:  # a D-number, of people who do not live in the country
        day -= 40
    individual, short_year = int(digits[6:9]), int(digits[4:6])
    if individual < 500:
        year = 1900 + short_year
    elif individual < 750 and short_year >= 54:
        year = 1800 + short_year
    elif short_year < 40:
        year = 2000 + short_year
    elif individual >= 900:
        year = 1900 + short_year
    else:
        return False
    return (
        _is_date(day, int(digits[2:4]), year)
        and _weighted(digits, NORWEGIAN_WEIGHTS_1) % 11 == 0
        and _weighted(digits, NORWEGIAN_WEIGHTS_2) % 11 == 0
    )


def is_swedish(digits: str) -> bool:
    """Personnummer or samordningsnummer: (CC)YYMMDD, three digits, Luhn's checksum over the last ten."""
    if len(digits) not in (10, 12) or not digits.isascii() or not digits.isdigit():
        return False
    if len(digits) == 12 and digits[:2] not in ("18", "19", "20"):
        return False
    short = digits[-10:]
    day = int(short[4:6])
    if day > 60:  # a samordningsnummer
        day -= 60
    centuries = (digits[:2],) if len(digits) == 12 else ("19", "20")
    if not any(_is_date(day, int(short[2:4]), int(century + short[:2])) for century in centuries):
        return False
    doubled = (int(digit) * (2 - place % 2) for place, digit in enumerate(short))
    return sum(number // 10 + number % 10 for number in doubled) % 10 == 0


def is_danish(digits: str, checked: bool = True) -> bool:
    """CPR number: DDMMYY, four digits of which the first follows the century, modulo 11 if older than 2007.

    Args:
        digits: ten digits.
        checked: whether numbers of people born since 2007, which have no checksum, are refused.
    """
    if len(digits) != 10 or not digits.isascii() or not digits.isdigit():
        return False
    year = _danish_year(int(digits[4:6]), int(digits[6]))
    if not _is_date(int(digits[:2]), int(digits[2:4]), year):
        return False
    if _weighted(digits, DANISH_WEIGHTS) % 11 == 0:
        return True
    return not checked and year >= DANISH_UNCHECKED_SINCE


def is_finnish(number: str) -> bool:
    """Henkilötunnus without its century sign: DDMMYY, three digits, a check character modulo 31."""
    if len(number) != 10 or not number[:9].isascii() or not number[:9].isdigit():
        return False
    return (
        _is_date(int(number[:2]), int(number[2:4]), 1900 + int(number[4:6]), leap_year_unsure=True)
        and FINNISH_CHECKS[int(number[:9]) % 31] == number[9]
    )


def is_icelandic(digits: str) -> bool:
    """Kennitala of a person: DDMMYY, two digits, checksum modulo 11, century. Those of firms are not
    meant."""
    if len(digits) != 10 or not digits.isascii() or not digits.isdigit() or digits[9] not in "890":
        return False
    year = {"8": 1800, "9": 1900, "0": 2000}[digits[9]] + int(digits[4:6])
    return (
        _is_date(int(digits[:2]), int(digits[2:4]), year) and _weighted(digits, ICELANDIC_WEIGHTS) % 11 == 0
    )


def is_norwegian_account(digits: str) -> bool:
    """Norwegian bank account: eleven digits, checksum modulo 11."""
    return (
        len(digits) == 11
        and digits.isascii()
        and digits.isdigit()
        and digits[:4] != "0000"
        and _weighted(digits, ACCOUNT_WEIGHTS) % 11 == 0
    )


def is_iban(number: str) -> bool:
    """IBAN (ISO 13616): country, two check digits, account; as a number with letters from 10 on, modulo
    97."""
    if len(number) not in IBAN_LENGTHS or not number.isascii() or not number.isalnum():
        return False
    if not number[:2].isalpha() or not number[2:4].isdigit():
        return False
    turned = number[4:] + number[:4]
    return int("".join(str(int(character, 36)) for character in turned)) % 97 == 1


def _danish_year(short_year: int, seventh: int) -> int:
    if seventh <= 3 or (seventh in (4, 9) and short_year >= 37):
        return 1900 + short_year
    if seventh in (4, 9) or short_year <= 57:
        return 2000 + short_year
    return 1800 + short_year


def _is_date(day: int, month: int, year: int, leap_year_unsure: bool = False) -> bool:
    if not 1 <= month <= 12 or day < 1:
        return False
    if leap_year_unsure and month == 2:
        return day <= 29
    return day <= calendar.monthrange(year, month)[1]


def _weighted(digits: str, weights: Sequence[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))
