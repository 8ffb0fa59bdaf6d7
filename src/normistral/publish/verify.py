"""Check a published folder: does it open, is it whole, and do all who read it see the same model?

Each check gives one line: passed, failed, or not checked and why. Nothing here repairs anything.
"""

from __future__ import annotations

import logging
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from normistral.errors import UserError
from normistral.inference import future_leak
from normistral.inference.leak import plain_int8
from normistral.inference.load import bar_on_terminals_alone
from normistral.inference.quantise import require_packages
from normistral.publish.llama_cpp import LlamaCpp, opened_by_llama_cpp, prepared_for_llama_cpp
from normistral.tokenizer import load_tokenizer
from normistral.weights import StoredTensors, read_config

TEXTS = (
    "En søt lundefugl flyr over de norske fjorder. EØS, BOKMÅL og ČÁHCI.",
    "Čáhppes áhkku lea boahtán; c\u030ca\u0301hppes ŋ đ ŧ ž š.",
    "def f(x: int) -> int:\n    return x ** 2  # 3,14\r\n\t\tslutt\n\n\n",
    "👩\u200d🔬 a\u200bb\ufeffc x\u00a0y \u2028 ﬁ ½ Ⅻ 1234567890",
    "",
    " ",
    "a" * 3000,
)
"""On which readers of one tokenizer are known to differ."""
MASKED = "over de <mask> norske"
PROMPT = "Engelsk: Good morning, and welcome to Norway.\nBokmål:"

LEAK_SHARE = 1e-3
"""Of what moves in bidirectional mode, that rounding may move in causal mode."""
MOST_DIVERGENCE = {"F32": 0.02, "F16": 0.02, "BF16": 0.05, "Q8_0": 0.05, "Q4_0": 1.0}
"""Mean KL divergence in nats a token from the folder's own model (which computes in bfloat16), by kind of
GGUF file. Rounding a small model gives a fifth of it or less; rows in a wrong order give several nats."""
PROBED_PLACES = 8
MOST_TOKENS = 10**15
"""A tokenizer whose files do not say how much the model reads has a limit beyond this."""


@dataclass(frozen=True)
class Check:
    """What one look at the folder found."""

    name: str
    passed: bool | None
    """None where it could not be looked at."""
    detail: str


@dataclass
class _Opened:
    """What later checks need of earlier ones."""

    folder: Path
    is_quantised: bool = False
    model: PreTrainedModel | None = None
    tokenizer: Any = None
    checks: list[Check] = field(default_factory=list)

    def look(self, name: str, check: Callable[[_Opened], tuple[bool | None, str]]) -> None:
        """Make a check; whatever it raises is a failure of the folder."""
        try:
            passed, detail = check(self)
        except Exception as error:  # a broken folder fails in as many ways as there are files
            passed, detail = False, f"{type(error).__name__}: {error}".splitlines()[0]
        self.checks.append(Check(name, passed, detail))


def verify_model(folder: Path) -> list[Check]:
    """Check a published model folder.

    Args:
        folder: with config.json, safetensors, a tokenizer, and perhaps GGUF files.

    Returns:
        The checks in the order they were made.

    Raises:
        UserError: if it is no model folder, or its weights are quantised and bitsandbytes is missing.

    Example:
        >>> verify_model(Path("runs/quickstart/model"))  # doctest: +SKIP
    """
    config = read_config(folder)
    if config.get("quantization_config"):
        require_packages(f"{folder}, whose weights are quantised,")
    opened = _Opened(folder, is_quantised=bool(config.get("quantization_config")))
    opened.look("weights", _weights)
    opened.look("transformers", _open)
    for name, check in (
        ("tokenizer", _tokenizer),
        ("context", _context),
        ("special ids", _special_ids),
        ("mask", _mask),
        ("attention", _attention),
    ):
        opened.look(name, check)
    for file in sorted(folder.glob("*.gguf")):
        opened.look(file.name, lambda opened, file=file: _gguf(opened, file))  # type: ignore[misc]
    return opened.checks


def _weights(opened: _Opened) -> tuple[bool, str]:
    parameters = 0
    with StoredTensors(opened.folder) as stored:
        for name in stored.files:
            values = stored.read(name)
            parameters += values.numel()
            if values.is_floating_point() and not torch.isfinite(values.abs().max().float()):
                return False, f"{name} holds values that are no numbers"
    # Quantised weights are packed, several to a value, and their scales are stored beside them.
    what = "quantised weights" if opened.is_quantised else f"{parameters:,} parameters"
    return True, f"{what} in {len(stored.files)} tensors, all of them numbers"


def _open(opened: _Opened) -> tuple[bool, str]:
    with bar_on_terminals_alone(), _warnings() as said:
        opened.tokenizer = AutoTokenizer.from_pretrained(opened.folder)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            opened.folder, dtype="auto", output_loading_info=True
        )
    model, loading = loaded
    opened.model = model.eval()
    wrong = [
        f"{kind} {next(iter(loading[kind]))}" for kind in loading if kind.endswith("keys") and loading[kind]
    ]
    if wrong:
        return False, wrong[0]
    if said:
        return False, f"warns: {said[0].splitlines()[0]}"
    with torch.inference_mode():
        logits = model(torch.tensor([opened.tokenizer(PROMPT).input_ids])).logits
    if not torch.isfinite(logits).all():
        return False, "logits are no numbers"
    return True, f"{type(model).__name__} in {str(model.dtype).removeprefix('torch.')}, no warnings"


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What Python and the library warn of inside the block."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield said
            # Deprecations are told to those who write libraries; they say nothing of the folder.
            said += [str(w.message) for w in caught if not issubclass(w.category, DeprecationWarning)]
    finally:
        logger.removeHandler(handler)


def _tokenizer(opened: _Opened) -> tuple[bool, str]:
    reference = load_tokenizer(opened.folder)
    rows = int(read_config(opened.folder)["vocab_size"])
    size = max(reference.get_vocab().values()) + 1
    if size > rows:
        return False, f"{size:,} ids and {rows:,} rows of embeddings"
    for text in TEXTS:
        ids = reference.encode(text).ids
        if list(opened.tokenizer(text, verbose=False).input_ids) != ids:  # longer than some models' context
            return False, f"transformers gives {text[:30]!r} other ids than tokenizers"
        back = reference.decode(reference.encode(text, add_special_tokens=False).ids)
        if unicodedata.normalize("NFC", back) != unicodedata.normalize("NFC", text):
            return False, f"{text[:30]!r} comes back as {back[:30]!r}"
    return True, f"{size:,} ids, the same in transformers and tokenizers; texts come back"


def _context(opened: _Opened) -> tuple[bool, str]:
    length = read_config(opened.folder).get("max_position_embeddings")
    tokenizers = opened.tokenizer.model_max_length
    if length is None:
        return False, "config.json has no max_position_embeddings"
    if tokenizers > MOST_TOKENS:
        return True, f"{length:,} tokens; the tokenizer's files say nothing"
    if tokenizers > length:
        return False, f"the tokenizer's model_max_length {tokenizers:,} is above config.json's {length:,}"
    return True, f"{tokenizers:,} tokens"


def _special_ids(opened: _Opened) -> tuple[bool, str]:
    config = read_config(opened.folder)
    generation = GenerationConfig.from_pretrained(opened.folder)
    ids = {}
    for role in ("bos", "eos", "pad"):
        name = f"{role}_token_id"
        places = {
            "config.json": config.get(name),
            "generation_config.json": getattr(generation, name),
            "tokenizer": getattr(opened.tokenizer, name),
        }
        if len({str(value) for value in places.values()}) > 1:
            return False, f"{name}: " + ", ".join(f"{value} in {place}" for place, value in places.items())
        ids[role] = places["tokenizer"]
    return True, ", ".join(f"{role} {token_id}" for role, token_id in ids.items()) + " everywhere"


def _mask(opened: _Opened) -> tuple[bool, str]:
    mask_id = opened.tokenizer.mask_token_id
    if mask_id is None:
        return False, "the tokenizer has no mask_token"
    mask = opened.tokenizer.mask_token
    apart, close = (
        opened.tokenizer(text.replace("<mask>", mask)).input_ids
        for text in (MASKED, MASKED.replace(" <mask>", "<mask>"))
    )
    if apart != close or apart.count(mask_id) != 1:
        return False, f"{mask} does not take the space before it"
    return True, f"{mask} is {mask_id} and takes the space before it"


def _attention(opened: _Opened) -> tuple[bool, str]:
    assert opened.model is not None, "the model did not open"
    ids = opened.tokenizer(TEXTS[0]).input_ids[:12]
    with plain_int8(opened.model):
        causal, both = (future_leak(opened.model, ids, is_causal) for is_causal in (True, False))
    if causal > LEAK_SHARE * max(both, 1.0):
        return False, f"the causal model sees the future (an earlier logit moves by {causal:.3g})"
    if both == 0:
        return False, "is_causal=False is not heard: no earlier logit moves"
    return True, f"an earlier logit moves by {causal:.3g} in causal mode and {both:.3g} in bidirectional mode"


def _gguf(opened: _Opened, file: Path) -> tuple[bool | None, str]:
    assert opened.model is not None, "the model did not open"
    kind = next((kind for kind in MOST_DIVERGENCE if file.stem.endswith(f"-{kind}")), None)
    if kind is None:
        return None, f"not checked: its name does not end in one of {', '.join(MOST_DIVERGENCE)}"
    reference = load_tokenizer(opened.folder)
    ids = reference.encode(prepared_for_llama_cpp(PROMPT)).ids
    try:
        with opened_by_llama_cpp(file, context=len(ids) + 8) as llama:
            wrong = _other_ids(llama, reference)
            if wrong is not None:
                return False, f"llama.cpp gives {wrong[:30]!r} other ids"
            divergence = _divergence(llama, opened.model, ids)
    except ImportError:
        return None, "not checked: needs xllamacpp, pip install 'normistral[serve]'"
    if divergence is None:
        return None, "ids equal; llama.cpp tells no probabilities for what this model writes"
    detail = f"ids equal; {divergence:.2g} nats a token from the model (at most {MOST_DIVERGENCE[kind]:g})"
    return divergence <= MOST_DIVERGENCE[kind], detail


def _other_ids(llama: LlamaCpp, reference: Tokenizer) -> str | None:
    """The first text that llama.cpp gives other ids."""
    texts = (prepared_for_llama_cpp(text) for text in (*TEXTS, MASKED))
    return next((text for text in texts if llama.tokenize(text) != reference.encode(text).ids), None)


def _divergence(llama: LlamaCpp, model: PreTrainedModel, ids: list[int]) -> float | None:
    """Mean KL divergence of the next token's distribution from the model's, in nats; None where llama.cpp
    tells of none."""
    with torch.inference_mode():
        logits = model(torch.tensor([ids], device=model.device)).logits[0].double().cpu()
    expected = torch.log_softmax(logits, -1).numpy()
    places = np.linspace(1, len(ids) - 1, min(PROBED_PLACES, len(ids) - 1)).astype(int)
    divergences = []
    for place in places:
        found = llama.log_probabilities(ids[: place + 1], expected.shape[-1])
        if found is not None:
            known = np.array([found.get(token_id, -100.0) for token_id in range(expected.shape[-1])])
            divergences.append(float(np.sum(np.exp(expected[place]) * (expected[place] - known))))
    return max(float(np.mean(divergences)), 0.0) if divergences else None


def failures(checks: list[Check], folder: Path) -> UserError | None:
    """The error that names what failed, or None where nothing did."""
    failed = [check for check in checks if check.passed is False]
    if not failed:
        return None
    return UserError(
        f"{folder} failed {len(failed)} of {len(checks)} checks: "
        + "; ".join(f"{check.name}: {check.detail}" for check in failed)
    )
