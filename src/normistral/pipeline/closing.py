"""What a finished run says at the end: before and after, examples, speed, where things are, what to try."""

from __future__ import annotations

from normistral.evaluation import ModelExamples, ModelScore
from normistral.pipeline.report_facts import evaluation_rows, meaning_of_scores, next_commands, places
from normistral.pipeline.result_stages import model_examples, model_scores
from normistral.pipeline.stage import RunContext


def show_closing(context: RunContext) -> None:
    """Tell on the screen what came of the run."""
    scores, examples = model_scores(context.run), model_examples(context.run)
    _show_scores(context, scores)
    _show_examples(context, examples)
    screen = context.screen
    screen.table("Where everything is", ("what", "path"), list(places(context).items()))
    screen.say("What to try next:")
    for purpose, command in next_commands(context).items():
        screen.say(f"  # {purpose}\n  {command}")


def _show_scores(context: RunContext, scores: dict[str, ModelScore]) -> None:
    rows = [
        (
            language,
            model,
            f"{bits_per_byte:.3f}",
            change,
            "–" if accuracy is None else f"{accuracy:.1%}",
            "–" if bits_per_token is None else f"{bits_per_token:.2f}",
        )
        for language, model, bits_per_byte, change, accuracy, bits_per_token in evaluation_rows(scores)
    ]
    header = (
        "language",
        "model",
        "bits per byte",
        "against base",
        "masked accuracy",
        "bits per masked token",
    )
    context.screen.table("Held-out text, before and after", header, rows, meaning_of_scores(context, scores))


def _show_examples(context: RunContext, examples: dict[str, ModelExamples]) -> None:
    base, adapted = examples["base"], examples["adapt"]
    rows = [
        (one.prompt, one.text, other.text)
        for one, other in zip(base.continuations, adapted.continuations, strict=True)
    ]
    if rows:
        context.screen.table("Continuations (greedy)", ("prompt", "base", "adapted"), rows)
    rows = [
        (one.sentence, one.text, other.text) for one, other in zip(base.masks, adapted.masks, strict=True)
    ]
    if rows:
        note = "" if base.has_mask_token else "The base has no <mask>: its unknown token stands in for it."
        context.screen.table("Filled masks", ("sentence", "base", "adapted"), rows, note)
    if base.characters_per_second and adapted.characters_per_second:
        context.screen.say(
            f"Writing speed: base {base.characters_per_second:.0f}, adapted "
            f"{adapted.characters_per_second:.0f} characters a second "
            "(the new tokenizer needs fewer tokens a word)."
        )
