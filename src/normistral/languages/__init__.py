"""Language codes (ISO 639-3) and their names."""

from normistral.languages.codes import check_language, language_name
from normistral.languages.table import LANGUAGES, PROGRAM_TEXT

__all__ = ["LANGUAGES", "PROGRAM_TEXT", "check_language", "language_name"]
