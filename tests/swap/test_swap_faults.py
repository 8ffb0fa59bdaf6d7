"""What can be wrong with a base is named in a sentence, and nothing half-written looks whole."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from base_tokenizers import save_base_model
from safetensors.torch import load_file, save_file
from tiny_swap import BASE_VOCABULARY, PADDED_ROWS, base_tokenizer, save_base, save_new
from tokenizers import AddedToken, Tokenizer

from normistral.errors import UserError
from normistral.swap import swap_vocabulary
from normistral.tokenizer import extend_tokenizer, save_tokenizer, take_over
from normistral.weights import read_config, read_tensor, tensor_names

EMBEDDINGS, LM_HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path, Path]:
    """An untied base of several files, a tokenizer, and where the swapped model is to be."""
    save_base(tmp_path / "base", tied=False)
    save_new(tmp_path / "tokenizer")
    return tmp_path / "base", tmp_path / "tokenizer", tmp_path / "out"


def refused(inputs: tuple[Path, Path, Path], match: str) -> None:
    with pytest.raises(UserError, match=match):
        swap_vocabulary(*inputs)
    assert not inputs[2].exists()


def change_tensor(base: Path, name: str, value: Any) -> None:
    """Put another tensor into the base's files."""
    file = tensor_names(base)[name]
    tensors = load_file(file)
    tensors[name] = value(tensors[name].clone())
    save_file(tensors, file, metadata={"format": "pt"})


def test_a_tokenizer_with_more_text_than_the_model_has_rows_is_refused(
    inputs: tuple[Path, Path, Path],
) -> None:
    base = inputs[0]
    tokenizer = base_tokenizer()
    tokenizer.add_tokens([f"extra{number}" for number in range(8)])
    tokenizer.save(str(base / "tokenizer.json"))
    refused(inputs, rf"its tokenizer has id {BASE_VOCABULARY + 7} and its weights only {PADDED_ROWS} rows")


def test_special_tokens_beyond_the_rows_are_no_hindrance(inputs: tuple[Path, Path, Path]) -> None:
    plain = swap_vocabulary(*inputs)
    before = read_tensor(inputs[2], EMBEDDINGS).clone()
    tokenizer = base_tokenizer()
    tokenizer.add_special_tokens([AddedToken(f"<|tool_{number}|>", special=True) for number in range(8)])
    tokenizer.save(str(inputs[0] / "tokenizer.json"))
    assert swap_vocabulary(*inputs) == plain
    assert torch.equal(read_tensor(inputs[2], EMBEDDINGS), before)


def test_a_table_whose_rows_are_not_those_of_the_config_is_refused(inputs: tuple[Path, Path, Path]) -> None:
    change_tensor(inputs[0], LM_HEAD, lambda head: head[:-3].contiguous())
    refused(
        inputs, rf"lm_head\.weight has {PADDED_ROWS - 3} rows and config\.json says vocab_size {PADDED_ROWS}"
    )


def test_values_that_are_no_numbers_are_found(inputs: tuple[Path, Path, Path]) -> None:
    def damage(table: torch.Tensor) -> torch.Tensor:
        table[17, 3] = torch.nan
        return table

    change_tensor(inputs[0], EMBEDDINGS, damage)
    refused(inputs, r"row 17 of model\.embed_tokens\.weight has values that are no finite numbers")


@pytest.mark.parametrize("damage", ["cut", "header", "gone"])
def test_a_damaged_shard_is_named(inputs: tuple[Path, Path, Path], damage: str) -> None:
    shard = tensor_names(inputs[0])["model.layers.1.mlp.down_proj.weight"]
    if damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-100])
    elif damage == "header":
        shard.write_bytes(b"\xff" * 8 + shard.read_bytes()[8:])
    else:
        shard.unlink()
    refused(inputs, shard.name)


@pytest.mark.parametrize("link", [True, False])
def test_a_full_disk_is_one_sentence_and_the_same_call_goes_on(
    inputs: tuple[Path, Path, Path], link: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = tmp_path / "expected"
    swap_vocabulary(inputs[0], inputs[1], expected)
    from normistral.weights import rewrite

    write, calls = rewrite._rewrite, 0

    def full(source: Path, target: Path, *rest: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            target.write_bytes(b"half a file")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(source, target, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(rewrite, "_rewrite", full)
        with pytest.raises(UserError, match="no disk space left while writing"):
            swap_vocabulary(*inputs, link=link)
    assert not inputs[2].exists()
    partial = inputs[2].with_name("out.partial")
    with pytest.raises(UserError):
        tensor_names(partial)  # no model folder
    swap_vocabulary(*inputs, link=link)
    assert not partial.exists()
    for name in tensor_names(expected):
        assert torch.equal(read_tensor(inputs[2], name), read_tensor(expected, name)), name
    assert read_config(inputs[2]) == read_config(expected)


KILLED = """
import os, signal, sys
from pathlib import Path
import normistral.weights.rewrite as rewrite
from normistral.swap import swap_vocabulary
write, files = rewrite._rewrite, []
def killing(source, target, *rest):
    if files:
        target.write_bytes(b"half a file")
        os.kill(os.getpid(), signal.SIGKILL)
    files.append(target)
    write(source, target, *rest)
rewrite._rewrite = killing
swap_vocabulary(*map(Path, sys.argv[1:]))
"""


def test_a_killed_swap_goes_on_and_ends_in_the_same_bytes(
    inputs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    expected = tmp_path / "expected"
    swap_vocabulary(inputs[0], inputs[1], expected)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, inputs)], check=False, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not inputs[2].exists()
    partial = inputs[2].with_name("out.partial")
    finished = json.loads((partial / "finished.json").read_text())["files"]
    assert finished
    times = {name: (partial / name).stat().st_mtime_ns for name in finished}
    swap_vocabulary(*inputs)
    assert times == {name: (inputs[2] / name).stat().st_mtime_ns for name in finished}
    for file in expected.iterdir():
        assert (inputs[2] / file.name).read_bytes() == file.read_bytes(), file.name


def test_an_output_of_other_things_stays_as_it_is(inputs: tuple[Path, Path, Path]) -> None:
    inputs[2].mkdir()
    (inputs[2] / "thesis.tex").write_text("words")
    with pytest.raises(UserError, match="holds other things"):
        swap_vocabulary(*inputs)
    assert [path.name for path in inputs[2].iterdir()] == ["thesis.tex"]


# --- tokenizers that continue the base's


@pytest.mark.parametrize("kind", ["smollm", "nemo", "llama3", "llama2"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_kept_tokenizer_changes_no_row_but_those_of_new_tokens(
    kind: str, tied: bool, tmp_path: Path
) -> None:
    save_base_model(kind, tmp_path / "base", tied)
    taken = take_over(tmp_path / "base")
    save_tokenizer(taken.tokenizer, tmp_path / "kept", 128, taken.roles)
    report = swap_vocabulary(tmp_path / "base", tmp_path / "kept", tmp_path / "out")
    rows = len(read_tensor(tmp_path / "base", EMBEDDINGS))
    assert report.vocabulary == (rows if taken.roles.size <= rows else -(-taken.roles.size // 64) * 64)
    assert report.exact_match_share == 1
    new = {taken.roles.mask, taken.roles.pad}
    for name in (EMBEDDINGS,) if tied else (EMBEDDINGS, LM_HEAD):
        before, after = read_tensor(tmp_path / "base", name), read_tensor(tmp_path / "out", name)
        same = [row for row in range(rows) if row not in new]
        assert torch.equal(after[same], before[same])
        assert torch.allclose(after[taken.roles.mask], before.mean(0), atol=1e-6)
        assert torch.equal(after[taken.roles.pad], before[taken.roles.eos]), "as the end of text"
        for row in range(taken.roles.size, len(after)):  # rows without a token
            assert torch.allclose(after[row], before.mean(0), atol=1e-6)
    config = read_config(tmp_path / "out")
    assert (config["vocab_size"], config["eos_token_id"]) == (report.vocabulary, taken.roles.eos)


def test_rows_that_no_token_has_stay_and_new_tokens_take_them_first(tmp_path: Path) -> None:
    save_base_model("smollm", tmp_path / "base", rows=384)
    taken = take_over(tmp_path / "base")
    save_tokenizer(taken.tokenizer, tmp_path / "kept", 128, taken.roles)
    report = swap_vocabulary(tmp_path / "base", tmp_path / "kept", tmp_path / "out")
    assert (report.base_vocabulary, report.vocabulary) == (384, 384)
    assert report.parameters_before == report.parameters_after
    before, after = (read_tensor(tmp_path / name, EMBEDDINGS) for name in ("base", "out"))
    changed = (before != after).any(dim=1).nonzero().flatten().tolist()
    assert changed == [320, 321]


@pytest.mark.parametrize("method", ["mean", "composition"])
def test_new_tokens_of_an_extended_base_are_made_of_its_pieces(method: str, tmp_path: Path) -> None:
    save_base_model("nemo", tmp_path / "base", tied=False)
    taken = take_over(tmp_path / "base")
    texts = ["lundefuglen flyr over fjordene og vinteren kommer til fjordene i nord"] * 4
    extended = extend_tokenizer(taken, texts, 352)
    save_tokenizer(extended.tokenizer, tmp_path / "extended", 128, extended.roles)
    report = swap_vocabulary(tmp_path / "base", tmp_path / "extended", tmp_path / "out", method)
    assert report.vocabulary == 384
    assert report.mean_pieces > 1
    base: Tokenizer = taken.tokenizer
    for name in (EMBEDDINGS, LM_HEAD):
        before, after = read_tensor(tmp_path / "base", name), read_tensor(tmp_path / "out", name)
        same = [row for row in range(320) if row not in (3, 4)]
        assert torch.equal(after[same], before[same])
        if method == "mean":
            for token_id in (320, 340, 351):
                token = extended.tokenizer.id_to_token(token_id)
                pieces = [piece.id for piece in base.model.tokenize(token)]
                assert len(pieces) > 1
                assert torch.allclose(after[token_id], before[pieces].mean(0), atol=1e-6)


def test_the_command_takes_such_tokenizers(tmp_path: Path) -> None:
    save_base_model("llama3", tmp_path / "base")
    taken = take_over(tmp_path / "base")
    save_tokenizer(taken.tokenizer, tmp_path / "kept", 128, taken.roles)
    command = [
        sys.executable,
        "-m",
        "normistral",
        "swap",
        *(str(tmp_path / n) for n in ("base", "kept", "out")),
    ]
    done = subprocess.run([*command, "--json"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["vocabulary"] == 305
    again = subprocess.run(command, check=False, capture_output=True, text=True)
    assert again.returncode == 2
    assert "is not empty" in again.stderr
    shutil.rmtree(tmp_path / "out")
