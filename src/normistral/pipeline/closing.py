"""What a finished run says at the end: before and after, examples, speed, where things are, what to try."""

from __future__ import annotations

from normistral.evaluation import ModelExamples, ModelScore
from normistral.languages import language_name
from normistral.pipeline.data_stages import tokenizer_comparison
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
        # A gap can be filled with a line break, which would tear the table.
        (one.sentence, one.text.replace("\n", "↵"), other.text.replace("\n", "↵"))
        for one, other in zip(base.masks, adapted.masks, strict=True)
    ]
    if rows:
        note = (
            "" if base.has_mask_token else "The base has no <mask>: another special token stands in for it."
        )
        context.screen.table("Filled masks", ("sentence", "base", "adapted"), rows, note)
    _show_speed(context, base, adapted)


def _show_speed(context: RunContext, base: ModelExamples, adapted: ModelExamples) -> None:
    """Words a second, by the tokens that held-out words need: what the two wrote above does not compare."""
    if not (base.tokens_per_second and adapted.tokens_per_second):
        return
    recipe = context.recipe
    main_source = max(recipe.corpus.sources, key=lambda source: recipe.mixture_weights.get(source.name, 0.0))
    needed = {
        row.tokenizer: row.tokens_per_word
        for row in tokenizer_comparison(context)
        if row.language == main_source.language
    }
    context.screen.say(
        f"Writing speed in {language_name(main_source.language)}: "
        f"base {base.tokens_per_second / needed['base']:.1f}, "
        f"adapted {adapted.tokens_per_second / needed['new']:.1f} words a second "
        f"({base.tokens_per_second:.1f} and {adapted.tokens_per_second:.1f} tokens a second; a held-out word "
        f"needs {needed['base']:.2f} and {needed['new']:.2f})."
    )
