"""The command `normistral publish`: a built corpus as a data set folder (a model is published by `run`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from normistral.errors import UserError


def publish_command(
    out: Annotated[Path, typer.Argument(help="Folder to write; an earlier data set there is replaced.")],
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
        str | None, typer.Option(metavar="ORG/NAME", help="Put it on the Hugging Face Hub.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a new repository.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line last.")] = False,
) -> None:
    """Write a built corpus, or some of its sources, as a data set folder with a card.

    Example: normistral publish --corpus runs/saami --source crawl saami-web --contact you@example.org
    """
    if corpus is None:
        raise UserError(
            "publish needs --corpus RUN, the run whose corpus is published; a model is published by "
            "`normistral run`, into RUN/model"
        )
    from normistral.corpus.reports import find_corpus
    from normistral.publish import publish_corpus, upload_data_set
    from normistral.publish.upload import check_hub_id

    if upload:
        check_hub_id(upload)
    written = publish_corpus(
        find_corpus(corpus),
        out,
        name,
        description,
        contact,
        tuple(source or ()),
        tuple(accept_licence or ()),
        upload or "",
    )
    address = upload_data_set(out, upload, private=not public) if upload else None
    if as_json:
        print(json.dumps({"folder": str(out), "address": address, **written}, ensure_ascii=False))
        return
    print(
        f"{out}: {written['documents']:,} documents, {written['words']:,} words, "
        f"{written['text_bytes'] / 1e6:,.1f} MB of text in {', '.join(written['languages'])}, "
        f"{len(written['files'])} files; read {out / 'README.md'} before you give it away"
    )
    if address:
        print(f"uploaded to {address}{'' if public else ' (private, if the repository is new)'}")
