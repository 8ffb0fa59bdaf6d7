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
)
from normistral.recipe.dedup import DecontaminationSettings, DedupSettings
from normistral.recipe.language_id import LanguageIdSettings
from normistral.recipe.rules import LengthSettings, QualitySettings, RepetitionSettings
from normistral.recipe.settings import Settings, Share

BUILT_IN_PROFILES: dict[str, dict[str, Any]] = {
    "prose": {},
    "code": {
        "encoding": {"enabled": False},
        "lines": {
            "join_hyphenated": False,
            "join_spaced": False,
            "join_wrapped": False,
            "drop_boilerplate": False,
        },
        "length": {"enabled": False},
        "repetition": {"enabled": False},
        "quality": {"enabled": False},
        "language_id": {"enabled": False},
    },
}
"""What a profile of this name begins with; the rest are the fields' defaults."""


SourceFormat = Literal["jsonl", "parquet", "text", "html", "warc", "alto", "giellalt", "tmx"]
"""`alto` is METS with ALTO pages, or ALTO files alone."""


class ProfileSettings(Settings):
    """Which steps a source's documents go through, and how: each step can be switched and tuned."""

    based_on: Literal["prose", "code"] = "prose"
    """The built-in profile whose settings hold where this one gives none (`code`: no language id, no prose
    rules, no joining of lines)."""
    extract: ExtractSettings = ExtractSettings()
    encoding: EncodingSettings = EncodingSettings()
    lines: LineSettings = LineSettings()
    length: LengthSettings = LengthSettings()
    repetition: RepetitionSettings = RepetitionSettings()
    quality: QualitySettings = QualitySettings()
    language_id: LanguageIdSettings = LanguageIdSettings()
    personal_data: PersonalDataSettings = PersonalDataSettings()


class SourceSettings(Settings):
    """One source of documents."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    """What the source is called in every table and file name: lower-case letters, digits, `-`, `_`, `.`."""
    path: str
    """A glob over .jsonl, .parquet, .txt, .html, .warc, .tmx and .xml files (METS/ALTO, GiellaLT), also
    compressed (.gz, .zst), on this machine or in an object store (`s3://…`, `gs://…`, `https://…`);
    `hub:ORG/NAME`; or `sample:NAME`."""
    format: SourceFormat | None = None
    """What the files are; unset: as their names' endings (for .xml: their root elements) say."""
    language: str
    """ISO 639-3 code, with a script where it matters (`sme`, `nob`, `srp_Cyrl`); `code` for program text."""
    kind: Literal["prose", "code"] = "prose"
    """Prose or code: decides which cleaning rules apply."""
    profile: str | None = None
    """Name of a profile in `corpus.profiles`; unset: the one called as `kind`."""
    licence: str
    """SPDX identifier or the licence's name, kept with every document."""
    attribution: str = ""
    """Whom to name, where the licence asks for it; said on the cards of what is published."""
    home_page: str = ""
    """Address where the source is described; said on the cards of what is published."""
    quality: str = ""
    """A tag of your own (`high`, `ocr`), kept with every document."""
    text_field: str = "text"
    """Field (JSONL) or column (Parquet, hub) that holds the text; `meta.body` is `body` within `meta`."""
    id_field: str = "id"
    """Field or column that holds the document's id; where it is absent, the file name and row number
    serve."""
    url_field: str = "url"
    """Field or column that holds the document's address, kept with it."""
    date_field: str = "date"
    """Field or column that holds the original's date, kept with the document."""
    licence_field: str | None = None
    """Field or column that holds a document's own licence, in place of `licence` where it is not empty."""
    quality_score_field: str | None = None
    """Field or column with a score of the text's quality, kept with the document (0 to 1)."""
    min_quality_score: Share | None = None
    """Documents that their source scores lower are dropped (for METS/ALTO the mean confidence of the OCR)."""
    encoding: str | None = None
    """Character encoding of text, JSONL and HTML files; unset: UTF-8, and for HTML as each page says."""
    max_document_bytes: PositiveInt = 50_000_000
    """A longer document (line, file or page) is skipped, unread, and counted."""
    on_damage: Literal["refuse", "skip"] = "refuse"
    """Of a file that is cut short or damaged: `refuse` it, or `skip` its damaged part and count it."""
    other_languages: Literal["drop", "keep"] = "drop"
    """Paragraphs that a GiellaLT file marks as another language than its document's."""
    availability: Literal["free", "any"] = "free"
    """Of GiellaLT files: `free` leaves out those that their headers mark as licensed to UiT alone."""
    page_margins: Literal["drop", "keep"] = "drop"
    """Text in the margins of ALTO pages: running heads and page numbers."""
    segments_per_document: PositiveInt = 1000
    """Segments of a TMX file that make one document; a shorter file is one."""
    storage: dict[str, str | int | bool] = {}  # noqa: RUF012  # frozen like all settings
    """Options of the object store's fsspec file system, such as `anon: true` or `endpoint_url: …`; secrets
    belong into its environment variables."""
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
    part_bytes: PositiveInt = 64_000_000
    """Bytes of a source's files, as stored, that one task cleans: larger files are divided, small ones put
    together. Each task makes one file of the corpus."""
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

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the sources, each once, in their order."""
        return tuple(dict.fromkeys(source.language for source in self.sources))

    def share_of(self, source: SourceSettings) -> float:
        """Share of a source's documents that is held out."""
        return self.heldout_share if source.heldout_share is None else source.heldout_share

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
