"""Addresses and numbers of people become placeholders; numbers that only look like them stay."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from normistral.corpus.documents import Document
from normistral.corpus.steps.personal_data import ReplacePersonalData
from normistral.corpus.steps.personal_numbers import (
    is_danish,
    is_finnish,
    is_iban,
    is_icelandic,
    is_norwegian,
    is_norwegian_account,
    is_swedish,
)
from normistral.recipe import PersonalDataSettings

CORPORA = Path(__file__).parents[3] / "shared" / "corpora"
SETTINGS = PersonalDataSettings()
EMAIL, PHONE, PERSON = "email@example.com", "+46 70 174 06 05", "000000-0000"
ACCOUNT, IBAN, IPV4, IPV6 = "0000.00.00000", "XX00 0000 0000 0000", "192.0.2.1", "2001:db8::1"
DAYS = st.dates(date(1940, 1, 1), date(1999, 12, 31))


def step(language: str = "nob", kind: str = "prose") -> ReplacePersonalData:
    return ReplacePersonalData(SETTINGS, language, kind)


def replaced(text: str, language: str = "nob") -> str:
    return step(language).replaced(text)


def changed(number: str) -> list[str]:
    """The numbers that differ from one in exactly one digit."""
    return [
        number[:place] + str((int(digit) + more) % 10) + number[place + 1 :]
        for place, digit in enumerate(number)
        if digit.isdigit()
        for more in range(1, 10)
    ]


def norwegian(day: date, individual: int) -> str | None:
    digits = f"{day:%d%m%y}{individual:03}"
    for weights in ((3, 7, 6, 1, 8, 9, 4, 5, 2), (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)):
        check = -sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True)) % 11
        if check == 10:
            return None
        digits += str(check)
    return digits


# Checksums


@given(DAYS, st.integers(0, 499))
def test_a_norwegian_id_is_known_and_any_one_wrong_digit_is_seen(day: date, individual: int) -> None:
    number = norwegian(day, individual)
    if number is None:
        return
    assert is_norwegian(number)
    assert not any(map(is_norwegian, changed(number)))


@pytest.mark.parametrize("number", ["8112289874", "198112289874", "7010632391"])
def test_a_swedish_id_is_known_and_any_one_wrong_digit_is_seen(number: str) -> None:
    assert is_swedish(number)
    assert not any(map(is_swedish, changed(number[-10:])))


def test_ids_of_the_other_nordic_countries_are_known_by_date_and_check() -> None:
    assert is_danish("2110625629")
    assert not is_danish("2113625629")
    assert not is_danish("2110625628")
    assert is_danish("3112104321", checked=False)
    assert not is_danish("3112104321")
    assert is_finnish("131052308T")
    assert not is_finnish("131052308U")
    assert not is_finnish("311152308T")
    assert is_icelandic("1201743399")
    assert not is_icelandic("1201743395")
    assert not is_icelandic("1201743299")


@pytest.mark.parametrize(
    "number",
    [
        *("NO9386011117947", "GB82WEST12345698765432", "FI2112345600000785", "SE4550000000058398257466"),
        *("DK5000400440116243", "IS140159260076545510730339", "FO6264600001631634"),
    ],
)
def test_an_iban_is_known_and_any_one_wrong_digit_is_seen(number: str) -> None:
    assert is_iban(number)
    assert not any(map(is_iban, changed(number)))


def test_a_norwegian_account_is_known_by_its_check() -> None:
    assert is_norwegian_account("86011117947")
    assert not any(map(is_norwegian_account, changed("86011117947")))


@given(st.text(max_size=24))
def test_no_text_at_all_makes_a_check_fail_with_an_error(text: str) -> None:
    for check in (
        is_norwegian,
        is_swedish,
        is_danish,
        is_finnish,
        is_icelandic,
        is_norwegian_account,
        is_iban,
    ):
        assert check(text) in (True, False)


# In texts


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Skriv til kari.nordmann@uit.no.", f"Skriv til {EMAIL}."),
        ("<a.b+c@x-y.co.uk>; å.ås@ås.no", f"<{EMAIL}>; {EMAIL}"),
        ("Tlf. 78 47 40 00 / 907 12 345", f"Tlf. {PHONE} / {PHONE}"),
        ("tel +47 78 47 40 00, (+47) 78474000", f"tel {PHONE}, {PHONE}"),
        ("0047 78474000 eller +1 202-555-0123", f"{PHONE} eller {PHONE}"),
        ("Telefovdna: 78474000", f"Telefovdna: {PHONE}"),
        ("tel. 0920-123 45, 08-123 456 78", f"tel. {PHONE}, {PHONE}"),
        ("040 123 4567 dahje (016) 123 456", f"{PHONE} dahje {PHONE}"),
        ("Sími 555 1234", f"Sími {PHONE}"),
        ("+298 352550", PHONE),
        ("født 150765 00565", f"født {PERSON}"),
        ("15076500565", PERSON),
        ("811228-9874 och 19811228-9874", f"{PERSON} och {PERSON}"),
        ("personnummer 8112289874", f"personnummer {PERSON}"),
        ("CPR 211062-5629, 131052-308T", f"CPR {PERSON}, {PERSON}"),
        ("kt. 120174-3399", f"kt. {PERSON}"),
        ("konto 8601 11 17947, 8601.11.17947", f"konto {ACCOUNT}, {ACCOUNT}"),
        ("kontonr. 86011117947", f"kontonr. {ACCOUNT}"),
        ("IBAN NO93 8601 1117 947.", f"IBAN {IBAN}."),
        ("GB82WEST12345698765432", IBAN),
        ("fra 158.39.1.20 og IP 8.8.8.8", f"fra {IPV4} og IP {IPV4}"),
        ("ping 2001:4860:4860::8888", f"ping {IPV6}"),
    ],
)
def test_personal_data_is_replaced(text: str, wanted: str) -> None:
    assert replaced(text) == wanted
    assert replaced(wanted) == wanted


@pytest.mark.parametrize(
    "text",
    [
        *("ISBN 978-82-15-00000-1", "ISBN 82-15-00000-1", "ISSN 0332-6470", "org.nr. 974 760 673"),
        "(3-6+5)5 8560000-",
        *("17.05.2008", "2008-05-17", "den 17-05-2008 kl. 12.30.45", "2005 2006 2007 2008", "1990–1995"),
        *(
            "1 251 400 kroner",
            "12 345 678",
            "kr 22 33 44 55",
            "22 33 44 55 kr",
            "+ 12 000 000",
            "+12 000 000",
        ),
        *("§ 4-2 nr. 12, jf. §§ 13-1 til 13-14", "LOV-1967-02-10", "St.meld. nr. 28 (2007-2008)", "4.2.2.4"),
        *("versjon 10.0.19041.1", "127.0.0.1 og 192.168.1.20", "12:30:45", "NOU 2016:18", "std::vector<int>"),
        *(
            "10 11 12 13 14 15",
            "22 33 44 55 66 77",
            "34,5 22 33 44 55 12",
            "http://x.no/?id=45250812&n=78474000",
        ),
        *(
            "saksnr 2008/01234",
            "Ring 112 eller 02800",
            "100 000 - 200 000",
            "fil_78474000.pdf",
            "a@b",
            "@kari",
        ),
        *("811228-9875", "15076500566", "131052-308U", "NO93 8601 1117 948", "8601.11.17948", "556036-0793"),
        *("8112289874", "86011117947", "git@github.com", "navn@example.org", "2001:db8::2", "192.0.2.7"),
    ],
)
def test_numbers_that_only_look_like_personal_data_stay(text: str) -> None:
    assert replaced(text) == text


def test_four_pairs_are_a_telephone_number_where_numbers_have_eight_digits_and_cells_elsewhere() -> None:
    assert replaced("Ongantíð 74 78 69 77", "fao") == "Ongantíð 74 78 69 77"
    assert replaced("Sentralbord 74 78 69 77", "nob") == f"Sentralbord {PHONE}"


def test_a_danish_id_without_a_check_is_replaced_in_danish_or_if_it_is_named() -> None:
    assert replaced("311210-4321", "dan") == PERSON
    assert replaced("CPR-nr 311210-4321", "nob") == f"CPR-nr {PERSON}"
    assert replaced("311210-4321", "nob") == "311210-4321"


def test_each_kind_can_be_left_as_it_is() -> None:
    text = (
        "a.b@uit.no 158.39.1.20 2001:4860:4860::8888 NO93 8601 1117 947, tlf. 78 47 40 00, 811228-9874, "
        "8601.11.17947"
    )
    kinds = [name for name in PersonalDataSettings.model_fields if name != "enabled"]
    for kind in kinds:
        only = dict.fromkeys(kinds) | {kind: "X"}
        one = ReplacePersonalData(PersonalDataSettings.model_validate(only), "nob", "prose")
        assert one.replaced(text).count("X") == 1
        assert one.counts.actions == {kind: 1}
    none = PersonalDataSettings.model_validate(dict.fromkeys(kinds))
    assert ReplacePersonalData(none, "nob", "prose").replaced(text) == text
    assert ReplacePersonalData(PersonalDataSettings(enabled=False), "nob", "prose").replaced(text) == text


def test_what_was_replaced_is_counted_by_kind() -> None:
    one = step()
    text = "a@uit.no, b@uit.no, tlf. 78 47 40 00"
    [after] = one.apply([Document("1", text, "s", "nob", "prose", "CC0-1.0")])
    assert after.text == f"{EMAIL}, {EMAIL}, tlf. {PHONE}"
    assert after.steps == ("personal_data*",)
    assert one.counts.actions == {"email": 2, "phone": 1}


def test_in_program_text_only_addresses_are_replaced() -> None:
    source = "# tlf. 78 47 40 00, 811228-9874\nVERSION = '1.2.3.4'\nx = 15076500565"
    assert step("code", "code").replaced(source) == source
    assert step("code", "code").replaced("# by kari@uit.no") == f"# by {EMAIL}"


@given(st.text(st.sampled_from("0123456789 +-.()@a:\nN€"), max_size=60))
def test_replacing_twice_changes_nothing_more(text: str) -> None:
    once = replaced(text)
    assert replaced(once) == once


@pytest.mark.skipif(not CORPORA.exists(), reason="needs the shared corpora")
@pytest.mark.parametrize("language", ["nob", "sme", "fao"])
def test_on_real_text_little_but_contact_details_is_replaced(language: str) -> None:
    """Nine of ten replaced numbers stand beside a name for telephone, an address or another such number."""
    near = re.compile(
        r"t[lе]f|tel|mob|fa[ksx]|phone|sím|ring|puh|gsm|@|\+\d\d|sentralbord|kont|bank|giro|oasehan|poast|"
        r"post|office|\d\d \d\d \d\d|t\. |IP",
        re.IGNORECASE,
    )
    total = contact = 0
    one = step(language)
    with zstandard.open(CORPORA / f"{language}.valid.jsonl.zst", "rt", encoding="utf-8") as file:
        for line in file:
            text = json.loads(line)["text"]
            before, after = one.replaced(text), 0
            for placeholder in (PHONE, PERSON, ACCOUNT, IBAN, IPV4):
                for match in re.finditer(re.escape(placeholder), before):
                    around = before[max(0, match.start() - 80) : match.start()] + before[match.end() :][:80]
                    contact += near.search(around) is not None
                    after += 1
            total += after
    assert contact >= 0.9 * total
