"""`normistral finetune` and `normistral predict`: make a reader for a task, and let it read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from normistral.cli.model_options import DeviceOption, JsonOption, ModelArgument
from normistral.errors import UserError

FieldOption = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        help="OURS=THEIRS, what the file calls a field: text=review, label=sentiment, labels=misc:name; "
        "repeatable.",
    ),
]


def finetune_command(
    model: ModelArgument,
    task: Annotated[
        str,
        typer.Option(
            help="text-classification, token-classification, question-answering, sentence-similarity, causal."
        ),
    ],
    data: Annotated[Path, typer.Option(help="Training examples: .jsonl, .csv, .tsv or .conllu.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    dev: Annotated[
        Path | None, typer.Option(help="Examples that decide when to stop; default: a share of --data.")
    ] = None,
    dev_share: Annotated[float, typer.Option(help="That share; 0: train to the end.")] = 0.1,
    test: Annotated[Path | None, typer.Option(help="Examples to measure the saved folder on.")] = None,
    field: FieldOption = None,
    attention: Annotated[
        str | None, typer.Option(help="bidirectional (default) or causal (default of the task causal).")
    ] = None,
    label_subtoken: Annotated[
        str | None,
        typer.Option(help="first or last sub-token of a word has its label; default first, causal last."),
    ] = None,
    method: Annotated[str, typer.Option(help="full, lora or lora-4bit.")] = "full",
    lora_rank: Annotated[int, typer.Option(help="Rank of LoRA's change.")] = 16,
    lora_alpha: Annotated[int, typer.Option(help="LoRA's change is scaled by alpha / rank.")] = 32,
    lora_dropout: Annotated[float, typer.Option(help="Dropout before LoRA's first factor.")] = 0.05,
    epochs: Annotated[float, typer.Option(help="Passes over the examples at most.")] = 3.0,
    max_steps: Annotated[int | None, typer.Option(help="Steps at most, instead of --epochs.")] = None,
    batch_size: Annotated[int, typer.Option(help="Examples a forward pass.")] = 16,
    accumulate: Annotated[int, typer.Option(help="Forward passes a step.")] = 1,
    learning_rate: Annotated[float | None, typer.Option(help="Peak; default 5e-5, with LoRA 2e-4.")] = None,
    warmup_share: Annotated[float, typer.Option(help="Share of the steps in which it rises.")] = 0.1,
    weight_decay: Annotated[float, typer.Option(help="AdamW's.")] = 0.01,
    patience: Annotated[
        int, typer.Option(help="Measurements without improvement after which training stops.")
    ] = 3,
    measure_every: Annotated[
        int | None, typer.Option(help="Steps between measurements and checkpoints; default an epoch.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens of an example at most; default 512 or the context.")
    ] = None,
    recompute: Annotated[bool, typer.Option("--recompute", help="Less memory, a third more time.")] = False,
    seed: Annotated[int, typer.Option(help="Of head, order and dropout.")] = 0,
    dtype: Annotated[str, typer.Option(help="auto (bfloat16 where faster), bfloat16 or float32.")] = "auto",
    save_dtype: Annotated[str, typer.Option(help="auto (as the base), bfloat16 or float32.")] = "auto",
    device: DeviceOption = "auto",
    redo: Annotated[bool, typer.Option("--redo", help="Forget an earlier fine-tuning in --out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a model for a task, like a BERT; the same command goes on where it was stopped.

    Example: normistral finetune runs/quickstart/model --task token-classification --data nob.train.conllu
    --out runs/tagger
    """
    from pydantic import ValidationError

    from normistral.finetune import FinetuneSettings, finetune

    given = {name: value for name, value in locals().items() if name in FinetuneSettings.model_fields}
    try:
        settings = FinetuneSettings(**given, fields=named_fields(field))
    except ValidationError as error:
        problem = error.errors()[0]
        option = f"--{str(problem['loc'][0]).replace('_', '-')}"
        message = problem["msg"][0].lower() + problem["msg"][1:]
        raise UserError(f"{option} {problem['input']}: {message}") from error
    record = finetune(settings, redo=redo)
    if as_json:
        print(json.dumps({"out": str(out), "metrics": record["metrics"], "attention": record["attention"]}))


def predict_command(
    folder: Annotated[Path, typer.Argument(help="What normistral finetune has written.")],
    data: Annotated[
        Path | None, typer.Option(help="Examples as for training; also .txt, one text a line.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text instead of --data; repeatable.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write, .jsonl or, of a tagger, .conllu; default: the screen.")
    ] = None,
    field: FieldOption = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Compare with the answers in --data, print metrics.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples a forward pass.")] = 16,
    quantize: Annotated[str | None, typer.Option(help="4bit (needs the extra `quantise`).")] = None,
    dtype: Annotated[str, typer.Option(help="auto (as stored), bfloat16, float16 or float32.")] = "auto",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Let a fine-tuned model label, tag, answer or compare; one JSON object a line, with probabilities.

    Example: normistral predict runs/tagger --text "En søt lundefugl flyr over de norske fjorder."
    """
    from normistral.finetune import load_finetuned, predict_file, predict_texts

    if (data is None) == (not text):
        raise UserError("give either --data FILE or --text TEXT")
    choices: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "--quantize": (quantize, (None, "4bit")),
        "--dtype": (dtype, ("auto", "bfloat16", "float16", "float32")),
        "--device": (device, ("auto", "cpu", "cuda")),
    }
    for option, (value, allowed) in choices.items():
        if value not in allowed:
            raise UserError(f"{option} {value}: expected {', '.join(filter(None, allowed))}")
    if measure and data is None:
        raise UserError("--measure needs the right answers: give --data FILE")
    finetuned = load_finetuned(folder, dtype, quantize, device)  # type: ignore[arg-type]
    if data is not None:
        made = predict_file(finetuned, data, named_fields(field), batch_size, measure)
    else:
        made = predict_texts(finetuned, text or [], batch_size)
    if made.cut:
        typer.echo(f"{made.cut} examples are longer than the model was trained on and were cut", err=True)
    if out:
        made.write(out)
    elif not measure:
        for answer in made.answers:
            print(json.dumps(answer, ensure_ascii=False))
    if as_json:
        print(json.dumps({"answers": len(made.answers), "metrics": made.metrics}))
    elif made.metrics:
        print(", ".join(f"{name} {value:.4f}" for name, value in made.metrics.items()))


def named_fields(given: list[str] | None) -> dict[str, str]:
    """`OURS=THEIRS` of each --field.

    Raises:
        UserError: if one has another form.
    """
    fields = {}
    for text in given or ():
        ours, equals, theirs = text.partition("=")
        if not equals or not theirs:
            raise UserError(f"--field {text}: expected OURS=THEIRS, for example text=review")
        fields[ours] = theirs
    return fields
