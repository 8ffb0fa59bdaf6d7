"""Settings of the corpus: sources, the profiles by which they are cleaned, and what is held out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from normistral.recipe.checks import suggest_name
from normistral.recipe.cleaning import (
    EncodingSettings,
    ExtractSettings,
    LineSettings,
    PersonalDataSettings,
    RuleSettings,
)
from normistral.recipe.dedup import DecontaminationSettings, DedupSettings
from normistral.recipe.language_id import LanguageIdSettings
from normistral.recipe.settings import Settings, Share

BUILT_IN_PROFILES: dict[str, dict[str, Any]] = {
    "prose": {},
    "code": {
        "encoding": {"enabled": False},
        "lines": {"join_hyphenated": False, "drop_boilerplate": False},
        "rules": {"enabled": False},
        "language_id": {"enabled": False},
    },
}
"""What a profile of this name begins with; the rest are the fields' defaults."""


class ProfileSettings(Settings):
    """Which steps a source's documents go through, and how: each step can be switched and tuned."""

    based_on: Literal["prose", "code"] = "prose"
    """The built-in profile whose settings hold where this one gives none (`code`: no language id, no prose
    rules, no joining of lines)."""
    extract: ExtractSettings = ExtractSettings()
    encoding: EncodingSettings = EncodingSettings()
    lines: LineSettings = LineSettings()
    rules: RuleSettings = RuleSettings()
    language_id: LanguageIdSettings = LanguageIdSettings()
    personal_data: PersonalDataSettings = PersonalDataSettings()


class SourceSettings(Settings):
    """One source of documents."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    """What the source is called in every table and file name: lower-case letters, digits, `-`, `_`, `.`."""
    path: str
    """A glob over .jsonl, .jsonl.gz, .jsonl.zst, .parquet or .txt files; `hub:ORG/NAME`; or `sample:NAME`."""
    language: str
    """ISO 639-3 code, with a script where it matters (`sme`, `nob`, `srp_Cyrl`); `code` for program text."""
    kind: Literal["prose", "code"] = "prose"
    """Prose or code: decides which cleaning rules apply."""
    profile: str | None = None
    """Name of a profile in `corpus.profiles`; unset: the one called as `kind`."""
    licence: str
    """SPDX identifier or the licence's name, kept with every document."""
    quality: str = ""
    """A tag of your own (`high`, `ocr`), kept with every document."""
    text_field: str = "text"
    """Field (JSONL) or column (Parquet, hub) that holds the text."""
    id_field: str = "id"
    """Field or column that holds the document's id; where it is absent, the file name and row number
    serve."""
    heldout_share: Share | None = None
    """Share of this source's documents held out; unset: `corpus.heldout_share`."""
    declared_tokens: PositiveInt | None = None
    """Unique tokens that the source is said to have, for plans made before it is tokenised ("assumed")."""


class CorpusSettings(Settings):
    """Where text comes from, how it is cleaned and what is held out."""

    folder: str = ""
    """Folder that relative paths of sources start from; empty: where the command runs."""
    sources: Annotated[tuple[SourceSettings, ...], Field(min_length=1)]
    """All sources, in order of priority: of two equal documents the one from the earlier source is kept."""
    allowed_licences: tuple[str, ...] | None = None
    """Licences that sources and documents may have; all others are refused. Unset: any."""
    profiles: dict[str, ProfileSettings] = {}  # noqa: RUF012  # frozen like all settings
    """Profiles by name; `prose` and `code` are there without being named, and can be changed here."""
    dedup: DedupSettings = DedupSettings()
    decontamination: DecontaminationSettings = DecontaminationSettings()
    removal_list: str | None = None
    """File with one document id (`SOURCE/ID`) or url a line: documents to be taken out."""
    heldout_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    """Share of documents held out for evaluation, chosen by a hash of the document's id."""
    min_heldout_bytes: PositiveInt = 10_000
    """A language with less held-out text (UTF-8 bytes) than this is refused: its figures would be noise."""

    @field_validator("sources")
    @classmethod
    def _names_are_unique(cls, sources: tuple[SourceSettings, ...]) -> tuple[SourceSettings, ...]:
        names = [source.name for source in sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"source names must differ; used twice: {', '.join(twice)}")
        return sources

    @field_validator("profiles", mode="before")
    @classmethod
    def _complete(cls, profiles: Any) -> Any:
        """Lay each profile over the built-in one that it is based on."""
        if not isinstance(profiles, dict):
            return profiles
        complete = {}
        for name in (*BUILT_IN_PROFILES, *(name for name in profiles if name not in BUILT_IN_PROFILES)):
            given = profiles.get(name, {})
            if not isinstance(given, dict):
                complete[name] = given
                continue
            base = given.get("based_on", name if name in BUILT_IN_PROFILES else "prose")
            complete[name] = _laid_over(BUILT_IN_PROFILES.get(base, {}), given) | {"based_on": base}
        return complete

    @model_validator(mode="after")
    def _profiles_exist(self) -> CorpusSettings:
        for source in self.sources:
            if source.profile is not None and source.profile not in self.profiles:
                raise ValueError(
                    f"source '{source.name}' names profile '{source.profile}', which is none of "
                    f"corpus.profiles ({', '.join(self.profiles)})"
                    + suggest_name(source.profile, self.profiles)
                )
        return self

    def profile_of(self, source: SourceSettings) -> ProfileSettings:
        """The profile by which a source's documents are cleaned."""
        return self.profiles[source.profile or source.kind]


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above`, with what only `below` has, section by section."""
    merged = dict(below)
    for key, value in above.items():
        known = below.get(key)
        merged[key] = (
            _laid_over(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
        )
    return merged
