from __future__ import annotations

import re
import time

from hypothesis import given
from hypothesis import strategies as st
from language_samples import NOB, SME

from normistral.corpus.language_id.sample import (
    LONG_SEGMENT_CHARACTERS,
    SEGMENT_CHARACTERS,
    sample_document,
)


def test_addresses_numbers_and_markup_are_left_out_and_words_kept() -> None:
    text = (
        "2009regjeringen.no70http://regjeringen.no/se/dep/aid/3.html?id=5 XSL $Revision$; {user}/backup "
        "Skriv til ola@example.no før 31.12.2009, sa hun – «nå!» 1990-åra, nord-norsk, d'Arc."
    )
    assert sample_document(text, 10_000).text == ("XSL Skriv til før sa hun – «nå!» åra, nord-norsk, d'Arc.")


def test_a_text_in_a_script_without_spaces_is_kept() -> None:
    text = "東京は日本の首都です。人口は約1400万人です。"
    assert sample_document(text, 10_000).text == "東京は日本の首都です。人口は約 万人です。"


def test_beginning_middle_and_end_are_in_the_sample_of_a_long_text() -> None:
    text = " ".join(f"ord{chr(97 + index // 26)}{chr(97 + index % 26)}" for index in range(26 * 26)) * 20
    text = "begynnelsen " + text + " midten " + text + " slutten"
    sample = sample_document(text, 6000).text
    assert {"begynnelsen", "midten", "slutten"} <= set(sample.split())


@given(st.text(), st.integers(1000, 3000))
def test_a_sample_is_no_longer_than_asked_for(text: str, characters: int) -> None:
    assert len(sample_document(text * 20, characters).text) <= characters + 20


@given(st.text(alphabet="ab \nåš1/", max_size=3000))
def test_segments_are_the_sample_in_pieces(text: str) -> None:
    sample = sample_document(text, 5000)
    assert " ".join(sample.segments).split() == sample.text.split()
    assert all(len(part) <= LONG_SEGMENT_CHARACTERS + SEGMENT_CHARACTERS for part in sample.segments)
    assert not re.search(r"[1/]", sample.text)


def test_short_lines_are_read_together_and_long_ones_in_pieces() -> None:
    lines = ["Kapittel", "Et avsnitt", NOB.replace("\n", " ") * 4, "Slutt"]
    segments = sample_document("\n".join(lines), 10_000).segments
    assert segments[0] == "Kapittel Et avsnitt"
    assert len(segments) > 3


def test_a_text_of_one_long_run_takes_no_time() -> None:
    begin = time.process_time()
    sample_document("a" * 3_000_000, 10**7)
    sample_document(SME[:3] + "aa-." * 700_000 + "/", 10**7)
    assert time.process_time() - begin < 5
