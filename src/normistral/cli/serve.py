"""A model over HTTP and in a browser: `normistral serve`."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normistral.cli.model_options import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelArgument,
    QuantizeOption,
    checked_quantization,
)
from normistral.errors import UserError

if TYPE_CHECKING:
    from normistral.serve.run import Listening

PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "httpx")


def serve_command(
    model: ModelArgument,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in: set a token then.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    name: Annotated[str | None, typer.Option(help="The model's name towards clients.")] = None,
    gguf: Annotated[
        str,
        typer.Option(
            help="GGUF file that writes, by llama.cpp; auto takes the smallest of the model's folder, none "
            "writes by transformers."
        ),
    ] = "auto",
    base_tokenizer: Annotated[
        Path | None,
        typer.Option(help="Tokenizer folder shown beside the model's; by default that of the run's base."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="NORMISTRAL_TOKEN", help="Bearer token that requests must carry; better in the variable."
        ),
    ] = None,
    max_body: Annotated[int, typer.Option(help="Largest request body, in bytes.")] = 1 << 20,
    max_tokens: Annotated[int, typer.Option(help="Most tokens that a request may ask for.")] = 2048,
    max_work: Annotated[
        int,
        typer.Option(help="Most tokens that the model may read for one request, over all its steps."),
    ] = 1 << 20,
    context: Annotated[
        int | None,
        typer.Option(help="Prompt and continuation in llama.cpp, in tokens; default the model's, ≤ 8192."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Longest time for one request, in seconds.")] = 120.0,
    concurrency: Annotated[int, typer.Option(help="Completions computed at the same time.")] = 4,
    queue: Annotated[int, typer.Option(help="Requests that may wait; more get status 429.")] = 64,
    threads: Annotated[int | None, typer.Option(help="Threads; default one per core.")] = None,
    quantize: QuantizeOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Serve a model: OpenAI-compatible HTTP, and a web page at the same address.

    Example: normistral serve runs/quickstart/model --port 8000
    """
    for package in PACKAGES:
        if find_spec(package) is None:
            raise UserError(
                f"serving needs {package}, which is not installed: pip install 'normistral[serve]'"
            )
    from normistral.serve.run import serve
    from normistral.serve.settings import ServerSettings

    def say(listening: Listening) -> None:
        if as_json:
            facts = {"url": listening.url, "model": listening.name, "engine": listening.engine}
            print(json.dumps(facts), flush=True)
        else:
            print(
                f"{listening.name} at {listening.url} (written by {listening.engine}); Ctrl-C ends",
                flush=True,
            )

    serve(
        ServerSettings(
            model=model,
            host=host,
            port=port,
            name=name,
            gguf=gguf,
            base_tokenizer=base_tokenizer,
            token=token or None,
            max_body=max_body,
            max_tokens=max_tokens,
            max_work=max_work,
            context=context,
            timeout=timeout,
            concurrency=concurrency,
            queue=queue,
            threads=threads,
            quantize=checked_quantization(quantize),
            device=device,
            dtype=dtype,
        ),
        say,
        lambda sentence: print(f"normistral: {sentence}", file=sys.stderr, flush=True),
    )
