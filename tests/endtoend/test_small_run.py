"""From text to a published model with a tiny base: what comes out, what is skipped, and that kills change
nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_run import finish, small_recipe, start, write_recipe, write_sources

from normistral.corpus import read_documents
from normistral.corpus.removal import read_removal_list
from normistral.dataset import PackedDataset
from normistral.pipeline.removed_documents import removed_documents
from normistral.pipeline.run_order import order_of_run, run_sources
from normistral.records import RunFolder, StageRecord, sha256_of_file


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A folder with sources and a recipe."""
    folder = tmp_path_factory.mktemp("workshop")
    write_sources(folder / "text")
    write_recipe(folder / "small.yaml", small_recipe(tiny_model_folder, folder / "text"))
    return folder


@pytest.fixture(scope="module")
def undisturbed(workshop: Path) -> tuple[RunFolder, str]:
    """A run from start to end, and what it printed."""
    output = finish(start(workshop / "small.yaml", workshop / "undisturbed"))
    return RunFolder(workshop / "undisturbed"), output


def test_a_run_makes_everything_that_the_design_names(undisturbed: tuple[RunFolder, str]) -> None:
    run, _ = undisturbed
    for path in (
        run.recipe,
        run.run_file,
        *run.documents("nob", "train"),
        *run.documents("code", "heldout"),
        run.corpus_manifest,
        run.tokenizer / "tokenizer.json",
        run.stage("shards") / "nob" / "00000.bin",
        run.stage("mixture") / "plan.json",
        run.swapped_model / "model.safetensors",
        run.trained_model("realign") / "model.safetensors",
        run.stage("adapt") / "metrics.jsonl",
        run.stage("adapt") / "checkpoints" / "step-00000020" / "COMPLETE",
        run.stage("evaluation") / "adapt.json",
        run.published_model / "README.md",
        run.published_model / "model.safetensors",
        run.report,
    ):
        assert path.exists(), path
    assert run.documents("nob", "train")
    assert run.documents("code", "heldout")
    assert json.loads((run.published_model / "config.json").read_text())["max_position_embeddings"] == 64
    assert json.loads(run.run_file.read_text())["runtime"] == {
        "device": "cpu",
        "dtype": "float32",
        "threads": 1,
    }


def test_the_screen_shows_tables_examples_and_what_to_try(undisturbed: tuple[RunFolder, str]) -> None:
    run, output = undisturbed
    for words in (
        "Documents",
        "-F16.gguf: 0 MB, for llama.cpp",
        "Tokenizers on held-out text",
        "Mixture: 104 sequences of 64 tokens",
        "Held-out text, before and after",
        "after adapt",
        "Continuations",
        "Filled masks",
        "Writing speed",
        "Where everything is",
        "What to try next",
        f"normistral serve {run.published_model}\n",
        "Made-up words.",
    ):
        assert words in output
    assert "Traceback" not in output


def test_training_made_the_model_better_than_the_swapped_start(undisturbed: tuple[RunFolder, str]) -> None:
    run, _ = undisturbed

    def bits(stage: str) -> float:
        scores = json.loads((run.stage("evaluation") / f"{stage}.json").read_text())
        return next(
            float(score["bits_per_byte"]) for score in scores["languages"] if score["language"] == "nob"
        )

    assert bits("adapt") < bits("realign") < bits("swap")


def test_running_again_changes_nothing_and_says_so(
    undisturbed: tuple[RunFolder, str], workshop: Path
) -> None:
    run, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*") if path.is_file()}
    output = finish(start(workshop / "small.yaml", run.root))
    assert output.count("unchanged") == 11
    kept = {path for path, time_ns in before.items() if path.stat().st_mtime_ns == time_ns}
    assert set(before) - kept <= {run.recipe, run.lock}


def test_realign_and_adapt_share_one_sequence_index(undisturbed: tuple[RunFolder, str]) -> None:
    run, _ = undisturbed
    plan = json.loads((run.stage("mixture") / "plan.json").read_text())
    assert plan["sequences"] == (6 + 20) * 4
    assert sum(source["sequences"] for source in plan["sources"]) == plan["sequences"]


@pytest.fixture(scope="module")
def killed_everywhere(workshop: Path) -> Iterator[RunFolder]:
    """A run killed in tokenizer, shards and adapt, and then finished by the same command."""
    run = RunFolder(workshop / "killed")
    for sign in (
        run.stage("tokenizer") / "started.json",
        run.stage("shards") / "nob" / "00000.json",
        run.stage("adapt") / "checkpoints" / "step-00000004",
    ):
        kill_when(sign, start(workshop / "small.yaml", run.root))
        assert not run.published_model.exists()
    finish(start(workshop / "small.yaml", run.root))
    return run


def kill_when(sign: Path, process: subprocess.Popen[str]) -> None:
    """SIGKILL as soon as a file appears."""
    wait_for(sign, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def wait_for(sign: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a running process has made a file."""
    deadline = time.monotonic() + 180
    while not sign.exists():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_run_killed_in_three_stages_ends_in_the_same_weights(
    killed_everywhere: RunFolder, undisturbed: tuple[RunFolder, str]
) -> None:
    whole, _ = undisturbed
    for file in (
        "tokenizer/tokenizer/tokenizer.json",
        "adapt/model/model.safetensors",
        "model/model.safetensors",
    ):
        assert sha256_of_file(killed_everywhere.root / file) == sha256_of_file(whole.root / file), file
    for stage in ("corpus", "tokenizer", "shards", "mixture", "swap", "realign", "adapt"):
        one, other = StageRecord.read(killed_everywhere.stage(stage)), StageRecord.read(whole.stage(stage))
        assert one is not None
        assert other is not None
        assert one.outputs == other.outputs, stage


def test_ctrl_c_in_training_stops_with_a_checkpoint_and_one_sentence(workshop: Path) -> None:
    run = RunFolder(workshop / "stopped")
    long = ("--set", "adapt.steps=4000", "--set", "mixture.max_repeats=1000", "--until", "adapt")
    process = start(workshop / "small.yaml", run.root, *long)
    wait_for(run.stage("adapt") / "checkpoints" / "step-00000004", process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "adapt stopped after step" in output
    assert "the same command (without --redo) goes on from here" in output
    assert "Traceback" not in output


def test_ctrl_c_outside_training_says_that_the_same_command_goes_on(workshop: Path) -> None:
    run = RunFolder(workshop / "stopped-early")
    process = start(workshop / "small.yaml", run.root)
    wait_for(run.stage("tokenizer") / "started.json", process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "stopped; the same command" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("setting", ["publish.context_length", "mixture.sequence_length"])
def test_a_context_that_the_base_has_not_is_told_before_training(workshop: Path, setting: str) -> None:
    run = RunFolder(workshop / setting)
    process = start(workshop / "small.yaml", run.root, "--set", f"{setting}=129")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"{setting} is 129, but the base model reads 128 tokens at most; shorten it" in output
    assert not run.stage("realign").exists()


def test_files_are_readable_by_others(undisturbed: tuple[RunFolder, str]) -> None:
    run, _ = undisturbed
    assert (run.published_model / "model.safetensors").stat().st_mode & 0o044


def test_what_a_run_saw_of_documents_to_be_removed_is_what_its_sequences_hold(
    undisturbed: tuple[RunFolder, str], workshop: Path
) -> None:
    run, _ = undisturbed
    ids = [document.id for file in run.documents("nob", "train") for document in read_documents(file)]
    heldout = next(
        document.id for file in run.documents("nob", "heldout") for document in read_documents(file)
    )
    chosen = ids[::20]  # some of which the few steps see
    listed = workshop / "removed.txt"
    listed.write_text("".join(f"nob/{name}\n" for name in [*chosen, heldout, "unknown"]))
    found = {document.document: document for document in removed_documents(run, read_removal_list(listed))}
    assert found.keys() == {f"nob/{name}" for name in [*chosen, heldout]}
    assert (found[f"nob/{heldout}"].outcome, found[f"nob/{heldout}"].times_seen) == ("heldout", 0)
    order = order_of_run(run)
    manifest, sources = run_sources(run, order)
    dataset = PackedDataset(order.plan, sources, order.recipe.seed, order.changes)
    for name in chosen:
        first, size = sources["nob"].document(ids.index(name))
        tokens = set(range(first, first + size))
        times = 0
        for index in range(order.sequences_after(order.steps_done)):
            window = dataset[index].window
            if dataset.source_names[window.source] == "nob":
                length = order.plan.sequence_length + 1
                held = {(window.start + step) % manifest.tokens("nob") for step in range(length)}
                times += bool(held & tokens)
        assert found[f"nob/{name}"].times_seen == times
    assert sum(document.times_seen for document in found.values()) > 0
