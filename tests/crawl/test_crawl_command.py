"""The command, its settings, and what it says when it can't begin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from normistral.errors import UserError
from normistral.recipe.crawl import load_crawl
from normistral.recipe.reference import crawl_reference

GIVEN: dict[str, Any] = {
    "name": "sme-web",
    "language": "sme",
    "contact": "https://example.org/crawl",
    "seeds": {"urls": ["https://samediggi.no/"]},
}


def written(folder: Path, **changed: Any) -> Path:
    path = folder / "crawl.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in (GIVEN | changed).items() if v is not None}))
    return path


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"contact": None}, "key 'contact' is missing"),
        ({"contact": "me"}, "contact: is 'me': give a web page"),
        ({"seeds": {}}, "seeds are empty: give links_dumps, url_files or urls"),
        ({"budgets": {}}, "unknown key 'budgets'; did you mean 'budget'"),
        ({"budget": {"page": 1}}, "unknown key 'budget.page'; did you mean 'pages'"),
        ({"network": {"allow_networks": ["10.0.0.1/8"]}}, "10.0.0.1/8 has host bits set"),
        ({"network": {"resolve": {"a.no": "b.no"}}}, "'b.no' does not appear to be an IPv4 or IPv6 address"),
        ({"agent": "my bot"}, "agent is 'my bot'"),
    ],
)
def test_wrong_settings_are_one_sentence(changed: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load_crawl(written(tmp_path, **changed))
    assert sentence in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("contact", ["mailto:a@b.no", "kari@uit.no", "http://x.no/bot", "https://x.no"])
def test_pages_and_addresses_are_contacts(contact: str, tmp_path: Path) -> None:
    assert load_crawl(written(tmp_path, contact=contact)).contact == contact


def test_settings_can_be_changed_on_the_command_line(tmp_path: Path) -> None:
    changed = load_crawl(written(tmp_path), ("budget.pages=7", "follow.tunnel=0"))
    assert (changed.budget.pages, changed.follow.tunnel) == (7, 0)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"language": "se"}, "language is 'se', which is no ISO 639-3 code known here"),
        ({"seeds": {"url_files": ["none.txt"]}}, "file of seeds none.txt cannot be read"),
        ({"seeds": {"links_dumps": ["none.sql.gz"]}}, "links dump none.sql.gz does not exist"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_sentence(
    changed: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    quick = {"page": {"language_id": {"enabled": False}}, "workers": 0}
    path = written(tmp_path, **(changed | quick))
    command = [sys.executable, "-m", "normistral", "corpus", "crawl", str(path), "--out", str(tmp_path / "c")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith(f"normistral: {sentence}")
    assert len(ended.stderr.splitlines()) == 1


def test_the_reference_page_is_made_from_the_docstrings_as_they_are_now() -> None:
    page = Path(__file__).parents[2] / "docs" / "crawl-settings.md"
    assert page.read_text(encoding="utf-8") == crawl_reference(), (
        "run: python -m normistral.recipe.reference crawl > docs/crawl-settings.md"
    )


def test_the_crawl_that_comes_with_the_product_is_one() -> None:
    settings = load_crawl(Path(__file__).parents[2] / "recipes" / "crawls" / "sme.yaml")
    assert (settings.name, settings.language) == ("sme-web", "sme")
