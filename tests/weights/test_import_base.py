"""Whatever `base.model` names becomes one model folder."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from tiny_gguf import byte_level_bpe, save_hugging_face_folder, tiny_model, write_gguf
from transformers import AutoModelForCausalLM

from normistral.errors import UserError
from normistral.recipe import BaseSettings
from normistral.weights import base as room
from normistral.weights import import_base, read_tensor, tensor_names


def settings(model: object, tokenizer: Path | None = None) -> BaseSettings:
    return BaseSettings(model=str(model), tokenizer=str(tokenizer) if tokenizer else None)


@pytest.mark.parametrize("tied", [True, False])
def test_a_local_folder_is_taken_as_it_is(tmp_path: Path, tied: bool) -> None:
    source = save_hugging_face_folder(tmp_path / "hf", tied)
    counts = import_base(settings(source), tmp_path / "cache", tmp_path / "out")
    model = tiny_model(tied)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    assert counts["source"] == "folder"
    assert counts["architecture"] == "llama"
    assert counts["parameters"] == model.num_parameters()
    assert counts["vocabulary"] == model.config.vocab_size
    assert counts["tensors"] == len(tensor_names(source))
    assert not any(file.is_symlink() for file in (tmp_path / "out").rglob("*"))


def test_weights_are_linked_and_not_copied_on_one_file_system(tmp_path: Path) -> None:
    source = save_hugging_face_folder(tmp_path / "hf")
    import_base(settings(source), tmp_path / "cache", tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").samefile(source / "model.safetensors")


def test_weights_are_copied_where_links_are_impossible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_hugging_face_folder(tmp_path / "hf")

    def impossible(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(room.os, "link", impossible)
    import_base(settings(source), tmp_path / "cache", tmp_path / "out")
    copied = tmp_path / "out" / "model.safetensors"
    assert not copied.samefile(source / "model.safetensors")
    assert copied.read_bytes() == (source / "model.safetensors").read_bytes()


def test_shards_and_symbolic_links_as_in_the_hub_cache_are_followed(tmp_path: Path) -> None:
    blobs, source = tmp_path / "blobs", tmp_path / "snapshot"
    source.mkdir()
    tiny_model().save_pretrained(blobs, max_shard_size="60KB")
    byte_level_bpe().save(str(blobs / "tokenizer.json"))
    for file in blobs.iterdir():
        (source / file.name).symlink_to(file)
    import_base(settings(source), tmp_path / "cache", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    assert not any(file.is_symlink() for file in (tmp_path / "out").rglob("*"))
    assert torch.equal(
        read_tensor(tmp_path / "out", "model.norm.weight"), tiny_model().state_dict()["model.norm.weight"]
    )


def test_the_checksum_changes_with_the_weights_and_with_nothing_else(tmp_path: Path) -> None:
    source = save_hugging_face_folder(tmp_path / "hf")
    first = import_base(settings(source), tmp_path / "cache", tmp_path / "a")
    again = import_base(settings(source), tmp_path / "cache", tmp_path / "a")
    (tmp_path / "hf").rename(tmp_path / "moved")
    moved = import_base(settings(tmp_path / "moved"), tmp_path / "cache", tmp_path / "b")
    assert first["sha256"] == again["sha256"] == moved["sha256"]
    tiny_model(seed=1).save_pretrained(tmp_path / "moved")
    changed = import_base(settings(tmp_path / "moved"), tmp_path / "cache", tmp_path / "c")
    assert changed["sha256"] != first["sha256"]


def test_a_gguf_file_is_imported(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model())
    counts = import_base(settings(path), tmp_path / "cache", tmp_path / "out")
    assert counts["source"] == "gguf"
    assert counts["parameters"] == tiny_model().num_parameters()
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_base_tokenizer_takes_the_place_of_the_models_own(tmp_path: Path) -> None:
    source = save_hugging_face_folder(tmp_path / "hf")
    (source / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer\.json.*base\.tokenizer"):
        import_base(settings(source), tmp_path / "cache", tmp_path / "out")
    (tmp_path / "tokenizer").mkdir()
    byte_level_bpe().save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    import_base(settings(source, tmp_path / "tokenizer"), tmp_path / "cache", tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_a_tokenizer_that_is_too_large_for_the_model_is_refused(tmp_path: Path) -> None:
    source = save_hugging_face_folder(tmp_path / "hf")
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["zzz"] = 9999
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="ids up to 9999"):
        import_base(settings(source), tmp_path / "cache", tmp_path / "out")


@pytest.mark.parametrize("content", ["no json", "{}"])
def test_a_broken_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    source = save_hugging_face_folder(tmp_path / "hf")
    (source / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=r"tokenizer\.json is no tokenizer"):
        import_base(settings(source), tmp_path / "cache", tmp_path / "out")


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    source = save_hugging_face_folder(tmp_path / "hf")
    config = json.loads((source / "config.json").read_text()) | {"model_type": "qwen2"}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"architecture 'qwen2'.*llama or mistral"):
        import_base(settings(source), tmp_path / "cache", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_headless_model_is_refused(tmp_path: Path) -> None:
    source = save_hugging_face_folder(tmp_path / "hf", tied=True)
    config = json.loads((source / "config.json").read_text()) | {"tie_word_embeddings": False}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"no tensor lm_head\.weight"):
        import_base(settings(source), tmp_path / "cache", tmp_path / "out")


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    source = save_hugging_face_folder(tmp_path / "hf")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(UserError, match="only pickled weights"):
        import_base(settings(source), tmp_path / "cache", tmp_path / "out")


def test_importing_a_folder_onto_itself_is_refused(tmp_path: Path) -> None:
    source = save_hugging_face_folder(tmp_path / "hf")
    with pytest.raises(UserError, match="move it"):
        import_base(settings(source), tmp_path / "cache", source)
    assert tensor_names(source)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nowhere", "nowhere does not exist; expected"),
        ("./nowhere/model.gguf", "does not exist; expected"),
        ("hub:nothing", "expected hub:ORG/NAME"),
        ("sample:smollm", "did you mean 'sample:smollm2-135m'"),
        ("sample:bokmaalsordboka", "no model"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_would(tmp_path: Path, model: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        import_base(settings(model), tmp_path / "cache", tmp_path / "out")


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"neither a Hugging Face folder nor a \.gguf file"):
        import_base(settings(tmp_path / "model.safetensors"), tmp_path / "cache", tmp_path / "out")


@pytest.mark.parametrize("model", ["hub:org/name", "org/name"])
def test_a_hub_name_is_downloaded_without_pickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    source = save_hugging_face_folder(tmp_path / "snapshot")
    asked: dict[str, object] = {}

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.update(name=name, patterns=allow_patterns)
        return str(source)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    counts = import_base(settings(model), tmp_path / "cache", tmp_path / "out")
    assert counts["source"] == "hub"
    assert asked["name"] == "org/name"
    assert not any(".bin" in pattern or pattern == "*" for pattern in asked["patterns"])  # type: ignore[attr-defined]


def test_no_network_to_the_hub_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise ConnectionError("[Errno -3] Temporary failure\nin name resolution")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(UserError) as caught:
        import_base(settings("hub:org/name"), tmp_path / "cache", tmp_path / "out")
    message = str(caught.value)
    assert "connect to the network" in message
    assert "give the folder of a downloaded copy" in message
    assert "\n" not in message
