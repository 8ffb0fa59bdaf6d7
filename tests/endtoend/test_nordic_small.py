"""`recipes/nordic-small.yaml` on real text, from files to a planned mixture; skipped where the text is not
there."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_run import finish, start

from normistral.records import RunFolder, read_json

MAIN = Path(__file__).parents[2]
CORPORA = MAIN.parent / "shared" / "corpora"
RECIPE = MAIN / "recipes" / "nordic-small.yaml"


@pytest.mark.slow
@pytest.mark.skipif(not CORPORA.exists(), reason="the shared corpora are not here")
def test_eight_languages_and_code_become_a_corpus_shards_and_a_plan(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    folder = f"corpus.folder={CORPORA}"
    output = finish(start(RECIPE, run.root, "--set", folder, "--until", "dataset"), seconds=2400)
    for title in ("Documents", "Documents dropped, by step", "Documents dropped, by rule", "Mixture: "):
        assert title in output
    manifest = read_json(run.corpus_manifest)
    for name, source in manifest["sources"].items():
        dropped = sum(sum(rules.values()) for rules in source["dropped"].values())
        assert source["read"] == dropped + source["train_documents"] + source["heldout_documents"]
        assert source["train_documents"] > source["read"] / 3, name
        assert source["heldout_documents"]
    assert (run.stage("mixture") / "plan.json").exists()
