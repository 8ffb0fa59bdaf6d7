"""Settings of language identification."""

from __future__ import annotations

from normistral.recipe.settings import Settings


class LanguageIdSettings(Settings):
    """Which documents are in the language that their source says."""

    enabled: bool = True
    """Whether documents in another language are dropped."""
