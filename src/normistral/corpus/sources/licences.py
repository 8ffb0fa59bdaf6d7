"""Which licences a corpus takes: names of SPDX, compared without regard to case, and patterns of them.

    allowed_licences: [CC0-1.0, CC-BY-*, MIT]      takes CC-BY-4.0 and cc-by-3.0, not CC-BY-NC-4.0

`*` stands for a version, or for whatever else doesn't change what is permitted: `CC-BY-*` takes no licence
that adds a condition (`NC`, `ND`, `SA`) which the pattern doesn't name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from normistral.corpus.messages import source_error
from normistral.recipe import SourceSettings

CONDITIONS = frozenset({"nc", "nd", "sa"})
"""Non-commercial, no derivatives, share alike: Creative Commons' conditions beside attribution."""


def is_allowed(licence: str, allowed: Iterable[str] | None) -> bool:
    """Whether a licence is one of those allowed; None allows any.

    Example:
        >>> is_allowed("cc-by-4.0", ["CC-BY-*"]), is_allowed("CC-BY-NC-4.0", ["CC-BY-*"])
        (True, False)
    """
    return allowed is None or any(_fits(_normal(licence), _normal(pattern)) for pattern in allowed)


def check_licences(sources: Iterable[SourceSettings], allowed: Iterable[str] | None) -> None:
    """Refuse sources whose licence is not allowed.

    Raises:
        UserError: naming the source, its licence and what is allowed.
    """
    if allowed is None:
        return
    allowed = list(allowed)
    for source in sources:
        if not is_allowed(source.licence, allowed):
            raise source_error(
                source,
                f"its licence {source.licence} is none of corpus.allowed_licences "
                f"({', '.join(allowed) or 'none'}); take the source out, or allow its licence",
            )


def _normal(licence: str) -> str:
    return re.sub(r"[\s_]+", "-", licence.strip().lower())


def _fits(licence: str, pattern: str) -> bool:
    if not fnmatchcase(licence, pattern.replace("[", "[[]")):
        return False
    added = set(licence.split("-")) - set(pattern.split("-"))
    return pattern == "*" or not added & CONDITIONS
