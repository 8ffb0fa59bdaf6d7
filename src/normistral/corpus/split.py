"""Which documents are held out for evaluation: decided by a hash of the id alone.

So the split depends on no order and no other document: adding text to a source moves nothing from one side to
the other, and a larger share holds out the same documents and more.
"""

from __future__ import annotations

import hashlib

HASH_BYTES = 8


def is_heldout(document_id: str, share: float) -> bool:
    """Whether a document belongs to the held-out part.

    Args:
        document_id: the id as the source gives it; documents with one id stay together.
        share: share of documents held out, 0 to 1.

    Example:
        >>> is_heldout("nob/2024/a.txt", share=0.0), is_heldout("nob/2024/a.txt", share=1.0)
        (False, True)
    """
    digest = hashlib.blake2b(document_id.encode(), digest_size=HASH_BYTES, person=b"heldout").digest()
    return int.from_bytes(digest, "big") < share * (1 << 8 * HASH_BYTES)
