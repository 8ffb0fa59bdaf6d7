"""A rewritten model folder differs in the replaced tensors alone, and is gone on with after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from normistral.errors import UserError
from normistral.weights import (
    read_config,
    read_tensor,
    rewrite_model_folder,
    tensor_names,
    write_model_folder,
)

CONFIG = {"model_type": "mistral", "vocab_size": 9, "tie_word_embeddings": False}
NAMES = ["model.embed_tokens.weight", "a", "b", "c", "lm_head.weight"]
NEW = torch.arange(35, dtype=torch.float32).reshape(7, 5)


def source(folder: Path, config: dict[str, Any] = CONFIG, shard_bytes: int = 300) -> Path:
    tensors = {name: torch.randn(9, 5, generator=torch.manual_seed(n)) for n, name in enumerate(NAMES)}
    tensors["b"] = torch.tensor(3.0)
    write_model_folder(folder, config | {"tie_word_embeddings": False}, tensors.items(), shard_bytes)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def nothing(folder: Path) -> None:
    """No further files."""


def rewritten(tmp_path: Path, config: dict[str, Any] = CONFIG, **options: Any) -> Path:
    replace: dict[str, Callable[[], Tensor]] = {"model.embed_tokens.weight": lambda: NEW}
    rewrite_model_folder(tmp_path / "a", tmp_path / "b", config, replace, nothing, **options)
    return tmp_path / "b"


@pytest.mark.parametrize("shard_bytes", [100, 300, 10_000])
@pytest.mark.parametrize("link", [True, False])
def test_it_differs_in_the_replaced_tensors_alone(tmp_path: Path, shard_bytes: int, link: bool) -> None:
    source(tmp_path / "a", shard_bytes=shard_bytes)
    new = CONFIG | {"vocab_size": 7}
    made: dict[str, Callable[[], Tensor]] = {name: lambda: NEW.bfloat16() for name in (NAMES[0], NAMES[4])}
    written = rewrite_model_folder(tmp_path / "a", tmp_path / "b", new, made, nothing, link=link)
    assert read_config(tmp_path / "b") == new
    assert set(tensor_names(tmp_path / "b")) == set(NAMES)
    assert (written.tensors, written.parameters) == (5, 2 * 35 + 2 * 45 + 1)
    for name in (NAMES[0], NAMES[4]):
        assert torch.equal(read_tensor(tmp_path / "b", name), NEW.bfloat16())
    for name in ("a", "b", "c"):
        assert torch.equal(read_tensor(tmp_path / "a", name), read_tensor(tmp_path / "b", name))
    index = tmp_path / "b" / "model.safetensors.index.json"
    assert index.exists() == (shard_bytes < 10_000)
    if index.exists():
        assert json.loads(index.read_text())["metadata"]["total_size"] == 2 * 35 * 2 + 2 * 45 * 4 + 4


def test_a_file_without_a_change_is_linked_where_that_is_wanted(tmp_path: Path) -> None:
    source(tmp_path / "a")
    files = {file.name for file in (tmp_path / "a").glob("*.safetensors")}
    changed = tensor_names(tmp_path / "a")["model.embed_tokens.weight"].name
    output = rewritten(tmp_path)
    for name in files:
        assert (tmp_path / "a" / name).samefile(output / name) == (name != changed)
    output = rewritten(tmp_path, link=False)
    assert not any((tmp_path / "a" / name).samefile(output / name) for name in files)


def test_a_link_of_a_hub_cache_is_followed(tmp_path: Path) -> None:
    source(tmp_path / "blobs")
    (tmp_path / "a").mkdir()
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "a" / file.name).symlink_to(file)
    output = rewritten(tmp_path)
    assert not any(file.is_symlink() for file in output.iterdir())
    assert torch.equal(read_tensor(output, "c"), read_tensor(tmp_path / "blobs", "c"))


def test_a_tied_model_loses_an_lm_head_that_was_stored(tmp_path: Path) -> None:
    config = CONFIG | {"tie_word_embeddings": True}
    source(tmp_path / "a", config)
    assert set(tensor_names(rewritten(tmp_path, config))) == set(NAMES) - {"lm_head.weight"}


def test_the_metadata_of_a_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text(json.dumps(CONFIG))
    tensors = {"model.embed_tokens.weight": torch.zeros(9, 5), "c": torch.ones(3, dtype=torch.int64)}
    save_file(tensors, tmp_path / "a" / "model.safetensors", metadata={"format": "pt", "made": "by me"})
    output = rewritten(tmp_path)
    header = (output / "model.safetensors").read_bytes()
    assert b'"made":"by me"' in header
    assert read_tensor(output, "c").tolist() == [1, 1, 1]


@pytest.mark.parametrize("output", [".", "a", "../{name}/a"])
def test_overwriting_the_source_is_refused(tmp_path: Path, output: str) -> None:
    source(tmp_path / "a")
    with pytest.raises(UserError, match="would overwrite"):
        rewrite_model_folder(
            tmp_path / "a", tmp_path / output.format(name=tmp_path.name), CONFIG, {}, nothing
        )
    assert tensor_names(tmp_path / "a")


def test_a_folder_of_other_things_is_not_replaced(tmp_path: Path) -> None:
    source(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds other things"):
        rewritten(tmp_path)
    assert (tmp_path / "b" / "thesis.tex").exists()


KILLED = """
import json, os, signal, sys, torch
from pathlib import Path
from normistral.weights import rewrite_model_folder
here, config = Path(sys.argv[1]), json.loads(sys.argv[2])
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
replace = {"model.embed_tokens.weight": lambda: torch.arange(35.0).reshape(7, 5), "lm_head.weight": kill}
rewrite_model_folder(here / "a", here / "b", config, replace, lambda folder: None, link=False)
"""


def test_a_killed_rewrite_goes_on_where_it_was(tmp_path: Path) -> None:
    source(tmp_path / "a", shard_bytes=1)
    arguments = [sys.executable, "-c", KILLED, str(tmp_path), json.dumps(CONFIG)]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "b").exists()
    finished = json.loads((tmp_path / "b.partial" / "finished.json").read_text())["files"]
    before = {name: (tmp_path / "b.partial" / name).stat().st_mtime_ns for name in finished}
    assert len(before) == 4
    asked = []

    def head() -> Tensor:
        asked.append("head")
        return NEW

    def embeddings() -> Tensor:
        asked.append("embeddings")
        return NEW

    replace = {"model.embed_tokens.weight": embeddings, "lm_head.weight": head}
    rewrite_model_folder(tmp_path / "a", tmp_path / "b", CONFIG, replace, nothing, link=False)
    assert asked == ["head"]
    assert before == {name: (tmp_path / "b" / name).stat().st_mtime_ns for name in finished}
    assert torch.equal(read_tensor(tmp_path / "b", "model.embed_tokens.weight"), NEW)
    assert not (tmp_path / "b.partial").exists()
    assert not (tmp_path / "b" / "finished.json").exists()


def test_unfinished_work_from_another_source_is_thrown_away(tmp_path: Path) -> None:
    source(tmp_path / "a", shard_bytes=1)
    arguments = [sys.executable, "-c", KILLED, str(tmp_path), json.dumps(CONFIG)]
    subprocess.run(arguments, check=False)
    other = torch.zeros(7, 5)
    replace: dict[str, Callable[[], Tensor]] = {name: lambda: other for name in (NAMES[0], NAMES[4])}
    rewrite_model_folder(
        tmp_path / "a", tmp_path / "b", CONFIG, replace, nothing, made_from="another tokenizer"
    )
    assert torch.equal(read_tensor(tmp_path / "b", "model.embed_tokens.weight"), other)
