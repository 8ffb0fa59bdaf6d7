"""The engine: what is skipped, resumed, redone or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from normistral.errors import UserError
from normistral.pipeline.engine import locked, run_stages
from normistral.pipeline.stage import RunContext, Stage
from normistral.recipe import Recipe, load_recipe
from normistral.records import RunFolder
from normistral.training import Runtime

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"


class Silence:
    """A screen that keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def table(self, title: str, header: Any, rows: Any, note: str = "") -> None:
        self.lines.append(title)


class House:
    """Three stages in a row that log their runs: a → b → c; c is cheap."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ran: list[str] = []
        self.fails_in: str | None = None

    def run(self, overrides: tuple[str, ...] = (), **how: Any) -> list[str]:
        """Run with a recipe's settings changed; the stages that did work, in order."""
        self.ran.clear()
        recipe = load_recipe(QUICKSTART, overrides)
        self.screen = Silence()
        context = RunContext(
            recipe, RunFolder(self.root), self.root, Runtime("cpu", "float32", 1), self.screen
        )
        run_stages(self._stages(), context, **how)
        return list(self.ran)

    def _stages(self) -> tuple[Stage, ...]:
        def stage(name: str, above: tuple[str, ...], part: Any, cheap: bool = False) -> Stage:
            def work(context: RunContext) -> dict[str, Any]:
                self.ran.append(name)
                folder = context.run.stage(name)
                (folder / "made.txt").write_text(f"{part(context.recipe) // 10}", encoding="utf-8")
                if self.fails_in == name:
                    raise KeyboardInterrupt
                return {}

            return Stage(name, name, above, part, work, ("made.txt",), lambda context: None, cheap=cheap)

        def steps(recipe: Recipe) -> Any:
            return recipe.realign.steps

        def length(recipe: Recipe) -> Any:
            return recipe.mixture.sequence_length

        return (
            stage("a", (), lambda recipe: recipe.seed),
            stage("b", ("a",), steps),
            stage("c", ("b",), length, cheap=True),
        )


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "run")


def test_a_second_run_does_nothing(house: House) -> None:
    assert house.run() == ["a", "b", "c"]
    assert house.run() == []
    assert sum("unchanged" in line for line in house.screen.lines) == 3


def test_until_stops_after_a_stage_and_the_next_run_goes_on(house: House) -> None:
    assert house.run(until="b") == ["a", "b"]
    assert house.run() == ["c"]


def test_a_changed_stage_is_refused_with_the_difference_until_redo(house: House) -> None:
    house.run()
    with pytest.raises(
        UserError, match=r"stage b .* was made from other inputs \(recipe: 50 → 60\).*--redo b"
    ):
        house.run(("realign.steps=60",))
    assert house.run(("realign.steps=60",), redo=["b"]) == ["b", "c"]


def test_a_cheap_stage_is_redone_by_itself(house: House) -> None:
    house.run()
    assert house.run(("mixture.sequence_length=64",)) == ["c"]


def test_a_refused_run_has_done_no_work_and_kept_the_old_recipe(house: House) -> None:
    house.run()
    before = (house.root / "recipe.yaml").read_text(encoding="utf-8")
    with pytest.raises(UserError, match=r"stage b .* was made from other inputs \(recipe: 50 → 60\)"):
        house.run(("realign.steps=60", "mixture.sequence_length=64"))
    assert house.ran == []
    assert (house.root / "recipe.yaml").read_text(encoding="utf-8") == before


def test_checksums_are_shown_by_their_beginning(house: House) -> None:
    house.run()
    (house.root / "a" / "stage.json").unlink()
    with pytest.raises(UserError, match=r"stage b .*above\.a: [0-9a-f]{8}… → [0-9a-f]{8}…\)"):
        house.run(("seed=90",))


def test_stages_below_a_redo_are_redone_also_after_an_interruption(house: House) -> None:
    house.run()
    house.fails_in = "b"
    with pytest.raises(KeyboardInterrupt):
        house.run(("seed=90",), redo=["a"])
    house.fails_in = None
    assert house.run(("seed=90",)) == ["b"], "without --redo; c's input came out the same"
    assert house.run(("seed=90",)) == []


def test_redo_behind_until_deletes_nothing_on_the_way(house: House) -> None:
    house.run()
    assert house.run(until="a", redo=["c"]) == []
    assert (house.root / "c" / "made.txt").exists()


def test_redo_that_makes_the_same_bytes_leaves_the_stages_below_alone(house: House) -> None:
    house.run()
    assert house.run(redo=["a"]) == ["a"]
    assert house.run(("seed=43",), redo=["a"]) == ["a"], "the output is the same, so b's inputs are"
    assert house.run(("seed=90",), redo=["a"]) == ["a", "b"], "b made the same"


def test_an_interrupted_stage_goes_on_with_what_it_had(house: House) -> None:
    house.fails_in = "b"
    with pytest.raises(KeyboardInterrupt):
        house.run()
    assert (house.root / "b" / "made.txt").exists()
    house.fails_in = None
    assert house.run() == ["b", "c"]
    assert any("b: b (going on)" in line for line in house.screen.lines)


def test_unfinished_work_from_other_inputs_is_not_thrown_away_unasked(house: House) -> None:
    house.fails_in = "b"
    with pytest.raises(KeyboardInterrupt):
        house.run()
    house.fails_in = None
    with pytest.raises(UserError, match=r"stage b .* was begun from other inputs"):
        house.run(("realign.steps=60",))
    assert house.run() == ["b", "c"]


def test_a_missing_output_is_noticed(house: House) -> None:
    house.run()
    (house.root / "b" / "made.txt").unlink()
    with pytest.raises(
        UserError, match=r"stage b: .*made\.txt, which it made, is missing; run with --redo b"
    ):
        house.run()


def test_unknown_stages_are_refused_by_name(house: House) -> None:
    with pytest.raises(UserError, match="there is no stage 'nope'; stages are: a, b, c"):
        house.run(until="nope")
    with pytest.raises(UserError, match="there is no stage 'nope'"):
        house.run(redo=["nope"])


def test_two_processes_cannot_work_in_one_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with locked(run), pytest.raises(UserError, match="another process is working in"), locked(run):
        pass
    with locked(run):
        pass


class Keeper(House):
    """The same house, whose stage b keeps pieces and lets its inputs shrink to less than 100 unasked."""

    def _stages(self) -> tuple[Stage, ...]:
        first, second, third = super()._stages()

        def amends(before: dict[str, Any], now: dict[str, Any]) -> bool:
            return int(now["recipe"]) < int(before["recipe"])

        def work(context: RunContext) -> dict[str, Any]:
            (context.run.stage("b") / "piece").touch()
            return second.run(context)

        return first, replace(second, checks_own_pieces=True, amends=amends, run=work), third


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(tmp_path / "run")


def test_a_stage_that_only_takes_something_out_goes_on_without_being_asked(keeper: Keeper) -> None:
    keeper.run(until="b")
    assert keeper.run(("realign.steps=30",), until="b") == ["b"]
    with pytest.raises(UserError, match="stage b .* was made from other inputs"):
        keeper.run(("realign.steps=60",), until="b")


def test_what_lies_below_a_stage_that_went_on_is_asked_for_first(keeper: Keeper) -> None:
    keeper.run()
    assert keeper.run(("realign.steps=30",)) == ["b", "c"]  # c is cheap


def test_going_on_that_was_interrupted_is_no_finished_stage_for_the_old_inputs_either(keeper: Keeper) -> None:
    keeper.run(until="b")
    keeper.fails_in = "b"
    with pytest.raises(KeyboardInterrupt):
        keeper.run(("realign.steps=30",), until="b")
    keeper.fails_in = None
    assert keeper.run(until="b") == ["b"]


def test_redo_of_a_stage_that_checks_its_pieces_keeps_them_when_its_inputs_changed_and_not_else(
    keeper: Keeper,
) -> None:
    keeper.run(until="b")
    mark = keeper.root / "b" / "mark"
    mark.touch()
    assert keeper.run(("realign.steps=60",), until="b", redo=["b"]) == ["b"]
    assert mark.exists()
    assert keeper.run(("realign.steps=60",), until="b", redo=["b"]) == ["b"]
    assert not mark.exists()
