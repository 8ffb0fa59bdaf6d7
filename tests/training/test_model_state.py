"""Model folders go into sharded models and out again box by box, on every mesh, whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from model_state_job import CONFIG, MAX_SHARD_BYTES, MESHES, SHAPES, whole_tensors
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import AutoModelForCausalLM

from normistral.errors import UserError
from normistral.model import Mistral, ModelConfig
from normistral.training.model_state import load_weights, save_weights
from normistral.weights import read_config, read_tensor, tensor_names, write_model_folder


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the groups of processes of `model_state_job` left: a folder for each, and the model they read, in
    several files, whose numbers are their own places."""
    root = tmp_path_factory.mktemp("groups")
    write_model_folder(root / "source", CONFIG, whole_tensors().items(), MAX_SHARD_BYTES)
    assert len(list((root / "source").glob("*.safetensors"))) > 1
    subprocess.run(
        [sys.executable, str(Path(__file__).parent / "model_state_job.py"), str(root)],
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
    )
    return root


def exits(group: Path) -> list[int]:
    """Exit codes of a group's processes, whose last words are printed for a test that fails."""
    for errors in sorted(group.glob("stderr.*")):
        print(errors.read_text()[-3000:])
    codes: list[int] = json.loads((group / "exits.json").read_text())
    return codes


def assert_same_files(one: Path, other: Path) -> None:
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_each_process_reads_and_writes_its_own_and_the_files_equal_those_of_one(
    processes: int, groups: Path
) -> None:
    group = groups / f"meshes-{processes}"
    assert exits(group) == [0] * processes
    for replicate, shard, split in MESHES[processes]:
        name = f"{replicate}x{shard}x{split}-float32"
        assert_same_files(groups / "source", group / name)
        read = [json.loads((group / f"{name}.{rank}.json").read_text()) for rank in range(processes)]
        for tensor, shape in SHAPES.items():
            copies = replicate * (1 if tensor.startswith(("columns", "rows")) else split)
            assert sum(part.get(tensor, 0) for part in read) == copies * torch.Size(shape).numel()


def test_sharded_weights_are_saved_in_another_precision_than_they_came_in(groups: Path) -> None:
    for tensor, value in whole_tensors().items():
        assert torch.equal(read_tensor(groups / "meshes-4" / "1x2x2-bfloat16", tensor), value.bfloat16())


def test_a_full_disk_in_one_process_fails_all_and_the_earlier_folder_survives(groups: Path) -> None:
    group = groups / "full_disk-2"
    assert exits(group) == [0, 0]
    assert {path.name for path in group.iterdir() if path.is_dir()} == {"model"}
    assert read_config(group / "model")["note"] == "earlier"
    for tensor, value in whole_tensors().items():
        assert torch.equal(read_tensor(group / "model", tensor), value)


def test_a_process_killed_while_it_writes_leaves_no_folder(groups: Path) -> None:
    group = groups / "killed-2"
    first, second = exits(group)
    assert second == -signal.SIGKILL
    assert first != 0
    assert {path.name for path in group.iterdir() if path.is_dir()} <= {"model.partial"}


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("tied", [False, True])
def test_a_trained_model_is_saved_in_master_precision_also_while_it_is_gathered(
    tied: bool, tmp_path: Path, tiny_model_folder: Path
) -> None:
    content = read_config(tiny_model_folder) | {"tie_word_embeddings": tied}
    model = Mistral.uninitialised(ModelConfig.from_hugging_face(content))
    # So that gathered weights, in bfloat16, stay in the model after a forward pass.
    fully_shard(
        model,
        mesh=init_device_mesh("cpu", (1,)),
        reshard_after_forward=False,
        mp_policy=MixedPrecisionPolicy(torch.bfloat16),
    )
    model.to_empty(device="cpu")
    model.tie()
    load_weights(model, tiny_model_folder)
    model.unshard()
    assert model.model.norm.weight.dtype == torch.bfloat16
    save_weights(model, tmp_path / "m", content, tiny_model_folder)
    assert (tmp_path / "m" / "tokenizer.json").is_file()
    assert ("lm_head.weight" in tensor_names(tmp_path / "m")) == (not tied)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    for name in tensor_names(tmp_path / "m"):
        assert torch.equal(loaded.state_dict()[name], read_tensor(tiny_model_folder, name)), name


def test_a_plain_model_without_processes_loads_and_saves_in_any_precision(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    content = read_config(tiny_model_folder)
    model = Mistral(ModelConfig.from_hugging_face(content)).double()
    load_weights(model, tiny_model_folder)
    written = save_weights(model, tmp_path / "m", content, tiny_model_folder, torch.float64)
    assert written.parameters == sum(parameter.numel() for parameter in model.parameters())
    for name in tensor_names(tiny_model_folder):
        stored = read_tensor(tmp_path / "m", name)
        assert stored.dtype == torch.float64
        assert torch.equal(stored, read_tensor(tiny_model_folder, name).double())


def test_missing_and_misshapen_tensors_are_named(tmp_path: Path, tiny_model_folder: Path) -> None:
    content = read_config(tiny_model_folder)
    model = Mistral(ModelConfig.from_hugging_face(content))
    tensors = {name: read_tensor(tiny_model_folder, name) for name in tensor_names(tiny_model_folder)}
    norm = tensors.pop("model.norm.weight")
    write_model_folder(tmp_path / "m", content, tensors.items())
    with pytest.raises(UserError, match=r"has no tensor 'model\.norm\.weight': it is not complete"):
        load_weights(model, tmp_path / "m")
    write_model_folder(tmp_path / "m", content, {**tensors, "model.norm.weight": norm[:10]}.items())
    with pytest.raises(UserError, match=r"'model\.norm\.weight' has shape \(10,\) where .* says \(64,\)"):
        load_weights(model, tmp_path / "m")


def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path, tiny_model_folder: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    content = read_config(tiny_model_folder)
    model = Mistral(ModelConfig.from_hugging_face(content))
    with pytest.raises(UserError, match="holds other things"):
        save_weights(model, tmp_path / "home", content, tiny_model_folder)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.tex"]
