"""Settings of language identification."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from normistral.recipe.settings import Settings, Share


class LanguageIdSettings(Settings):
    """Which documents are in the language that their source says."""

    enabled: bool = True
    """Whether documents in another language are dropped."""
    engine: Literal["py3langid", "heliport", "fasttext"] = "py3langid"
    """What gives the first vote: `py3langid` (139 languages, inside this process), `heliport` (220 languages,
    all Sámi ones; extra `heliport`, GPL-3.0, a process of its own), or `fasttext` with the file `model`
    (extra `fasttext`)."""
    model: str | None = None
    """Path of a fastText model (GlotLID, OpenLID, lid.176), for `engine` or `second_vote` `fasttext`."""
    model_sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    """What the model file must hash to; unset: not looked at."""
    second_vote: Literal["heliport", "fasttext", "off"] = "heliport"
    """What is asked too where the first vote can't be trusted. `off` takes the first vote's word for it: then
    Lule, Southern, Inari and Skolt Sámi pass as Northern Sámi."""
    second_vote_for: tuple[str, ...] = ("sme",)
    """Languages that need both votes. One that the first engine doesn't know needs the second in any case."""
    min_characters: PositiveInt = 200
    """Characters of words from which on a document is judged; what is shorter is a short document."""
    short_documents: Literal["keep", "drop"] = "keep"
    """Whether short documents are taken to be what their source says, unless another language is sure
    (`sure_score`), or all dropped."""
    sample_characters: Annotated[int, Field(ge=1_000)] = 12_000
    """Characters of a document that are read, at most: windows at even distances from beginning to end."""
    min_score: Share = 0.3
    """How sure the identifier must be of the source's language, 0 to 1."""
    min_lead: Share = 0.2
    """How much likelier another language must be than the source's to be believed: names and lists look as
    much like Danish as like Bokmål, and then the source is right."""
    sure_score: Share = 0.9
    """How sure the identifier must be that a segment, or a short document, is in another language."""
    max_minority: Share = 0.4
    """Share of a document's words that may be in other languages, told segment by segment (a line, or some
    short ones); 1 switches this off."""
    min_script: Share = 0.8
    """Share of letters that must be in the script, for languages with one (`srp_Cyrl`)."""
    on_mismatch: Literal["drop", "relabel"] = "drop"
    """What happens to a document in another language than its source's: it is dropped, or it goes on as a
    document of the language found, if that is the language of some source of the recipe."""

    @model_validator(mode="after")
    def _model_is_given(self) -> LanguageIdSettings:
        if self.enabled and "fasttext" in (self.engine, self.second_vote) and self.model is None:
            raise ValueError("fasttext needs a model file: give its path in language_id.model")
        return self
