"""Model folders are read lazily, written in shards, and whole or absent."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_gguf import tiny_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from normistral.errors import UserError
from normistral.weights import (
    StoredTensors,
    check_architecture,
    count_parameters,
    read_config,
    read_tensor,
    tensor_names,
    write_model_folder,
)
from normistral.weights import (
    model_folder as room,
)

CONFIG = {"model_type": "llama", "tie_word_embeddings": False}


def numbered(count: int, size: int = 1000) -> Iterator[tuple[str, Tensor]]:
    return ((f"t{number}", torch.full((size,), float(number))) for number in range(count))


def test_a_small_model_is_one_file_and_reads_back(tmp_path: Path) -> None:
    written = write_model_folder(tmp_path / "m", CONFIG, numbered(3))
    assert (written.tensors, written.parameters) == (3, 3000)
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == ["config.json", "model.safetensors"]
    assert read_config(tmp_path / "m") == CONFIG
    assert list(tensor_names(tmp_path / "m")) == ["t0", "t1", "t2"]
    assert torch.equal(read_tensor(tmp_path / "m", "t2"), torch.full((1000,), 2.0))


def test_a_large_model_is_cut_into_shards_that_hold_no_more_than_the_limit(tmp_path: Path) -> None:
    write_model_folder(tmp_path / "m", CONFIG, numbered(7), max_shard_bytes=9000)
    files = sorted((tmp_path / "m").glob("*.safetensors"))
    assert [file.name for file in files] == [f"model-0000{n}-of-00004.safetensors" for n in (1, 2, 3, 4)]
    assert all(file.stat().st_size < 9000 + 500 for file in files)
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 7 * 4000
    for number in range(7):
        assert read_tensor(tmp_path / "m", f"t{number}")[0] == number
    assert count_parameters(tmp_path / "m") == 7000


def test_a_tensor_larger_than_the_limit_gets_a_file_of_its_own(tmp_path: Path) -> None:
    write_model_folder(tmp_path / "m", CONFIG, numbered(2), max_shard_bytes=10)
    assert len(list((tmp_path / "m").glob("*.safetensors"))) == 2


def test_boxes_are_read_out_of_tensors(tmp_path: Path) -> None:
    matrix, vector = torch.arange(35.0).view(7, 5).bfloat16(), torch.arange(4.0)
    write_model_folder(tmp_path / "m", CONFIG, [("matrix", matrix), ("vector", vector)], max_shard_bytes=1)
    with StoredTensors(tmp_path / "m") as stored:
        assert stored.shape("matrix") == (7, 5)
        assert torch.equal(stored.read("matrix", (slice(2, 5), slice(1, 3))), matrix[2:5, 1:3])
        assert torch.equal(stored.read("vector", (slice(1, 4),)), vector[1:4])
        kept = stored.read("matrix")
        with pytest.raises(UserError, match="has no tensor t9"):
            stored.read("t9")
    assert torch.equal(kept, matrix)


def test_files_read_in_turn_are_opened_once_to_be_checked_and_once_to_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model_folder(tmp_path / "m", CONFIG, numbered(7), max_shard_bytes=9000)
    opened = []
    safe_open = room.safe_open

    def counting(file: Path, framework: str) -> object:
        opened.append(file.name)
        return safe_open(file, framework=framework)

    monkeypatch.setattr(room, "safe_open", counting)
    with StoredTensors(tmp_path / "m") as stored:
        assert [stored.read(name)[0].item() for name in stored.files] == list(range(7))
    assert sorted(opened) == sorted([f"model-0000{n}-of-00004.safetensors" for n in (1, 2, 3, 4)] * 2)


def test_transformers_loads_what_is_written_in_shards(tmp_path: Path) -> None:
    model = tiny_model()
    config = json.loads(model.config.to_json_string(use_diff=False))
    write_model_folder(tmp_path / "m", config, model.state_dict().items(), max_shard_bytes=50_000)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])


def test_a_tied_head_is_stored_once_and_counted_once(tmp_path: Path) -> None:
    model = tiny_model(tied=True)
    config = json.loads(model.config.to_json_string(use_diff=False))
    written = write_model_folder(tmp_path / "m", config, model.state_dict().items())
    assert "lm_head.weight" in model.state_dict()
    assert "lm_head.weight" not in tensor_names(tmp_path / "m")
    assert written.parameters == count_parameters(tmp_path / "m") == model.num_parameters()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_writing_holds_one_shard_at_a_time(tmp_path: Path) -> None:
    program = f"""
import resource, torch
from pathlib import Path
from normistral.weights import write_model_folder
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tensors = ((f"t{{n}}", torch.ones(10_000_000 // 4)) for n in range(40))
write_model_folder(Path({str(tmp_path / "m")!r}), {{}}, tensors, max_shard_bytes=20_000_000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) * 1024)
"""
    grown = int(subprocess.check_output([sys.executable, "-c", program]))
    assert grown < 150_000_000, "400 MB were written in shards of 20 MB"


def test_an_interrupted_write_leaves_the_earlier_folder(tmp_path: Path) -> None:
    write_model_folder(tmp_path / "m", CONFIG, numbered(2))

    def broken() -> Iterator[tuple[str, Tensor]]:
        yield "t0", torch.zeros(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_model_folder(tmp_path / "m", CONFIG, broken(), max_shard_bytes=1)
    assert [file.name for file in tmp_path.iterdir()] == ["m"]
    assert read_tensor(tmp_path / "m", "t1")[0] == 1.0


def test_a_full_disk_is_named_and_the_earlier_folder_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model_folder(tmp_path / "m", CONFIG, numbered(2))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(room, "save_file", full)
    with pytest.raises(UserError, match="no disk space left"):
        write_model_folder(tmp_path / "m", CONFIG, numbered(9))
    assert [file.name for file in tmp_path.iterdir()] == ["m"]
    assert len(tensor_names(tmp_path / "m")) == 2


def test_others_may_read_the_weights_where_they_may_read_the_folder(tmp_path: Path) -> None:
    write_model_folder(tmp_path / "m", CONFIG, numbered(1))
    config, weights = tmp_path / "m" / "config.json", tmp_path / "m" / "model.safetensors"
    assert config.stat().st_mode == weights.stat().st_mode


def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds other things"):
        write_model_folder(tmp_path / "home", CONFIG, numbered(1))
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"


def test_pickled_weights_are_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match=r"only pickled weights.*save_pretrained"):
        tensor_names(tmp_path)


def test_a_folder_with_a_gguf_file_points_to_it(tmp_path: Path) -> None:
    (tmp_path / "model.Q4_0.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"give the GGUF file itself: .*model\.Q4_0\.gguf"):
        tensor_names(tmp_path)


def test_missing_pieces_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        read_config(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"config\.json is missing"):
        read_config(tmp_path)
    with pytest.raises(UserError, match=r"has no model\.safetensors and no"):
        tensor_names(tmp_path)
    write_model_folder(tmp_path / "m", CONFIG, numbered(4), max_shard_bytes=9000)
    with pytest.raises(UserError, match="has no tensor t9"):
        read_tensor(tmp_path / "m", "t9")
    (tmp_path / "m" / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors is missing"):
        tensor_names(tmp_path / "m")


def test_an_index_that_promises_too_much_is_named(tmp_path: Path) -> None:
    write_model_folder(tmp_path / "m", CONFIG, numbered(4), max_shard_bytes=9000)
    index = tmp_path / "m" / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["t8"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(UserError, match="has no tensor t8"):
        tensor_names(tmp_path / "m")


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_a_broken_config_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        read_config(tmp_path)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_weights_file_cut_short_is_named(tmp_path: Path, kept: int) -> None:
    write_model_folder(tmp_path / "m", CONFIG, numbered(2))
    file = tmp_path / "m" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"model\.safetensors is cut short or broken"):
        tensor_names(tmp_path / "m")


@pytest.mark.parametrize("kind", ["gpt2", "mixtral", None])
def test_another_architecture_is_refused_by_name(kind: str | None) -> None:
    with pytest.raises(UserError, match=f"base has the architecture '{kind}'.*llama or mistral"):
        check_architecture({"model_type": kind}, "base")


def test_quantised_weights_are_refused() -> None:
    config = {"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}
    with pytest.raises(UserError, match="gptq"):
        check_architecture(config, "base")
