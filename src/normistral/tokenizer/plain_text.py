"""Encode raw text in which `<s>` or `<mask>` are only characters.

Documents hold such strings (HTML strikes text through with `<s>`); in a corpus they must not turn into
special tokens, or a document could end in its middle. Prompts are another matter: there the user means them.
"""

from __future__ import annotations

from tokenizers import Tokenizer


def plain_text_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that takes special tokens in text as characters, for documents.

    Example:
        >>> encode = plain_text_tokenizer(tokenizer).encode  # doctest: +SKIP
        >>> BOS_ID in encode("<s>struck out</s>", add_special_tokens=False).ids  # doctest: +SKIP
        False
    """
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.encode_special_tokens = True
    return copy
