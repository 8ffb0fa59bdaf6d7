"""What licences of texts allow: whether a cleaned text may be handed on, and what the hub calls them.

Names are SPDX identifiers, compared without regard to case. A name that is not known here counts as one that
does not allow it: whoever publishes has to say that it does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from normistral.corpus.sources import is_allowed

SHARABLE = (
    *("CC0-1.0", "CC-PDDC", "PDDL-1.0", "Unlicense", "WTFPL", "0BSD", "public-domain", "PD"),
    *("CC-BY-*", "CC-BY-SA-*", "CC-BY-NC-*", "CC-BY-NC-SA-*", "ODC-By-*", "ODbL-*", "CDLA-*"),
    *("NLOD-*", "OGL-UK-*", "etalab-2.0", "DL-DE-BY-2.0", "DL-DE-ZERO-2.0", "EUPL-*"),
    *("MIT", "MIT-0", "Apache-*", "BSD-*", "ISC", "Zlib", "BSL-1.0", "PSF-2.0", "Python-2.0*", "PostgreSQL"),
    *("MPL-*", "GPL-*", "LGPL-*", "AGPL-*", "GFDL-*", "EPL-*", "CDDL-*", "Artistic-*", "OFL-1.1"),
)
"""Licences under which a changed copy may be passed on, some of them on conditions that the card repeats."""

ON_HUB = (
    *("apache-2.0", "mit", "cc0-1.0", "unlicense", "isc", "zlib", "wtfpl", "pddl", "odc-by", "odbl", "gfdl"),
    *("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
    *(
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
    ),
    *("cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cdla-permissive-1.0", "cdla-permissive-2.0"),
    *("cdla-sharing-1.0", "etalab-2.0", "eupl-1.1", "eupl-1.2", "mpl-2.0", "gpl-2.0", "gpl-3.0", "lgpl-2.1"),
    *(
        "lgpl-3.0",
        "agpl-3.0",
        "epl-1.0",
        "epl-2.0",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsl-1.0",
        "artistic-2.0",
    ),
    *("ofl-1.1", "postgresql", "unknown"),
)
"""Licences that the hub knows, as it spells them."""

HUB_FAMILIES = ("gfdl", "odc-by", "odbl", "pddl")
"""Those of which the hub knows no versions."""

CONDITIONS = {
    "by": "name the source",
    "sa": "pass on under the same licence",
    "nc": "not for commercial use",
}
"""Creative Commons' conditions, by their place in a licence's name."""


def may_be_shared(licence: str, accepted: Iterable[str] = ()) -> bool:
    """Whether a cleaned copy of a text may be passed on.

    Args:
        licence: an SPDX identifier, or an expression with `AND` (all must allow it) or `OR` (one is enough).
        accepted: names or patterns of further licences that allow it.

    Example:
        >>> may_be_shared("CC-BY-SA-4.0"), may_be_shared("CC-BY-ND-4.0"), may_be_shared("MIT OR proprietary")
        (True, False, True)
    """
    accepted = tuple(accepted)
    if is_allowed(licence, accepted):
        return True
    return any(
        all(
            is_allowed(_without_exception(name), (*SHARABLE, *accepted))
            for name in re.split(r"\s+AND\s+", part)
        )
        for part in re.split(r"\s+OR\s+", licence.strip().strip("()"))
    )


def hub_licence(licence: str) -> str | None:
    """What the hub calls a licence, or None if it has no name for it."""
    name = re.sub(r"-(only|or-later)$", "", licence.strip().lower())
    name = next((family for family in HUB_FAMILIES if name.startswith(f"{family}-")), name)
    return name if name in ON_HUB else None


def conditions(licence: str) -> str:
    """What a Creative Commons licence asks of whoever uses the text, for a reader; empty for others."""
    parts = licence.lower().split("-")
    return "; ".join(text for key, text in CONDITIONS.items() if key in parts) if parts[0] == "cc" else ""


def _without_exception(name: str) -> str:
    return re.split(r"\s+WITH\s+", name.strip().strip("()"))[0]
