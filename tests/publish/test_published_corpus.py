"""A corpus published as a data set folder: nothing lost, loadable, told by its records, licences heeded."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow.parquet as pq
import pytest
import yaml
from built_corpus import dropped, kept, write_corpus

from normistral.corpus.documents import Dropped, text_digest
from normistral.corpus.fates import HELDOUT
from normistral.corpus.reports import BuiltCorpus
from normistral.errors import UserError
from normistral.publish import publish_corpus, upload_data_set
from normistral.publish.corpus_data import write_data

SHORT = Dropped("length", "min_words", "2 words, at least 20 wanted")


@pytest.fixture
def corpus(tmp_path: Path) -> BuiltCorpus:
    return write_corpus(
        tmp_path / "run",
        [
            *(kept(f"n{n}", f"nyhet nummer {n}", url=f"https://avis{n % 3}.no/{n}") for n in range(50)),
            *(kept(f"h{n}", f"holdt ut {n}", outcome=HELDOUT) for n in range(5)),
            *(dropped(f"s{n}", "kort tekst", SHORT) for n in range(45)),
            *(
                kept(f"l{n}", f"láhka {n}", source="laws", language="sme", licence="NLOD-2.0")
                for n in range(4)
            ),
            kept("nno", "ei lov", source="laws", language="nno", licence="NLOD-2.0"),
            kept("f", "def f(): pass", source="library", language="code", kind="code", licence="PSF-2.0"),
        ],
        news={"path": "/home/somebody/news/*.jsonl", "attribution": "Avisa | Redaksjonen"},
        library={"path": "sample:python-stdlib"},
    )


def front_matter(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(
        (folder / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    )
    return content


def test_every_document_is_published_once_in_its_language_and_split(
    corpus: BuiltCorpus, tmp_path: Path
) -> None:
    written = publish_corpus(corpus, tmp_path / "data-set")
    assert written["documents"] == 61
    rows = {}
    for path in written["files"]:
        table = pq.read_table(tmp_path / "data-set" / path)
        for row in table.to_pylist():
            rows[row["source"], row["id"]] = (path, row)
    assert len(rows) == 61
    assert {path for path, _ in rows.values()} == {
        "data/code/train-00000-of-00001.parquet",
        "data/nno/train-00000-of-00001.parquet",
        "data/nob/train-00000-of-00001.parquet",
        "data/nob/validation-00000-of-00001.parquet",
        "data/sme/train-00000-of-00001.parquet",
    }
    path, row = rows["news", "h3"]
    assert path == "data/nob/validation-00000-of-00001.parquet"
    assert row["text"] == "holdt ut 3"
    assert row["digest"] == text_digest("holdt ut 3").hex()
    assert row["steps"] == ["encoding", "lines*", "length", "language"]


def test_one_language_alone_stands_in_the_data_folder_itself(corpus: BuiltCorpus, tmp_path: Path) -> None:
    written = publish_corpus(corpus, tmp_path / "news", sources=("news",))
    assert written["files"] == [
        "data/train-00000-of-00001.parquet",
        "data/validation-00000-of-00001.parquet",
    ]
    assert front_matter(tmp_path / "news")["configs"] == [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "data/train-*.parquet"},
                {"split": "validation", "path": "data/validation-*.parquet"},
            ],
        }
    ]


def test_files_of_the_front_matter_are_those_that_were_written(corpus: BuiltCorpus, tmp_path: Path) -> None:
    written = publish_corpus(corpus, tmp_path / "set")
    for config in front_matter(tmp_path / "set")["configs"]:
        for entry in config["data_files"]:
            found = {
                path.relative_to(tmp_path / "set").as_posix()
                for path in (tmp_path / "set").glob(entry["path"])
            }
            language = "" if config["config_name"] == "default" else f"/{config['config_name']}/"
            assert found == {path for path in written["files"] if entry["split"] in path and language in path}


def test_files_are_begun_anew_when_they_are_full_and_no_row_is_lost(
    corpus: BuiltCorpus, tmp_path: Path
) -> None:
    for number in range(3):  # three row groups, each fuller than a file may be
        corpus.manifest["files"].append(corpus.manifest["files"][0] | {"documents": number})
    files = write_data(corpus, ["news"], tmp_path, max_file_bytes=500)
    train = [file for file in files if file.split == "train"]
    assert [Path(file.path).name for file in train] == [
        f"train-{number:05d}-of-00004.parquet" for number in range(4)
    ]
    assert sum(file.documents for file in train) == 200


def test_the_front_matter_is_what_the_hub_reads(corpus: BuiltCorpus, tmp_path: Path) -> None:
    publish_corpus(corpus, tmp_path / "set", name="A set")
    metadata = front_matter(tmp_path / "set")
    assert metadata["pretty_name"] == "A set"
    assert metadata["language"] == ["nob", "nno", "sme", "code"]
    assert (metadata["license"], metadata["license_name"]) == ("other", "cc0-1.0-and-nlod-2.0-and-psf-2.0")
    assert metadata["size_categories"] == ["n<1K"]
    assert metadata["task_categories"] == ["text-generation", "fill-mask"]
    publish_corpus(corpus, tmp_path / "news", sources=("news",))
    assert front_matter(tmp_path / "news")["license"] == "cc0-1.0"


def test_the_card_tells_sources_steps_and_what_was_dropped(corpus: BuiltCorpus, tmp_path: Path) -> None:
    publish_corpus(corpus, tmp_path / "set", description="News and laws.", contact="us@example.org")
    card = (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
    for sentence in (
        "News and laws.",
        "61 documents, ",
        "Of the 106 documents read, 57.5 % were kept.",
        "| news | Norwegian Bokmål | CC0-1.0 | 3 hosts of the web: avis0.no, avis1.no, avis2.no | 55 | 165 |",
        "- news: Avisa | Redaksjonen",
        "- library: CPython © Python Software Foundation",
        "Of 106 documents 45 were dropped.",
        "`min_words` 20",
        "| length | min_words | 45 |",
        "write to us@example.org with its `source` and `id`",
        'load_dataset("set", "nob", split="train")',
    ):
        assert sentence in card
    assert "None" not in card


def test_nothing_tells_of_the_machine(corpus: BuiltCorpus, tmp_path: Path) -> None:
    publish_corpus(corpus, tmp_path / "set")
    for name in ("README.md", "corpus.json", "SHA256SUMS"):
        text = (tmp_path / "set" / name).read_text(encoding="utf-8")
        assert "somebody" not in text
        assert str(tmp_path) not in text
    settings = json.loads((tmp_path / "set" / "corpus.json").read_text(encoding="utf-8"))
    assert settings["sources"][2]["path"] == "sample:python-stdlib"
    assert settings["profiles"]["prose"]["length"]["min_words"] == 20


def test_tables_have_a_cell_for_every_column(corpus: BuiltCorpus, tmp_path: Path) -> None:
    publish_corpus(corpus, tmp_path / "set")
    widths: list[int] = []
    for line in (tmp_path / "set" / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            widths.append(len(re.split(r"(?<!\\)\|", line)))
            assert widths[-1] == widths[0], line
        else:
            widths.clear()


def test_sha256sum_finds_every_file_whole(corpus: BuiltCorpus, tmp_path: Path) -> None:
    publish_corpus(corpus, tmp_path / "set")
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=tmp_path / "set", check=False).returncode == 0
    (tmp_path / "set" / "data" / "sme" / "train-00000-of-00001.parquet").write_bytes(b"")
    assert subprocess.run(check, cwd=tmp_path / "set", check=False, capture_output=True).returncode == 1


def test_publishing_again_gives_the_same_bytes_and_replaces_the_folder(
    corpus: BuiltCorpus, tmp_path: Path
) -> None:
    publish_corpus(corpus, tmp_path / "set")
    before = (tmp_path / "set" / "SHA256SUMS").read_bytes()
    publish_corpus(corpus, tmp_path / "set", sources=("news",))
    assert not (tmp_path / "set" / "data" / "sme").exists()
    publish_corpus(corpus, tmp_path / "set")
    assert (tmp_path / "set" / "SHA256SUMS").read_bytes() == before


def test_a_folder_with_other_things_is_not_replaced(corpus: BuiltCorpus, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it", encoding="utf-8")
    with pytest.raises(UserError, match="mine holds other things and is not replaced"):
        publish_corpus(corpus, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_licence_that_does_not_allow_it_is_refused_and_can_be_accepted(tmp_path: Path) -> None:
    fates = [kept("1", "en tekst", licence="CC-BY-ND-4.0"), kept("2", "to", licence="CC-BY-4.0")]
    corpus = write_corpus(tmp_path / "run", fates)
    with pytest.raises(UserError, match=r"'CC-BY-ND-4.0' \(1 of source 'news'\).*--accept-licence"):
        publish_corpus(corpus, tmp_path / "set")
    assert not (tmp_path / "set").exists()
    assert publish_corpus(corpus, tmp_path / "set", accepted_licences=("cc-by-nd-*",))["documents"] == 2


def test_a_misspelt_source_is_refused_with_the_right_one(corpus: BuiltCorpus, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no source 'nws' \(it has: news, laws, library\); did you mean 'news'"
    ):
        publish_corpus(corpus, tmp_path / "set", sources=("nws",))


def test_a_corpus_whose_files_and_fates_differ_is_refused(corpus: BuiltCorpus, tmp_path: Path) -> None:
    del corpus.manifest["files"][0]
    with pytest.raises(UserError, match=r"has 11 documents in its files and 61 in its fates"):
        publish_corpus(corpus, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_datasets_loads_the_folder(corpus: BuiltCorpus, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    publish_corpus(corpus, tmp_path / "set")
    loaded = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {"train": 56, "validation": 5}
    sami = datasets.load_dataset(str(tmp_path / "set"), "sme", cache_dir=str(tmp_path / "cache"))
    assert sami["train"]["text"][0] == "láhka 0"


def test_without_a_hub_the_upload_is_refused_in_a_sentence(
    corpus: BuiltCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_corpus(corpus, tmp_path / "set", sources=("news",))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(
        UserError, match=r"set is written, but could not be uploaded to us/set \(.*hf auth login"
    ):
        upload_data_set(tmp_path / "set", "us/set")
    with pytest.raises(UserError, match="'set' is no repository of the hub; write ORG/NAME"):
        upload_data_set(tmp_path / "set", "set")


def test_an_upload_makes_the_repository_and_sends_the_folder(
    corpus: BuiltCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_corpus(corpus, tmp_path / "set", sources=("news",))
    calls: dict[str, Any] = {}
    for name in ("create_repo", "upload_folder"):
        signature = inspect.signature(getattr(huggingface_hub.HfApi, name))

        def call(
            *given: Any, _name: str = name, _signature: inspect.Signature = signature, **named: Any
        ) -> str:
            calls[_name] = _signature.bind(*given, **named).arguments  # as the real one would take them
            return "https://huggingface.co/datasets/us/set"

        monkeypatch.setattr(huggingface_hub.HfApi, name, call)
    assert upload_data_set(tmp_path / "set", "us/set") == "https://huggingface.co/datasets/us/set"
    assert calls["create_repo"]["repo_type"] == "dataset"
    assert calls["create_repo"]["private"] is True
    assert calls["upload_folder"]["folder_path"] == tmp_path / "set"
    assert calls["upload_folder"]["delete_patterns"] == "data/*"


def test_a_source_whose_documents_have_licences_of_their_own_tells_how_many_have_which(
    tmp_path: Path,
) -> None:
    fates = [kept(f"{n}", f"tekst {n}", licence="CC-BY-4.0" if n else "CC0-1.0") for n in range(4)]
    publish_corpus(write_corpus(tmp_path / "run", fates), tmp_path / "set")
    card = (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
    assert "| CC-BY-4.0 (3), CC0-1.0 (1) |" in card
    assert "- CC-BY-4.0: name the source" in card
    assert front_matter(tmp_path / "set")["license"] == ["cc-by-4.0", "cc0-1.0"]
