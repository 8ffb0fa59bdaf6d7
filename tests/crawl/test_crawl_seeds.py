"""External links out of Wikipedia dumps of both layouts, and seeds out of files and settings."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normistral.corpus.crawl import sql_dump
from normistral.corpus.crawl.seeds import seed_urls
from normistral.corpus.crawl.sql_dump import domain_in_order, external_links
from normistral.errors import UserError
from normistral.recipe.crawl import SeedSettings

HEAD = """-- MySQL dump 10.19
/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;
DROP TABLE IF EXISTS `externallinks`;
CREATE TABLE `externallinks` (
{columns}
  PRIMARY KEY (`el_id`),
  KEY `el_from` (`el_from`)
) ENGINE=InnoDB AUTO_INCREMENT=94 DEFAULT CHARSET=binary;
/*!40000 ALTER TABLE `externallinks` DISABLE KEYS */;
"""
OLD = HEAD.format(
    columns="  `el_id` int(10) unsigned NOT NULL,\n  `el_from` int(8) unsigned NOT NULL DEFAULT 0,\n"
    "  `el_to` blob NOT NULL,\n  `el_index` blob NOT NULL,\n  `el_index_60` varbinary(60) NOT NULL,"
)
NEW = HEAD.format(
    columns="  `el_id` int(10) unsigned NOT NULL,\n  `el_from` int(8) unsigned NOT NULL DEFAULT 0,\n"
    "  `el_to_domain_index` varbinary(255) NOT NULL DEFAULT '',\n  `el_to_path` blob DEFAULT NULL,"
)


def quoted(text: str) -> str:
    """A string as mysqldump writes it."""
    for plain, escaped in (("\\", "\\\\"), ("'", "\\'"), ('"', '\\"'), ("\n", "\\n"), ("\0", "\\0")):
        text = text.replace(plain, escaped)
    return f"'{text}'"


def dump(head: str, rows: list[tuple[str, ...]], folder: Path, rows_a_statement: int = 2) -> Path:
    statements = [
        "INSERT INTO `externallinks` VALUES "
        + ",".join(f"({number},{number + 7},{','.join(row)})" for number, row in enumerate(some))
        + ";\n"
        for some in (
            rows[start : start + rows_a_statement] for start in range(0, len(rows), rows_a_statement)
        )
    ]
    path = folder / "sewiki-latest-externallinks.sql.gz"
    path.write_bytes(gzip.compress((head + "".join(statements) + "/*!40000 ENABLE KEYS */;\n").encode()))
    return path


def test_the_new_layout_is_read(tmp_path: Path) -> None:
    rows = [
        (quoted("https://no.uit."), quoted("/a(b)'c,d;e")),
        (quoted("http://no.uit.site.:8080"), "NULL"),
        (quoted("https://se.yle."), quoted("/á?q=\\x")),
        (quoted("http://V4.10.0.0.1."), quoted("/")),
    ]
    assert list(external_links(dump(NEW, rows, tmp_path))) == [
        "https://uit.no/a(b)'c,d;e",
        "http://site.uit.no:8080",
        "https://yle.se/á?q=\\x",
        "http://10.0.0.1/",
    ]


def test_the_old_layout_is_read(tmp_path: Path) -> None:
    urls = ["http://www.samediggi.no/", "//yle.fi/sapmi", "https://x.no/it's"]
    rows = [(quoted(url), quoted("http://no.samediggi.www./"), quoted("http://no")) for url in urls]
    assert list(external_links(dump(OLD, rows, tmp_path))) == urls


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text(alphabet="ab'\\\"(),; \n\0čá/?", min_size=1, max_size=30), min_size=1, max_size=8),
    st.integers(min_value=1, max_value=4),
    st.integers(min_value=1, max_value=90),
)
def test_any_text_in_any_pieces_comes_back(urls: list[str], per_statement: int, chunk: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sql_dump, "CHUNK_BYTES", chunk)
        rows = [(quoted(url), "''", "''") for url in urls]
        assert list(external_links(dump(OLD, rows, Path(folder), per_statement))) == urls


@pytest.mark.parametrize(
    ("index", "domain"),
    [
        ("https://no.uit.", "https://uit.no"),
        ("https://no.uit.site.:8080", "https://site.uit.no:8080"),
        ("http://V6.2001.DB8.0.0.0.0.0.1.", "http://[2001:DB8:0:0:0:0:0:1]"),
        ("mailto:", "mailto:"),
    ],
)
def test_reversed_hosts_are_put_in_order(index: str, domain: str) -> None:
    assert domain_in_order(index) == domain


def test_a_dump_cut_short_is_one_sentence(tmp_path: Path) -> None:
    path = dump(
        NEW, [(quoted("https://no.uit."), quoted(f"/{number}" * 50)) for number in range(500)], tmp_path
    )
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"is damaged or cut short .* download it again"):
        list(external_links(path))
    plain = tmp_path / "cut.sql"
    plain.write_text(NEW + "INSERT INTO `externallinks` VALUES (1,2,'https://no.uit.','/a'),(2,3,'https")
    with pytest.raises(UserError, match="is cut short in the middle of a row"):
        list(external_links(plain))


def test_another_table_or_no_dump_at_all_is_one_sentence(tmp_path: Path) -> None:
    other = tmp_path / "pagelinks.sql"
    other.write_text("CREATE TABLE `pagelinks` (\n  `pl_from` int\n);\nINSERT INTO `pagelinks` VALUES (1);\n")
    with pytest.raises(UserError, match=r"has no column el_to.*\(found: pl_from\)"):
        list(external_links(other))
    other.write_text("hello")
    with pytest.raises(UserError, match="holds no INSERT statement"):
        list(external_links(other))
    with pytest.raises(UserError, match="does not exist"):
        list(external_links(tmp_path / "none.sql.gz"))
    other.with_suffix(".gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="is damaged or cut short"):
        list(external_links(other.with_suffix(".gz")))


def test_seeds_are_canonical_and_without_what_is_skipped(tmp_path: Path) -> None:
    listed = tmp_path / "seeds.txt"
    listed.write_text(
        "# mine\n\nhttps://yle.fi/Sapmi#x\nno url\nhttps://se.wikipedia.org/wiki/X\nhttps://a.no/b.pdf\n"
    )
    chosen = SeedSettings(
        urls=("HTTPS://Samediggi.no",),
        url_files=(str(listed),),
        links_dumps=(str(dump(NEW, [(quoted("https://no.uit."), quoted("/se"))], tmp_path)),),
    )
    assert list(seed_urls(chosen, 1000)) == [
        "https://samediggi.no/",
        "https://yle.fi/Sapmi",
        "https://uit.no/se",
    ]


def test_a_wrong_seed_in_the_settings_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'samediggi.no' is no http or https URL"):
        list(seed_urls(SeedSettings(urls=("samediggi.no",)), 1000))
    with pytest.raises(UserError, match=r"file of seeds .*none\.txt cannot be read"):
        list(seed_urls(SeedSettings(url_files=(str(tmp_path / "none.txt"),)), 1000))
