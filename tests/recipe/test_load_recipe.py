"""Reading recipes: overrides, round trip, and one clear sentence for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from normistral.errors import UserError
from normistral.recipe import dump_recipe, load_recipe, parse_recipe
from normistral.recipe.reference import reference

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"


def quickstart_data() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    return data


def test_the_quickstart_recipe_is_read_and_round_trips_resolved(tmp_path: Path) -> None:
    recipe = load_recipe(QUICKSTART)
    (tmp_path / "resolved.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "resolved.yaml") == recipe
    assert "clip_norm: 1.0" in dump_recipe(recipe), "defaults are written out"


def test_overrides_reach_nested_values_list_items_and_sources_by_name() -> None:
    recipe = load_recipe(
        QUICKSTART,
        (
            "adapt.steps=77",
            "runtime.threads=1",
            "corpus.sources.python-docs.heldout_share=0.5",
            "corpus.sources.0.licence=CC0-1.0",
            "evaluation.continuations=[]",
        ),
    )
    assert recipe.adapt.steps == 77
    assert recipe.runtime.threads == 1
    assert recipe.corpus.sources[1].heldout_share == 0.5
    assert recipe.corpus.sources[0].licence == "CC0-1.0"
    assert recipe.evaluation.continuations == ()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("adapt.stepz=3", r"unknown key 'adapt\.stepz'; did you mean 'steps'\?"),
        ("corpus.sources.0.licens=x", r"unknown key 'corpus\.sources\.0\.licens'; did you mean 'licence'\?"),
        ("adapt.steps=-3", r"adapt\.steps is -3: input should be greater than 0"),
        ("adapt.steps=many", r"adapt\.steps is 'many'"),
        (
            "mixture.weights.python-docs=-1",
            r"mixture\.weights\.python-docs is -1\.0: a weight must be .* at least 0",
        ),
        ("mixture.weights={bokmaalsordboka: 0, python-docs: 0}", r"mixture\.weights are all zero"),
        ("mixture.weights={bokmaalsordboka: .nan}", r"must be a finite number"),
        (
            "mixture.weights.bokmaalsordbok=1",
            r"'bokmaalsordbok', which is no source .* did you mean 'bokmaalsordboka'",
        ),
        ("tokenizer.weights={nob: 1}", r"tokenizer\.weights names 'nob', which is no source"),
        (
            "adapt.schedule={shape: trapezoid, warmup_steps: 90, decay_steps: 90}",
            r"do not fit into steps = 110",
        ),
        ("objective.replace_with_random=0.5", r"together must not pass 1"),
        ("evaluation.masked_sentences=[ingen maske]", r"'ingen maske' has no <mask>"),
        ("tokenizer.vocabulary_size=100", r"tokenizer\.vocabulary_size is 100"),
        ("adapt.steps.more=3", r"'adapt\.steps' is a plain value and has no 'more'"),
        ("corpus.sources.nope.licence=x", r"no item 'nope' in a list of 3"),
        ("adapt.steps", r"expected dotted\.path=value"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_recipe(QUICKSTART, (override,))


def test_missing_keys_and_repeated_source_names_are_named() -> None:
    data = quickstart_data()
    del data["adapt"]["learning_rate"]
    with pytest.raises(UserError, match=r"key 'adapt\.learning_rate' is missing"):
        parse_recipe(data)
    data = quickstart_data()
    data["corpus"]["sources"].append(data["corpus"]["sources"][0])
    with pytest.raises(UserError, match="source names must differ; used twice: bokmaalsordboka"):
        parse_recipe(data)


def test_files_that_are_no_recipe_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.yaml does not exist"):
        load_recipe(tmp_path / "missing.yaml")
    (tmp_path / "broken.yaml").write_text("name: [unclosed", encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.yaml is not valid YAML"):
        load_recipe(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- name", encoding="utf-8")
    with pytest.raises(UserError, match="must be a mapping of sections"):
        load_recipe(tmp_path / "list.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: blåbær".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.yaml cannot be read"):
        load_recipe(tmp_path / "latin.yaml")


def test_weights_are_normalised() -> None:
    recipe = load_recipe(QUICKSTART, ("mixture.weights={bokmaalsordboka: 3, python-docs: 1}",))
    assert recipe.mixture_weights == {"bokmaalsordboka": 0.75, "python-docs": 0.25}


def test_the_tokenizer_has_weights_of_its_own_or_the_mixtures() -> None:
    own = load_recipe(QUICKSTART, ("tokenizer.weights={python-docs: 2}",))
    assert own.tokenizer_weights == {"python-docs": 1.0}
    shared = load_recipe(QUICKSTART, ("tokenizer.weights=null",))
    assert shared.tokenizer_weights == shared.mixture_weights


def test_the_reference_page_is_made_from_the_docstrings_as_they_are_now() -> None:
    page = Path(__file__).parents[2] / "docs" / "recipe.md"
    assert page.read_text(encoding="utf-8") == reference(), (
        "run: python -m normistral.recipe.reference > docs/recipe.md"
    )


@pytest.mark.parametrize("path", sorted(QUICKSTART.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_that_is_shipped_is_read(path: Path) -> None:
    assert load_recipe(path).name
