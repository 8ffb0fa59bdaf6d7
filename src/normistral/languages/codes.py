"""Check and name language codes: ISO 639-3, with a script where it matters (`sme`, `nob`, `srp_Cyrl`).

Codes are labels by which sources, held-out text and tables are matched. Where one language is spelt in two
ways (`en`, `eng`), whatever compares them silently drops everything; so a code is checked where it enters.
"""

from __future__ import annotations

import difflib

from normistral.errors import UserError
from normistral.languages.table import LANGUAGES, MEANT_BY, PROGRAM_TEXT, SCRIPTS

FIRST_PRIVATE_CODE, LAST_PRIVATE_CODE = "qaa", "qtz"
"""ISO 639-3's range for local use: for a language that is not in the table."""


def language_name(code: str) -> str:
    """The English name of a code, with the script behind it where the code names one.

    Raises:
        KeyError: if the code is not known (check it with `check_language` where it enters).

    Example:
        >>> language_name("srp_Cyrl")
        'Serbian (Cyrillic)'
    """
    language, _, script = code.partition("_")
    name = language if _is_private(language) else LANGUAGES[language]
    return f"{name} ({SCRIPTS[script]})" if script else name


def check_language(code: str, where: str) -> None:
    """Refuse what is no known ISO 639-3 code (or `code` for program text).

    Args:
        code: what the user wrote.
        where: dotted path of the setting, for the message.

    Raises:
        UserError: saying which code is probably meant.
    """
    language, underscore, script = code.partition("_")
    if language not in LANGUAGES and not _is_private(language):
        raise UserError(
            f"{where} is '{code}', which is no ISO 639-3 code known here{_suggestion(language)}; for a "
            f"language that is not in the table use a code from {FIRST_PRIVATE_CODE} to {LAST_PRIVATE_CODE}"
        )
    if underscore and (script not in SCRIPTS or language == PROGRAM_TEXT):
        raise UserError(
            f"{where} is '{code}': '{script}' is no script known here; write '{language}' alone or with an "
            f"ISO 15924 script behind it ({', '.join(SCRIPTS)})"
        )


def _is_private(language: str) -> bool:
    is_code = len(language) == 3 and language.isascii() and language.islower()
    return is_code and FIRST_PRIVATE_CODE <= language <= LAST_PRIVATE_CODE and language not in LANGUAGES


def _suggestion(written: str) -> str:
    written = written.lower().split("-")[0]  # en-GB, nb-NO
    by_name = {name.lower(): code for code, name in LANGUAGES.items()}
    if written in LANGUAGES:
        return f"; did you mean '{written}'?"
    if written in MEANT_BY:
        return f"; did you mean {MEANT_BY[written]}?"
    if written in by_name:
        return f"; did you mean '{by_name[written]}'?"
    close = difflib.get_close_matches(written, by_name, n=1, cutoff=0.75)
    return f"; did you mean '{by_name[close[0]]}' ({LANGUAGES[by_name[close[0]]]})?" if close else ""
