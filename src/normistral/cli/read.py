"""The commands that let a model read both ways: `normistral fill-mask`, `score` and `embed`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from normistral.cli.given_texts import GivenTexts, given_texts
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
from normistral.records.files import whole_file

ANY_NUMBER = "any"

TextsArgument = Annotated[list[str] | None, typer.Argument(help="Texts; or give --file.")]


def fill_mask_command(
    model: ModelArgument,
    text: Annotated[str | None, typer.Argument(help="Text with one or more <mask>.")] = None,
    file: Annotated[Path | None, typer.Option(help="Fill the masks of each line of this file.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Candidates per mask.")] = 5,
    tokens_per_mask: Annotated[
        str, typer.Option(help="Tokens behind each mask, or `any` to find out how many.")
    ] = "1",
    one_by_one: Annotated[
        bool, typer.Option("--one-by-one", help="Fill the surest mask first, then the others knowing it.")
    ] = False,
    batch_size: BatchOption = 16,
    quantize: QuantizeOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attention: AttentionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Fill every <mask> of a text, or of each line of a file, reading it both ways.

    Example: normistral fill-mask runs/quickstart/model "En søt lundefugl flyr over de<mask> norske fjorder."
    """
    from normistral.inference import fill_masks

    given = given_texts(None if text is None else [text], file)
    length = _tokens_per_mask(tokens_per_mask)
    loaded = load_model(model, dtype, quantize, device, attention)
    with given.naming_lines():
        fillings = fill_masks(loaded, given.texts, top_k, batch_size, length, one_by_one)
    given.tell_of_empty_lines()
    if as_json:
        answers = [
            {
                "text": filling.text,
                "masks": [[candidate._asdict() for candidate in mask] for mask in filling.masks],
            }
            for filling in fillings
        ]
        print(json.dumps(answers[0] if file is None else {"texts": answers}, ensure_ascii=False))
        return
    for filling in fillings:
        print(filling.text)
        for number, mask in enumerate(filling.masks, start=1):
            candidates = ", ".join(f"{candidate.text!r} {candidate.probability:.1%}" for candidate in mask)
            print(f"  mask {number}: {candidates}")


def score_command(
    model: ModelArgument,
    texts: TextsArgument = None,
    file: Annotated[Path | None, typer.Option(help="Score each line of this file.")] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="TSV of GOOD<tab>BAD sentences: how often the good one is likelier.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="causal (default), or masked: pseudo-log-likelihood (default of --pairs)."),
    ] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Also show each token.")] = False,
    batch_size: BatchOption = 16,
    quantize: QuantizeOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """How likely the model finds texts, in nats (higher is likelier), or which of two sentences it prefers.

    Example: normistral score runs/quickstart/model "Hun liker kaffe." "Hun like kaffe." --mode masked
    """
    from normistral.inference import score_pairs, score_texts

    checked: Any = mode or ("masked" if pairs else "causal")
    if checked not in ("causal", "masked"):
        raise UserError(f"--mode {mode}: expected causal or masked")
    if pairs:
        if texts or file:
            raise UserError("give either texts, --file or --pairs")
        lines, read = _pairs(pairs)
        loaded = load_model(model, dtype, quantize, device)
        with lines.naming_lines():
            scored = score_pairs(loaded, read, checked, batch_size)
        right = sum(pair.right for pair in scored)
        if as_json:
            rows = [{"good": pair.good.total, "bad": pair.bad.total, "right": pair.right} for pair in scored]
            print(json.dumps({"pairs": rows, "accuracy": right / len(scored)}))
            return
        for pair in scored:
            sign = ">" if pair.right else "≤"
            print(f"{pair.good.total:9.3f} {sign} {pair.bad.total:9.3f}  {pair.good.text}")
        print(
            f"the good sentence is the likelier one in {right} of {len(scored)} pairs "
            f"({right / len(scored):.1%})"
        )
        return
    given = given_texts(texts, file)
    loaded = load_model(model, dtype, quantize, device)
    with given.naming_lines():
        found = score_texts(loaded, given.texts, checked, batch_size)
    given.tell_of_empty_lines()
    if as_json:
        print(
            json.dumps(
                {
                    "mode": checked,
                    "texts": [
                        {
                            "text": score.text,
                            "total": score.total,
                            "bits_per_byte": score.bits_per_byte,
                            "tokens": list(score.tokens),
                            "log_probabilities": list(score.log_probabilities),
                        }
                        for score in found
                    ],
                },
                ensure_ascii=False,
            )
        )
        return
    for score in found:
        print(f"{score.total:9.3f} nats  {score.bits_per_byte:6.3f} bits/byte  {score.text}")
        if tokens:
            for token, nats in zip(score.tokens, score.log_probabilities, strict=True):
                print(f"{nats:9.3f}       {token!r}")


def embed_command(
    model: ModelArgument,
    data: Annotated[
        Path | None, typer.Option(help="Sentences, one a line, or .jsonl with a field `text`.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write their vectors here, as .npy (float32).")] = None,
    nearest: Annotated[
        str | None, typer.Option(help="Show which sentences of --data are nearest to this text.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 5,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Read the beginning of texts longer than the context.")
    ] = False,
    sentence_transformer: Annotated[
        Path | None, typer.Option(help="Write a folder that sentence-transformers opens instead.")
    ] = None,
    batch_size: BatchOption = 16,
    quantize: QuantizeOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Turn sentences into vectors, reading them both ways; find the nearest.

    Example: normistral embed runs/quickstart/model --data sentences.txt --nearest "Hvor er kaffen?"
    """
    if sentence_transformer:
        from normistral.inference import save_sentence_transformer

        save_sentence_transformer(Path(model), sentence_transformer)
        answer: dict[str, Any] = {"sentence_transformer": str(sentence_transformer)}
        print(
            json.dumps(answer) if as_json else f"sentence-transformers folder {sentence_transformer} written"
        )
        return
    if data is None:
        raise UserError("--data is missing: give a file of sentences, or --sentence-transformer FOLDER")
    if out is None and nearest is None:
        raise UserError("give --out FILE.npy for the vectors, or --nearest TEXT")
    if out is not None:
        _check_can_write(out)
    if nearest is not None and not nearest.strip():
        raise UserError("--nearest is empty: give a text")
    from normistral.inference import embed
    from normistral.inference import nearest as nearest_texts

    given = given_texts(None, data, "--data")
    loaded = load_model(model, dtype, quantize, device)
    query = None if nearest is None else embed(loaded, [nearest], truncate=truncate)[0]
    with given.naming_lines():
        vectors_ND = embed(loaded, given.texts, batch_size, truncate=truncate)
    given.tell_of_empty_lines()
    answer = {"texts": len(given.texts), "width": vectors_ND.shape[1]}
    if out is not None:
        import numpy as np

        with whole_file(out) as unfinished, unfinished.open("wb") as file:
            np.save(file, vectors_ND.numpy())
        answer["out"] = str(out)
    found = []
    if query is not None:
        found = nearest_texts(query, vectors_ND, given.texts, count)
        answer["nearest"] = [neighbour._asdict() for neighbour in found]
    if as_json:
        print(json.dumps(answer, ensure_ascii=False))
        return
    if out is not None:
        print(f"{len(given.texts)} vectors of width {vectors_ND.shape[1]} in {out}")
    for neighbour in found:
        print(f"{neighbour.similarity:6.3f}  {neighbour.text}")


def _tokens_per_mask(given: str) -> int | None:
    if given == ANY_NUMBER:
        return None
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"--tokens-per-mask {given}: expected a number from 1, or `{ANY_NUMBER}`")
    return int(given)


def _check_can_write(out: Path) -> None:
    """Complain of a place that cannot be written before the work that is to be kept there.

    Raises:
        UserError: if it is a folder, or in no folder that can be written to.
    """
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: folder {out.parent} does not exist")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: give a file, for example {out / 'vectors.npy'}")
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"--out {out}: folder {out.parent} cannot be written to")


def _pairs(file: Path) -> tuple[GivenTexts, list[tuple[str, str]]]:
    """Minimal pairs with the lines that they stand on."""
    given = given_texts(None, file, "--pairs")
    pairs = []
    for number, line in zip(given.lines, given.texts, strict=True):
        fields = line.split("\t")
        if len(fields) != 2 or not all(field.strip() for field in fields):
            raise UserError(f"--pairs {file}, line {number}: expected a good sentence, a tab and a bad one")
        pairs.append((fields[0].strip(), fields[1].strip()))
    return given, pairs
