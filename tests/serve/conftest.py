"""Servers that the tests of a module or of the whole session talk to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from serving import Running, running

from normistral.inference import LoadedModel, load
from normistral.serve.settings import ServerSettings
from normistral.weights import export_gguf

if TYPE_CHECKING:
    from conftest import TaughtModel

ENGINES = ("llama.cpp", "transformers")


@pytest.fixture(scope="session")
def taught_model(taught: TaughtModel) -> LoadedModel:
    return load(taught.folder)


@pytest.fixture(scope="session")
def taught_gguf(taught: TaughtModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "taught-F32.gguf"
    export_gguf(taught.folder, path, "F32")
    return path


@pytest.fixture(scope="session")
def llama_server(taught: TaughtModel, taught_model: LoadedModel, taught_gguf: Path) -> Iterator[Running]:
    settings = ServerSettings(
        str(taught.folder), name="taught", threads=1, max_tokens=100, base_tokenizer=taught.folder
    )
    with running(taught_model, settings, taught_gguf) as server:
        yield server


@pytest.fixture(scope="session")
def transformers_server(taught: TaughtModel, taught_model: LoadedModel) -> Iterator[Running]:
    settings = ServerSettings(str(taught.folder), name="taught", gguf="none", max_tokens=100)
    with running(taught_model, settings, None) as server:
        yield server


@pytest.fixture(params=ENGINES)
def server(request: pytest.FixtureRequest) -> Running:
    """A server with either engine."""
    name = "llama_server" if request.param == "llama.cpp" else "transformers_server"
    found: Running = request.getfixturevalue(name)
    return found
