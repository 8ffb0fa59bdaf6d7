"""Whole runs with the base's tokenizer kept and extended: every stage takes its ids from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from base_tokenizers import save_base_model
from small_run import small_recipe, write_sources
from transformers import AutoModelForCausalLM, AutoTokenizer

from normistral import pipeline
from normistral.dataset import PackedDataset
from normistral.inference import fill_mask, generate, load
from normistral.pipeline.memorisation import audit_memorisation
from normistral.pipeline.run_order import order_of_run, run_sources
from normistral.recipe import load_recipe, parse_recipe
from normistral.records import RunFolder, read_metrics
from normistral.tokenizer import TokenRoles, load_tokenizer
from normistral.weights import read_config, read_tensor


class Silence:
    """A screen that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def table(self, title: str, header: Any, rows: Any, note: str = "") -> None:
        self.said += [title, note]


def run_mode(
    root: Path, kind: str, tokenizer: dict[str, Any], until: str | None = None, **realign: Any
) -> tuple[RunFolder, str]:
    """Run the small recipe on a base of some kind; the run and what was said."""
    write_sources(root / "text")
    save_base_model(kind, root / "base", tied=kind != "llama3")
    recipe = small_recipe(root / "base", root / "text")
    recipe["tokenizer"] |= tokenizer
    recipe["realign"] |= realign
    recipe["adapt"] |= {"steps": 3, "schedule": {"shape": "constant"}}
    recipe["evaluation"] |= {"heldout_bytes": 600, "masked_sentences": ["<mask> skole", "en<mask> skole"]}
    recipe["runtime"] |= {"tensorboard": False, "micro_batch_size": 2}
    screen = Silence()
    folder = pipeline.run(parse_recipe(recipe, "small"), root / "run", root / "cache", screen, until)
    return folder, "\n".join(screen.said)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str]:
    """Special tokens behind all others, reserved ones among them; realign ends early."""
    early = {"window": 2, "patience": 1, "least_gain": 1.0, "min_steps": 4}
    return run_mode(
        tmp_path_factory.mktemp("kept"),
        "llama3",
        {"mode": "keep"},
        steps=30,
        learning_rate=1e-6,
        early_stop=early,
    )


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str]:
    """No start token put before a text, nothing reserved."""
    return run_mode(
        tmp_path_factory.mktemp("extended"), "smollm", {"mode": "extend", "vocabulary_size": 400}, steps=2
    )


def base_of(run: RunFolder) -> Path:
    return run.root.parent / "base"


def test_the_published_model_has_the_roles_of_its_tokenizer(
    kept: tuple[RunFolder, str], extended: tuple[RunFolder, str]
) -> None:
    for (run, _), expected in ((kept, (300, 301, 303, 302)), (extended, (0, 0, 321, 320))):
        roles = TokenRoles.of(run.published_model)
        assert (roles.bos, roles.eos, roles.pad, roles.mask) == expected
        config = read_config(run.published_model)
        generation = json.loads((run.published_model / "generation_config.json").read_text())
        for each in (config, generation):
            assert (each["bos_token_id"], each["eos_token_id"], each["pad_token_id"]) == expected[:3]
        assert config["mask_token_id"] == expected[3]
        tokenizer = AutoTokenizer.from_pretrained(run.published_model)
        assert (tokenizer.mask_token_id, tokenizer.pad_token_id) == (expected[3], expected[2])
        assert AutoModelForCausalLM.from_pretrained(run.published_model).config.vocab_size >= len(tokenizer)


def test_keep_changes_no_id_and_no_row_but_the_new_ones(kept: tuple[RunFolder, str]) -> None:
    run, said = kept
    ours, base = load_tokenizer(run.published_model), load_tokenizer(base_of(run))
    for text in ("en søt lundefugl over 1234 fjorder\n\nČáppa", "def f(x):\n    return x"):
        assert ours.encode(text).ids == base.encode(text).ids
    for table in ("model.embed_tokens.weight", "lm_head.weight"):
        before, after = read_tensor(run.base_model, table), read_tensor(run.swapped_model, table)
        assert before.shape == after.shape, "reserved tokens were taken"
        unchanged = (before == after).all(dim=1)
        assert unchanged.sum() == 303, "all but the rows of <mask> and <pad>"
        assert not unchanged[[302, 303]].any()
    assert "mask token: the base's reserved <|reserved_special_token_0|>, renamed" in said
    assert "the base's tokenizer and rows" in said


def test_extend_keeps_the_bases_rows_and_needs_fewer_tokens(extended: tuple[RunFolder, str]) -> None:
    run, said = extended
    before, after = (
        read_tensor(folder, "model.embed_tokens.weight") for folder in (run.base_model, run.swapped_model)
    )
    assert len(before) == 320
    assert len(after) == 448, "a multiple of 64"
    assert (before == after[:320]).all()
    assert read_config(run.published_model)["vocab_size"] == 448
    words = "fjordvinter skolebåt sjøen"
    new, base = load_tokenizer(run.published_model), load_tokenizer(run.base_model)
    assert len(new.encode(words).ids) < 0.8 * len(base.encode(words).ids)
    assert "The base's vocabulary, extended" in said


@pytest.mark.parametrize("which", ["kept", "extended"])
def test_documents_stand_between_start_and_end_and_training_sees_no_other_special_token(
    which: str, request: pytest.FixtureRequest
) -> None:
    run, _ = request.getfixturevalue(which)
    order = order_of_run(run)
    _, sources = run_sources(run, order)
    roles = TokenRoles.of(run.tokenizer)
    first, size = sources["nob"].document(1)
    tokens = sources["nob"].read(first, size)[0].tolist()
    assert (tokens[0], tokens[-1]) == (roles.start, roles.end)
    assert not set(tokens[1:-1]) & set(roles.special)


def test_both_write_and_read_even_where_a_mask_comes_first(
    kept: tuple[RunFolder, str], extended: tuple[RunFolder, str]
) -> None:
    for run, _ in (kept, extended):
        loaded = load(run.published_model)
        special = set(TokenRoles.of(run.tokenizer).special)
        for text in ("<mask> skole", "en<mask> skole", "en<mask>skole"):
            filling = fill_mask(loaded, text)
            assert len(filling.masks) == 1
            assert "<" not in filling.text
        assert generate(loaded, "fjord", 4).tokens >= 1
        assert special


def test_card_and_report_say_which_tokenizer_it_is(
    kept: tuple[RunFolder, str], extended: tuple[RunFolder, str]
) -> None:
    for (run, _), words in ((kept, "the base's own tokenizer"), (extended, "tokenizer, extended")):
        card = (run.published_model / "README.md").read_text()
        assert words in card
        assert "the first 16 ids" not in card
        code = card.split("### Bidirectional")[1].split("```python\n")[1].split("```")[0]
        exec(compile(code, "card", "exec"), {})
    assert "own tokenizer is kept" in kept[0].report.read_text().replace("&#39;", "'").replace("&#x27;", "'")


def test_adapt_goes_on_at_the_sequence_at_which_realign_ended_early(kept: tuple[RunFolder, str]) -> None:
    run, _ = kept
    realign = json.loads((run.stage("realign") / "stage.json").read_text())["counts"]
    steps = realign["steps"]
    assert 4 <= steps < 30
    assert realign["tokens"] == steps * 4 * 64
    newest = sorted((run.stage("adapt") / "checkpoints").glob("step-*/COMPLETE"))[-1]
    state = json.loads(newest.read_text())["state"]
    assert state["order"]["next_sequence"] == (steps + 3) * 4
    order = order_of_run(run)
    assert (order.steps, order.steps_done) == (steps + 3, steps + 3)
    assert order.sequences_after(order.steps_done) == (steps + 3) * 4
    manifest, sources = run_sources(run, order)
    dataset = PackedDataset(order.plan, sources, order.recipe.seed, order.changes, manifest=manifest.digest)
    seen = dict.fromkeys(dataset.source_names, 0)
    for index in range((steps + 3) * 4):
        seen[dataset.source_names[dataset[index].window.source]] += 1
    audited = {source.name: source.sequences for source in order.audit(order.steps_done)}
    assert audited == seen
    assert f"Training steps | {steps} | 3 |" in (run.published_model / "README.md").read_text()
    (event,) = read_metrics(run.stage("realign") / "events.jsonl")
    assert event["event"] == "early stop"


def test_memorisation_is_audited_with_the_runs_own_tokens(kept: tuple[RunFolder, str]) -> None:
    run, _ = kept
    found = audit_memorisation(str(run.published_model), run, 8, 8, 4)
    assert any(row.group == "held out" for row in found.rows)


def test_running_again_changes_nothing(kept: tuple[RunFolder, str]) -> None:
    folder, _ = kept
    screen = Silence()
    pipeline.run(load_recipe(folder.recipe), folder.root, folder.root.parent / "cache", screen)
    assert "\n".join(screen.said).count("unchanged") == 11


def test_trim_gives_a_vocabulary_of_any_size_and_copies_the_rows_that_stay(tmp_path: Path) -> None:
    run, said = run_mode(
        tmp_path,
        "smollm",
        {"mode": "trim", "vocabulary_size": 340, "kept_base_tokens": 300},
        until="swap",
        steps=2,
    )
    ours, base = load_tokenizer(run.tokenizer), load_tokenizer(base_of(run))
    assert ours.get_vocab_size() == 340 < base.get_vocab_size() + 40
    assert "Those of the base's tokens that the text uses most" in said
    before = read_tensor(run.base_model, "model.embed_tokens.weight")
    after = read_tensor(run.swapped_model, "model.embed_tokens.weight")
    for name in ("a", "e", "n"):
        assert before[base.token_to_id(name)].equal(after[ours.token_to_id(name)])
    for name in TokenRoles.of(run.tokenizer).special:
        token = ours.id_to_token(name)
        if base.token_to_id(token) is not None:
            assert before[base.token_to_id(token)].equal(after[name]), token
    text = "En søt lundefugl flyr over de vakre norske fjorder."
    assert ours.decode(ours.encode(text).ids) == text
