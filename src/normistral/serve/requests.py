"""What clients may send. Unknown keys are ignored, as OpenAI's own server does with its older clients' keys;
keys of OpenAI's that change the answer and are not supported here are refused where they are used."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

MOST_TEXTS = 256
"""Texts of one reading request, and prompts of one completion request."""
MOST_CHOICES = 64
"""Prompts times choices of one completion request."""
MOST_LOGPROBS = 20
MOST_STOPS = 16
MOST_STOP_CHARACTERS = 256


def _whole_characters(text: str) -> str:
    """Refuse half a character (`"\\ud800"`), which JSON can hold and no text can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a character (a lone surrogate)") from None
    return text


Text = Annotated[str, AfterValidator(_whole_characters)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)]
Stop = Annotated[Text, Field(min_length=1, max_length=MOST_STOP_CHARACTERS)]
ModelName = Annotated[Text | None, Field(description="The served model's name, or nothing.")]


class StreamOptions(BaseModel):
    """Options of a streamed completion."""

    include_usage: bool = False


class CompletionRequest(BaseModel):
    """A request to continue one or several prompts."""

    model: ModelName = None
    prompt: (
        Text | Texts | TokenIds | Annotated[list[TokenIds], Field(min_length=1, max_length=MOST_TEXTS)]
    ) = Field(description="A text, several, or the same as token ids.")
    max_tokens: int | None = Field(16, ge=0, description="Longest continuation; null means the default, 16.")
    temperature: float | None = Field(1.0, ge=0, le=100, allow_inf_nan=False, description="0 is greedy.")
    top_p: float | None = Field(1.0, gt=0, le=1, allow_inf_nan=False)
    n: int | None = Field(1, ge=1, le=MOST_CHOICES)
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    echo: bool | None = False
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    # Of OpenAI's, and not here: refused by name unless they have their neutral value.
    best_of: int | None = None
    suffix: str | None = None
    logit_bias: dict[str, float] | None = None
    presence_penalty: float | None = Field(None, allow_inf_nan=False)
    frequency_penalty: float | None = Field(None, allow_inf_nan=False)


class EmbeddingRequest(BaseModel):
    """A request for sentence embeddings."""

    model: ModelName = None
    input: Text | Texts | TokenIds | Annotated[list[TokenIds], Field(min_length=1, max_length=MOST_TEXTS)]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(None, ge=1)


class FillMaskRequest(BaseModel):
    """A request to fill every `<mask>` of one or several texts."""

    model: ModelName = None
    input: Text | Texts
    top_k: int = Field(5, ge=1, le=100, description="Candidates for each mask.")
    tokens_per_mask: Annotated[int, Field(ge=1, le=8)] | None = Field(
        1, description="Tokens behind each mask; null lets the model find out."
    )


class ScoreRequest(BaseModel):
    """A request for the log-probability of one or several texts."""

    model: ModelName = None
    input: Text | Texts
    mode: Literal["causal", "masked"] = Field(
        "causal", description="From left to right, or each token from all others (pseudo-log-likelihood)."
    )


class TokenizeRequest(BaseModel):
    """A request to split a text with every tokenizer of the server."""

    input: Text = Field(max_length=100_000)


def as_list(value: Any) -> list[Any]:
    """One input, or several: always a list of inputs, each a text or a list of token ids."""
    if isinstance(value, str):
        return [value]
    if value and isinstance(value[0], int):
        return [value]
    return list(value)
