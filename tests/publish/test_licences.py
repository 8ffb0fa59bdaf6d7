"""Licences: which allow a cleaned text to be passed on, and their names on the hub."""

from __future__ import annotations

import pytest

from normistral.publish.licences import conditions, hub_licence, may_be_shared


@pytest.mark.parametrize(
    "licence",
    [
        *(
            "CC0-1.0",
            "cc-by-4.0",
            "CC-BY-SA-3.0",
            "CC BY-NC 4.0",
            "NLOD-2.0",
            "MIT",
            "PSF-2.0",
            "GFDL-1.3-only",
        ),
        *("GPL-2.0-only WITH Classpath-exception-2.0", "Apache-2.0 AND MIT", "MIT OR proprietary"),
    ],
)
def test_open_licences_allow_a_changed_copy(licence: str) -> None:
    assert may_be_shared(licence)


@pytest.mark.parametrize(
    "licence",
    [
        "CC-BY-ND-4.0",
        "CC-BY-NC-ND-3.0",
        "proprietary",
        "unknown",
        "",
        "various",
        "Apache-2.0 AND proprietary",
    ],
)
def test_others_and_unknown_ones_do_not(licence: str) -> None:
    assert not may_be_shared(licence)


def test_what_is_accepted_is_accepted_in_any_spelling_and_alone() -> None:
    assert may_be_shared("CC-BY-ND-4.0", ["cc-by-nd-*"])
    assert may_be_shared("Apache-2.0 AND proprietary", ["proprietary"])
    assert not may_be_shared("unknown", ["proprietary"])


@pytest.mark.parametrize(
    ("licence", "name"),
    [
        *(("CC-BY-4.0", "cc-by-4.0"), ("GPL-3.0-or-later", "gpl-3.0"), ("GFDL-1.3-only", "gfdl")),
        *(("ODC-By-1.0", "odc-by"), ("NLOD-2.0", None), ("various", None)),
    ],
)
def test_the_hub_has_names_of_its_own(licence: str, name: str | None) -> None:
    assert hub_licence(licence) == name


def test_conditions_are_those_of_creative_commons() -> None:
    assert conditions("CC-BY-NC-SA-4.0") == (
        "name the source; pass on under the same licence; not for commercial use"
    )
    assert conditions("CC0-1.0") == conditions("MIT") == ""
