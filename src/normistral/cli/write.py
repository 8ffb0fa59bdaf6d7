"""The commands that let a model write: `normistral generate` and `normistral translate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from normistral.cli.given_texts import given_texts, unescape
from normistral.cli.model_options import (
    AttentionOption,
    BatchOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelArgument,
    QuantizeOption,
    load_model,
)
from normistral.errors import UserError

BeamsOption = Annotated[int, typer.Option(min=1, help="Continuations kept side by side.")]


def generate_command(
    model: ModelArgument,
    prompt: Annotated[
        str | None, typer.Argument(help="Text to continue; \\n in it means a new line.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Continue each line of this file, as it stands, or each `text` of a .jsonl."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest continuation, in tokens.")] = 64,
    stop: Annotated[
        list[str] | None, typer.Option(help="Stop before this text (\\n for a new line); repeatable.")
    ] = None,
    sample: Annotated[bool, typer.Option(help="Draw tokens instead of taking the likeliest.")] = False,
    temperature: Annotated[float | None, typer.Option(help="Of --sample; default 1.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Of --sample; default 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of --sample.")] = None,
    beams: BeamsOption = 1,
    prefix_lm: Annotated[
        bool, typer.Option("--prefix-lm", help="Read the prompt both ways, then write.")
    ] = False,
    cache: Annotated[str, typer.Option(help="dynamic or static.")] = "dynamic",
    batch_size: BatchOption = 16,
    quantize: QuantizeOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attention: AttentionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Continue a text, or each line of a file.

    Example: normistral generate runs/quickstart/model "fjord: " --max-new-tokens 32
    """
    from normistral.inference import WritingSettings, generate, generate_batch

    given = given_texts(None if prompt is None else [unescape(prompt)], file)
    for name, value in {"--temperature": temperature, "--top-p": top_p, "--seed": seed}.items():
        if value is not None and not sample:
            raise UserError(f"{name} needs --sample: without it the likeliest token is taken")
    how: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "stop": tuple(unescape(text) for text in stop or ()),
        "sample": sample,
        "temperature": 1.0 if temperature is None else temperature,
        "top_p": 1.0 if top_p is None else top_p,
        "seed": seed,
        "beams": beams,
        "prefix_lm": prefix_lm,
        "cache": cache,
    }
    WritingSettings(**how)  # complains before the model is loaded
    loaded = load_model(model, dtype, quantize, device, attention)
    if file is None:
        on_text = None if as_json or beams > 1 else show_at_once
        written = generate(loaded, given.texts[0], on_text=on_text, **how)
        if as_json:
            print(json.dumps(_as_json(written), ensure_ascii=False))
        else:
            print(written.text if beams > 1 else "")
        return
    with given.naming_lines():
        all_written = generate_batch(loaded, given.texts, batch_size=batch_size, **how)
    if as_json:
        given.tell_of_empty_lines()
        print(json.dumps({"texts": [_as_json(each) for each in all_written]}, ensure_ascii=False))
        return
    for line in given.spread([each.text.replace("\n", "\\n") for each in all_written]):
        print(line)


def translate_command(
    model: ModelArgument,
    text: Annotated[str | None, typer.Argument(help="Text to translate.")] = None,
    source: Annotated[str, typer.Option("--from", help="Its language, ISO 639-3.")] = "eng",
    target: Annotated[str, typer.Option("--to", help="Language to translate into.")] = "nob",
    file: Annotated[Path | None, typer.Option(help="Translate each line of this file instead.")] = None,
    examples: Annotated[
        Path | None, typer.Option(help="TSV of TEXT<tab>TRANSLATION lines, shown to the model first.")
    ] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Show this many of them; default all.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest translation of a line.")] = 128,
    beams: BeamsOption = 1,
    batch_size: BatchOption = 16,
    quantize: QuantizeOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Translate by the prompt of the model card.

    Example: normistral translate runs/quickstart/model "I like coffee." --from eng --to nob
    """
    from normistral.inference import read_examples, translate, translation_prompt

    given = given_texts(None if text is None else [text], file)
    shown = read_examples(examples, shots) if examples else []
    if shots and not examples:
        raise UserError("--shots needs --examples FILE")
    translation_prompt("-", source, target)  # complain of the languages before the model is loaded
    loaded = load_model(model, dtype, quantize, device)
    with given.naming_lines():
        translated = translate(
            loaded, given.texts, source, target, shown, max_new_tokens, beams=beams, batch_size=batch_size
        )
    for number, each in enumerate(translated):
        if not each.complete:
            place = f"{given.source}, line {given.lines[number]}: " if given.lines else ""
            print(
                f"normistral: {place}the translation was cut: raise --max-new-tokens, or give shorter lines",
                file=sys.stderr,
            )
    if as_json:
        given.tell_of_empty_lines()
        answer = {
            "from": source,
            "to": target,
            "texts": [each.text for each in translated],
            "complete": [each.complete for each in translated],
        }
        print(json.dumps(answer, ensure_ascii=False))
        return
    for line in given.spread([each.text for each in translated]):
        print(line)


def show_at_once(text: str) -> None:
    """Print a piece of text as soon as it is there."""
    print(text, end="", flush=True)


def _as_json(written: Any) -> dict[str, Any]:
    return {"text": written.text, "tokens": written.tokens, "ended_by": written.ended_by}
