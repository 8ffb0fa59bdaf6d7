"""Measuring held-out text while training: evaluation's figures, and no trace in the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from heldout_sharded import (
    TEXTS,
    is_at_rest,
    mesh_of_all,
    plain_model,
    sharded_model,
    stop_at_second_batch,
    train_step,
    whole_weights,
)
from torch.distributed.device_mesh import DeviceMesh

from normistral.errors import Stopped
from normistral.evaluation import measure_model
from normistral.model import Mistral
from normistral.recipe import ObjectiveSettings
from normistral.scoring import encode_heldout
from normistral.training import Runtime
from normistral.training.heldout import bits_per_byte, heldout_lines, measure_base, measure_heldout


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    with mesh_of_all() as mesh:
        yield mesh


@pytest.mark.parametrize("is_sharded", [False, True])
def test_figures_are_those_of_the_evaluation_to_the_bit(
    tiny_model_folder: Path, mesh: DeviceMesh, is_sharded: bool
) -> None:
    expected = measure_model(
        "tiny", tiny_model_folder, TEXTS, ObjectiveSettings(), Runtime("cpu", "float32", 1)
    )
    heldout = encode_heldout(tiny_model_folder, TEXTS, ObjectiveSettings())
    model = sharded_model(tiny_model_folder, mesh) if is_sharded else plain_model(tiny_model_folder)
    figures = measure_heldout(model, heldout, "cpu")
    assert list(figures) == ["nob", "eng"]
    for language, of_language in figures.items():
        score = expected.of(language)
        assert of_language.bits_per_byte == score.bits_per_byte
        assert of_language.masked_accuracy == score.masked_accuracy
        assert of_language.bits_per_masked_token == score.bits_per_masked_token
        assert (of_language.bytes, of_language.masked_tokens) == (score.bytes, score.masked_tokens)


def test_training_goes_on_to_the_same_bits_after_a_measurement(
    tiny_model_folder: Path, mesh: DeviceMesh
) -> None:
    heldout = encode_heldout(tiny_model_folder, TEXTS, ObjectiveSettings())
    undisturbed, measured = (sharded_model(tiny_model_folder, mesh) for _ in range(2))
    measure_heldout(measured, heldout, "cpu")  # before the first step too
    for step in range(3):
        train_step(undisturbed, step)
        train_step(measured, step)
        first = measure_heldout(measured, heldout, "cpu")
        assert is_at_rest(measured)
        assert measure_heldout(measured, heldout, "cpu") == first
    for one, other in zip(whole_weights(undisturbed), whole_weights(measured), strict=True):
        assert torch.equal(one, other)


def test_a_measurement_that_a_signal_ends_leaves_the_model_ready(
    tiny_model_folder: Path, mesh: DeviceMesh
) -> None:
    heldout = encode_heldout(tiny_model_folder, TEXTS, ObjectiveSettings())
    undisturbed, stopped = (sharded_model(tiny_model_folder, mesh) for _ in range(2))
    with pytest.raises(Stopped):
        measure_heldout(stopped, heldout, "cpu", poll=stop_at_second_batch())
    assert is_at_rest(stopped)
    for model in (undisturbed, stopped):
        train_step(model, 0)
    for one, other in zip(whole_weights(undisturbed), whole_weights(stopped), strict=True):
        assert torch.equal(one, other)


def test_compiled_blocks_are_not_compiled_for_the_rows_of_a_measurement(
    tiny_model_folder: Path, mesh: DeviceMesh
) -> None:
    compiled = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        compiled.append(graph)
        return graph.forward

    model = plain_model(tiny_model_folder)
    for block in model.model.layers:
        block.compile(backend=backend)
    measure_heldout(model, encode_heldout(tiny_model_folder, TEXTS, ObjectiveSettings()), "cpu")
    assert not compiled
    train_step(model, 0)
    assert compiled


def test_what_cannot_be_computed_is_absent(tiny_model_folder: Path, mesh: DeviceMesh) -> None:
    texts = {"nob": ["Oslo er hovedstaden i Norge."], "sme": [], "eng": [""]}
    heldout = encode_heldout(tiny_model_folder, texts, ObjectiveSettings())
    figures = measure_heldout(plain_model(tiny_model_folder), heldout, "cpu")
    assert list(bits_per_byte(figures)) == ["nob"]
    for language in ("sme", "eng"):
        assert figures[language].bits_per_byte is None
        assert figures[language].masked_accuracy is None
        assert figures[language].bits_per_masked_token is None
    nob, sme, _ = heldout_lines(40, figures, {"nob": 1.5})
    assert (nob["step"], nob["language"], nob["base_bits_per_byte"]) == (40, "nob", 1.5)
    assert nob["bits_per_byte"] == figures["nob"].bits_per_byte
    assert (sme["language"], sme["bits_per_byte"], sme["base_bits_per_byte"]) == ("sme", None, None)


def test_the_base_is_measured_one_time_for_the_same_texts(
    tiny_model_folder: Path, mesh: DeviceMesh, tmp_path: Path
) -> None:
    loads = []

    def load(folder: Path) -> Mistral:
        loads.append(folder)
        return sharded_model(folder, mesh)

    kept_in = tmp_path / "adapt" / "base_heldout.json"
    with pytest.raises(Stopped):
        measure_base(tiny_model_folder, TEXTS, kept_in, load, "cpu", poll=stop_at_second_batch())
    assert not kept_in.exists()
    first = measure_base(tiny_model_folder, TEXTS, kept_in, load, "cpu")
    runtime = Runtime("cpu", "float32", 1)
    expected = measure_model("base", tiny_model_folder, TEXTS, ObjectiveSettings(), runtime)
    assert first == {score.language: score.bits_per_byte for score in expected.languages}
    assert measure_base(tiny_model_folder, TEXTS, kept_in, load, "cpu") == first
    assert len(loads) == 2
    measure_base(tiny_model_folder, {"nob": ["Oslo"]}, kept_in, load, "cpu")
    assert len(loads) == 3
