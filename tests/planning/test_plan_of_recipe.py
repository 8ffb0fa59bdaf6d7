"""Plans before anything is built: the flagship's table, counted and assumed tokens, the command."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from normistral.cli.main import app
from normistral.dataset import ShardFile, ShardManifest
from normistral.dataset.order import sources_before
from normistral.errors import UserError
from normistral.planning import count_tokens, mixture_rows, plan_of_recipe
from normistral.recipe import Recipe, load_recipe, parse_recipe
from normistral.records import RunFolder, StageRecord, write_json
from normistral.tokenizer import TokenizerRow

RECIPES = Path(__file__).parents[2] / "recipes"
TABLE = {  # research notes, recipe §1.6: thousand million tokens over the 60,000 steps of adapt
    "bokmaal": 122.7,
    "nynorsk": 12.6,
    "swedish": 37.7,
    "danish": 37.7,
    "code": 25.1,
    "english": 11.6,
    "icelandic": 2.5,
    "sami": 1.5,
    "faroese": 0.25,
}
REPEATS = {"bokmaal": 4, "nynorsk": 4, "sami": 16, "faroese": 16}


def recipe(folder: Path, **mixture: Any) -> Recipe:
    stage = {"steps": 10, "global_batch_size": 4, "learning_rate": 1e-3, "schedule": {"shape": "constant"}}
    return parse_recipe(
        {
            "name": "small",
            "base": {"model": "sample:smollm2-135m"},
            "corpus": {
                "folder": str(folder),
                "sources": [
                    {"name": "nob", "path": "nob/*.txt", "language": "nob", "licence": "CC0-1.0"},
                    {
                        "name": "sme",
                        "path": "sme/*.jsonl.zst",
                        "language": "sme",
                        "licence": "CC0-1.0",
                        "declared_tokens": 1000,
                    },
                ],
            },
            "mixture": {"weights": {"nob": 1, "sme": 1}, "sequence_length": 64, **mixture},
            "realign": stage,
            "adapt": stage,
        }
    )


def test_the_flagship_reproduces_the_originals_table() -> None:
    flagship = load_recipe(RECIPES / "normistral-11b-warm.yaml")
    plan = plan_of_recipe(flagship, Path("unused"))
    assert flagship.adapt.steps * flagship.adapt.global_batch_size == 61_440_000
    assert flagship.adapt.steps * flagship.adapt.global_batch_size * 4096 == 251_658_240_000
    realign = flagship.realign.steps * flagship.realign.global_batch_size
    before = dict(zip((s.name for s in plan.sources), sources_before(plan.counts, realign), strict=True))
    assert set(TABLE) == {source.name for source in plan.sources}
    for source in plan.sources:
        tokens = (source.sequences - before[source.name]) * 4096 / 1e9
        digits = 2 if TABLE[source.name] < 1 else 1
        assert round(tokens, digits) == TABLE[source.name], source.name
        assert source.assumed
        assert source.repeats == pytest.approx(REPEATS.get(source.name, 1), rel=0.005)
        assert not source.capped
    weights = {"sami": 0.6, "faroese": 0.1, "bokmaal": 48.8}
    for name, weight in weights.items():
        share = next(source.share for source in plan.sources if source.name == name)
        assert share == pytest.approx(weight / 100.1, rel=1e-3)


def test_tokens_are_counted_built_declared_or_estimated_in_that_order(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    (tmp_path / "nob").mkdir()
    (tmp_path / "nob" / "a.txt").write_text("x" * 44_000)
    nob, sme = count_tokens(made, tmp_path)
    assert (nob.unique_tokens, nob.assumed) == (round(44_000 * 0.9 / 4.4), True)
    assert (sme.unique_tokens, sme.assumed) == (1000, True)
    run = RunFolder(tmp_path / "run")
    counts = {"nob": {"train_bytes": 80_000}, "sme": {"train_bytes": 1}}
    run.stage("corpus").mkdir(parents=True)
    StageRecord("corpus", {}, {}, counts, 1.0, "2026-01-01").write(run.stage("corpus"))
    assert [s.unique_tokens for s in count_tokens(made, tmp_path, run)] == [round(80_000 / 4.4), 1000]
    row = TokenizerRow(
        "new", 100, "nob", 1, words=9, words_whole=1, tokens=20, bytes=100, round_trip_failures=0
    )
    write_json(run.stage("tokenizer") / "comparison.json", [asdict(row)])
    assert count_tokens(made, tmp_path, run)[0].unique_tokens == 16_000
    files = {name: (ShardFile(name, 3, tokens, 2, "", ""),) for name, tokens in (("nob", 77), ("sme", 88))}
    ShardManifest("", 100, 2, files).write(run.stage("shards"))
    counted = count_tokens(made, tmp_path, run)
    assert [(s.unique_tokens, s.assumed) for s in counted] == [(77, False), (88, False)]


def test_a_source_of_which_nothing_is_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="corpus source 'nob'"):
        count_tokens(recipe(tmp_path), tmp_path)


def test_assumed_tokens_are_marked_in_the_table_and_the_rows_end_in_a_sum(tmp_path: Path) -> None:
    (tmp_path / "nob").mkdir()
    (tmp_path / "nob" / "a.txt").write_text("x" * 44_000)
    plan = plan_of_recipe(recipe(tmp_path), tmp_path)
    rows = mixture_rows(plan)
    assert rows[1][:3] == ("sme", "1,000 (assumed)", f"{plan.sources[1].tokens:,}")
    assert rows[-1][0] == "all"
    assert rows[-1][2] == f"{80 * 64:,}"


def test_the_command_prints_a_plan_of_the_quickstart_before_anything_is_built() -> None:
    quickstart = str(RECIPES / "quickstart.yaml")
    shown = CliRunner().invoke(app, ["plan", quickstart, "--out", "no-such-run"])
    assert shown.exit_code == 0, shown.output
    assert "worth as new" in shown.output
    assert "(assumed)" in shown.output
    as_json = CliRunner().invoke(app, ["plan", quickstart, "--json", "--set", "mixture.max_repeats=4"])
    data = json.loads(as_json.output.splitlines()[-1])
    assert sum(source["sequences"] for source in data["sources"]) == data["sequences"]
    assert "warnings" in data


def test_the_audit_of_a_recipe_replays_what_its_run_would_see() -> None:
    arguments = ["corpus", "audit", str(RECIPES / "normistral-11b-warm.yaml"), "--until-step", "500"]
    shown = CliRunner().invoke(app, [*arguments, "--json"])
    assert shown.exit_code == 0, shown.output
    data = json.loads(shown.output.splitlines()[-1])
    assert sum(source["sequences"] for source in data["sources"]) == 500 * 1024
    for source in data["sources"]:
        assert sum(source["tokens_by_times_seen"].values()) == source["unique_tokens"]
        assert source["windows_shown_again"] == 0
    tables = CliRunner().invoke(app, arguments)
    assert "Seen in 500 steps: 512,000 sequences of 4,096 tokens" in tables.output
    refused = CliRunner().invoke(app, [*arguments[:-1], "70000"])
    assert isinstance(refused.exception, UserError)
    assert "the run has 61,000 steps" in str(refused.exception)
