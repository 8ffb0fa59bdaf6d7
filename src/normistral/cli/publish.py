"""The command `normistral publish`: a model as GGUF files, or a built corpus as a data set folder (a model's
own folder is published by `run`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from normistral.errors import UserError


def publish_command(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A model's folder, or its run's; with --corpus the folder to write, where an earlier data "
            "set is replaced."
        ),
    ],
    gguf: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND", help="Write the model for llama.cpp: F32, F16, BF16, Q8_0 or Q4_0; repeatable."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="GGUF: file or folder to write; default NAME-KIND.gguf in the model's folder, where `serve` "
            "finds it."
        ),
    ] = None,
    corpus: Annotated[Path | None, typer.Option(help="Folder of the run whose corpus is published.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Only this source; repeatable.")] = None,
    name: Annotated[str, typer.Option(help="What the data set is called; default: as the folder.")] = "",
    description: Annotated[str, typer.Option(help="First sentences of the card.")] = "",
    contact: Annotated[
        str, typer.Option(help="Address or link for those who want a text of theirs removed.")
    ] = "",
    accept_licence: Annotated[
        list[str] | None,
        typer.Option(help="A licence that may be passed on though it is not known as one; repeatable."),
    ] = None,
    upload: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="Put the data set on the Hugging Face Hub.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a new repository.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line last.")] = False,
) -> None:
    """Write a model as GGUF files; or a built corpus, or some of its sources, as a data set folder.

    Examples: normistral publish runs/quickstart --gguf Q4_0

    normistral publish --corpus runs/saami --source crawl saami-web --contact you@example.org
    """
    if gguf:
        of_a_corpus = {
            "--corpus": corpus,
            "--source": source,
            "--description": description,
            "--contact": contact,
            "--accept-licence": accept_licence,
            "--upload": upload,
            "--public": public,
        }
        if others := [option for option, value in of_a_corpus.items() if value]:
            raise UserError(
                f"--gguf writes a model's files and {others[0]} is for a corpus: leave one of them out"
                + ("; a model's folder is uploaded by `hf upload`" if upload else "")
            )
        _publish_gguf(folder, gguf, out, name, as_json)
        return
    if corpus is None:
        raise UserError(
            "publish needs --gguf KIND, to write a model for llama.cpp, or --corpus RUN, whose corpus "
            "is published; a model's folder is published by `normistral run`, into RUN/model"
        )
    if out is not None:
        raise UserError("--out goes with --gguf; with --corpus the folder to write stands alone")
    from normistral.corpus.reports import find_corpus
    from normistral.publish import publish_corpus, upload_data_set
    from normistral.publish.upload import check_hub_id

    if upload:
        check_hub_id(upload)
    written = publish_corpus(
        find_corpus(corpus),
        folder,
        name,
        description,
        contact,
        tuple(source or ()),
        tuple(accept_licence or ()),
        upload or "",
    )
    address = upload_data_set(folder, upload, private=not public) if upload else None
    if as_json:
        print(json.dumps({"folder": str(folder), "address": address, **written}, ensure_ascii=False))
        return
    print(
        f"{folder}: {written['documents']:,} documents, {written['words']:,} words, "
        f"{written['text_bytes'] / 1e6:,.1f} MB of text in {', '.join(written['languages'])}, "
        f"{len(written['files'])} files; read {folder / 'README.md'} before you give it away"
    )
    if address:
        print(f"uploaded to {address}{'' if public else ' (private, if the repository is new)'}")


def _publish_gguf(folder: Path, kinds: list[str], out: Path | None, name: str, as_json: bool) -> None:
    from normistral.publish import publish_gguf
    from normistral.records import RunFolder

    run = RunFolder(folder)
    model = run.published_model if (run.published_model / "config.json").is_file() else folder
    reports = publish_gguf(model, kinds, name or None, out)  # type: ignore[arg-type]  # kinds are checked there
    if as_json:
        files = [
            {"file": str(r.path), "kind": r.kind, "bytes": r.bytes, "parameters": r.parameters}
            for r in reports
        ]
        print(json.dumps({"files": files, "limits": list(reports[0].limits)}, ensure_ascii=False))
        return
    for report in reports:
        print(
            f"{report.path}: {report.parameters:,} parameters in {report.kind}, "
            f"{report.bytes / 1e6:,.1f} MB, {report.seconds:.1f} s"
        )
    for limit in reports[0].limits:
        print(f"note: {limit}")
