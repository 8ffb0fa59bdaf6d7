"""Read a recipe file, apply `--set` overrides, and say in one sentence what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from normistral.errors import UserError
from normistral.recipe.checks import suggest_name
from normistral.recipe.schema import Recipe

Section = TypeVar("Section", bound=BaseModel)


def load_recipe(path: str | Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the YAML file.
        overrides: `dotted.path=value` each, as given to `--set`; the value is read as YAML. A list item is
            reached by its number or, in `corpus.sources`, by its name.

    Returns:
        The checked, frozen recipe.

    Raises:
        UserError: if the file is missing or no YAML mapping, or a key or value is refused.

    Example:
        >>> load_recipe("recipes/quickstart.yaml", ("adapt.steps=10",)).adapt.steps  # doctest: +SKIP
        10
    """
    return load_settings(Recipe, path, overrides, "recipe")


def load_settings(
    kind: type[Section], path: str | Path, overrides: tuple[str, ...] = (), what: str = "recipe"
) -> Section:
    """Read and check a file of settings of any kind.

    Args:
        kind: the section that the whole file is.
        path: the YAML file.
        overrides: as for `load_recipe`.
        what: what such a file is called, for the messages.

    Raises:
        UserError: as for `load_recipe`.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{what} {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{what} {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        keys = ", ".join([name for name, field in kind.model_fields.items() if field.is_required()][:3])
        raise UserError(f"{what} {path} must be a mapping of sections ({keys}, …)")
    for override in overrides:
        _apply_override(data, override)
    return _checked(kind, data, f"{what} {path}")


def parse_recipe(data: dict[str, Any], where: str = "recipe") -> Recipe:
    """Check a recipe given as a mapping.

    Raises:
        UserError: naming the first wrong key, its value, and what would be right.
    """
    return _checked(Recipe, data, where)


def _checked(kind: type[Section], data: dict[str, Any], where: str) -> Section:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        problems = error.errors()
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{where}: {_sentence(problems[0], kind)}{more}") from error


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe, every default written out, as YAML that `load_recipe` reads back."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def _sentence(problem: ErrorDetails, kind: type[BaseModel]) -> str:
    location = [str(part) for part in problem["loc"]]
    dotted = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = _keys_at(location[:-1], kind)
        return f"unknown key '{dotted}'{suggest_name(location[-1], known)} (known here: {', '.join(known)})"
    if problem["type"] == "missing":
        return f"key '{dotted}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{dotted}: {message}" if dotted else message
    return f"{dotted} is {problem['input']!r}: {message[0].lower()}{message[1:]}"


def _keys_at(location: list[str], kind: type[BaseModel]) -> list[str]:
    """Names of the settings in the section that a pydantic error location points into."""
    section = kind
    for part in location:
        field = section.model_fields.get(part)
        if field is None:
            continue  # a list index
        candidates = [field.annotation, *get_args(field.annotation)]
        found = [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if found:
            section = found[0]
    return list(section.model_fields)


def _apply_override(data: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise UserError(f"--set {override}: expected dotted.path=value, for example adapt.steps=100")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not valid YAML") from error
    *parents, last = dotted.split(".")
    node: Any = data
    for part in parents:
        node = _step_into(node, part, override)
    if isinstance(node, dict):
        node[last] = value
    elif isinstance(node, list):
        node[_list_index(node, last, override)] = value
    else:
        raise UserError(f"--set {override}: '{'.'.join(parents)}' is a plain value and has no '{last}'")


def _step_into(node: Any, part: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_list_index(node, part, override)]
    if isinstance(node, dict):
        if node.get(part) is None:
            node[part] = {}
        return node[part]
    raise UserError(f"--set {override}: '{part}' lies inside a plain value")


def _list_index(items: list[Any], part: str, override: str) -> int:
    for index, item in enumerate(items):
        if isinstance(item, dict) and item.get("name") == part:
            return index
    if part.isdigit() and int(part) < len(items):
        return int(part)
    raise UserError(f"--set {override}: no item '{part}' in a list of {len(items)}")
