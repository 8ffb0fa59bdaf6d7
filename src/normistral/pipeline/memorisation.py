"""The memorisation audit of a model against the order and the documents of the run that trained it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from normistral.corpus import read_texts
from normistral.dataset import sample_passages
from normistral.errors import UserError
from normistral.evaluation.memorisation import Memorisation, heldout_passages, measure_memorisation
from normistral.inference import load
from normistral.pipeline.run_order import RunOrder, order_of_run, run_sources
from normistral.records import RunFolder
from normistral.tokenizer import TokenRoles, load_tokenizer, plain_text_tokenizer

HELDOUT_DOCUMENTS_READ = 50
"""For each held-out passage wanted: many documents are too short."""


def audit_memorisation(
    model: str,
    run: RunFolder,
    prompt_tokens: int = 32,
    continuation_tokens: int = 32,
    most: int = 100,
    dtype: str = "auto",
    device: str = "auto",
) -> Memorisation:
    """What share of the run's documents a model continues word for word.

    Args:
        model: folder or hub id.
        run: that trained it.
        prompt_tokens: of a document that the model is given, its start token included.
        continuation_tokens: that it has to write.
        most: documents of one source that were shown equally often.
        dtype: that the model is loaded in.
        device: that it works on.

    Raises:
        UserError: if the run has trained nothing yet, the model has another vocabulary, or no document is
            long enough.
    """
    order = order_of_run(run)
    if order.steps_done == 0:
        raise UserError(f"{run.root} has trained no step yet; there is nothing that it could have memorised")
    length = prompt_tokens + continuation_tokens
    if length > order.plan.sequence_length:
        raise UserError(
            f"prompt and continuation have {length} tokens together, but the run's sequences have "
            f"{order.plan.sequence_length}; ask for fewer"
        )
    loaded = load(model, dtype, None, device)
    tokenizer = load_tokenizer(run.tokenizer)
    if loaded.tokenizer.get_vocab() != tokenizer.get_vocab():
        raise UserError(f"model {model} has another vocabulary than {run.root}; give a model of that run")
    _, sources = run_sources(run, order)
    until = order.sequences_after(order.steps_done)
    shown = sample_passages(order.plan, sources, order.recipe.seed, until, order.changes, length, most)
    if not shown:
        raise UserError(f"no document of {run.root} has more than {length} tokens; ask for fewer")
    heldout = heldout_passages(_heldout_documents(run, order, HELDOUT_DOCUMENTS_READ * most), length, most)
    return measure_memorisation(loaded, shown, heldout, prompt_tokens, continuation_tokens)


def _heldout_documents(run: RunFolder, order: RunOrder, most: int) -> Iterator[tuple[str, str, list[int]]]:
    """Source, language and ids of held-out documents, up to so many of each source."""
    start = TokenRoles.of(run.tokenizer).start
    tokenizer = plain_text_tokenizer(load_tokenizer(run.tokenizer))
    for source in order.plan.sources:
        texts = (text for file in run.documents(source.name, "heldout") for text in read_texts(file))
        for _, text in zip(range(most), texts, strict=False):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            yield source.name, source.language, [start, *ids]


def default_run(model: str) -> Path | None:
    """The run that a published model lies in, if it does."""
    folder = Path(model).resolve().parent
    return folder if (folder / "mixture" / "plan.json").exists() else None
