"""Where everything of a run lies (the layout of docs/design.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """Paths inside `runs/<name>/`; each stage writes into its own folder, but for the
    published model and the report."""

    root: Path

    def stage(self, name: str) -> Path:
        """Folder of a stage: its stage.json and, but for the published model, all that it makes."""
        return self.root / name

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.root / "recipe.yaml"

    @property
    def run_file(self) -> Path:
        """Versions, hardware, and the precision and threads chosen (kept on resume)."""
        return self.root / "run.json"

    @property
    def lock(self) -> Path:
        """Held by the process that works in this folder."""
        return self.root / "run.lock"

    @property
    def documents_folder(self) -> Path:
        """The corpus: `SOURCE/train-00000.parquet`, `SOURCE/heldout-00000.parquet`, …"""
        return self.stage("corpus") / "documents"

    def documents(self, source: str, split: str) -> list[Path]:
        """Files of one source's documents that are there, in order; `split` is `train` or `heldout`."""
        files = (self.documents_folder / source).glob(f"{split}-*.parquet")
        return sorted(files, key=lambda file: (len(file.name), file.name))

    @property
    def fates_folder(self) -> Path:
        """What became of each document that was read: `SOURCE-00000.parquet`, …"""
        return self.stage("corpus") / "fates"

    @property
    def corpus_manifest(self) -> Path:
        """Inputs, files with checksums, and counts of the corpus."""
        return self.stage("corpus") / "manifest.json"

    @property
    def base_model(self) -> Path:
        """The imported base: a Hugging Face folder."""
        return self.stage("base") / "model"

    @property
    def tokenizer(self) -> Path:
        """The new tokenizer: a Hugging Face tokenizer folder."""
        return self.stage("tokenizer") / "tokenizer"

    @property
    def swapped_model(self) -> Path:
        """The base with the new vocabulary, untrained: a Hugging Face folder."""
        return self.stage("swap") / "model"

    def trained_model(self, stage: str) -> Path:
        """What `realign` or `adapt` ended in: a Hugging Face folder in float32."""
        return self.stage(stage) / "model"

    @property
    def published_model(self) -> Path:
        """The folder to give away."""
        return self.root / "model"

    @property
    def report(self) -> Path:
        """The self-contained report."""
        return self.root / "report.html"
