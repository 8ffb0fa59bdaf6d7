"""The reference of all settings as Markdown, made from the docstrings of the recipe's fields.

python -m normistral.recipe.reference > docs/recipe.md
python -m normistral.recipe.reference crawl > docs/crawl-settings.md
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from normistral.recipe.cleaning import ExtractSettings
from normistral.recipe.crawl import CrawlSettings
from normistral.recipe.dedup import DedupSettings
from normistral.recipe.language_id import LanguageIdSettings
from normistral.recipe.schema import Recipe

HEAD = """\
# The recipe

A recipe is a YAML file. Unknown keys, wrong types and impossible combinations are refused before anything
runs, by one sentence that names the key, its value and what would be right. `--set adapt.steps=100` changes a
setting by its dotted path (items of `corpus.sources` by name or number). The resolved recipe, every default
written out, lies in the run's folder as `recipe.yaml`.

This page is made from the docstrings in `recipe/schema.py` and `recipe/training.py`:
`python -m normistral.recipe.reference > docs/recipe.md`.
"""

CRAWL_HEAD = """\
# Settings of a crawl

`normistral corpus crawl CRAWL.yaml` reads a YAML file of these settings, checked like a recipe; `--set
budget.pages=1000` changes one. See [crawl.md](crawl.md) for what they do together.

This page is made from the docstrings in `recipe/crawl.py`:
`python -m normistral.recipe.reference crawl > docs/crawl-settings.md`. What is "as" another setting stands in
[recipe.md](recipe.md).
"""

IN_THE_RECIPE: dict[type[BaseModel], str] = {
    ExtractSettings: "corpus.profiles[].extract",
    LanguageIdSettings: "corpus.profiles[].language_id",
    DedupSettings: "corpus.dedup",
}
"""Sections that a crawl has in common with a recipe, and where [recipe.md](recipe.md) tells of them."""


def reference() -> str:
    """The whole page."""
    return HEAD + "".join(_sections(Recipe, "", {}))


def crawl_reference() -> str:
    """The page of a crawl's settings."""
    return CRAWL_HEAD + "".join(_sections(CrawlSettings, "", dict(IN_THE_RECIPE)))


def _sections(section: type[BaseModel], path: str, told: dict[type[BaseModel], str]) -> Iterator[str]:
    told[section] = path
    yield f"\n## {path or 'Top level'}\n\n{(section.__doc__ or '').strip()}\n\n"
    yield "| setting | type | default | meaning |\n|---|---|---|---|\n"
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, field in section.model_fields.items():
        nested = _nested(field.annotation)
        dotted = f"{path}.{name}" if path else name
        known = told.get(nested) if nested else None
        described = field.description or (f"as `{known}`" if known else f"see {dotted} below")
        meaning = " ".join(described.split()).replace("|", "\\|")
        if nested and known is None:
            told[nested] = dotted
            inner.append((dotted + ("[]" if nested is not field.annotation else ""), nested))
        yield f"| `{name}` | {_type_name(field.annotation)} | {_default(field)} | {meaning} |\n"
    for dotted, nested in inner:
        yield from _sections(nested, dotted, told)


def _nested(annotation: Any) -> type[BaseModel] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        return _type_name(get_args(annotation)[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if _nested(annotation) is not None:
        return "section" if annotation is _nested(annotation) else "list of sections"
    if origin is tuple:
        return f"list of {_type_name(get_args(annotation)[0])}"
    if origin is dict:
        return f"mapping to {_type_name(get_args(annotation)[1])}"
    if origin is not None:
        return " or ".join(_type_name(part) for part in get_args(annotation) if part is not type(None))
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}.get(
        annotation, str(annotation)
    )


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "**required**"
    if isinstance(field.default, BaseModel):
        return "see below"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    if value is None or value == "":
        return "unset"
    return f"`{value:.4g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    print(crawl_reference() if sys.argv[1:] == ["crawl"] else reference(), end="")
