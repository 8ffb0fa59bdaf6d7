"""Trim a base's byte-level vocabulary to the tokens that a sample of text uses, to make room for new ones.

A vocabulary learnt from scratch cuts words that the base had whole, so that the base reads even its own
language in cuts that it never saw. A trimmed one cuts like the base wherever the words that it meets are of
tokens that were kept: the most used stay, and with each all tokens that its merges need; merges keep their
order. `extend_tokenizer` then fills the room. Ids are given anew, without gaps, in the base's order.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokenizers import Tokenizer

from normistral.errors import UserError
from normistral.tokenizer.extend import check_extendable
from normistral.tokenizer.keep import TakenOver
from normistral.tokenizer.roles import find_roles

Parents = Mapping[int, list[tuple[int, int]]]
"""Pairs of tokens that merge into a token, by its id; tokens of no merge (bytes, special ones) are absent."""


def trim_tokenizer(base: TakenOver, words: Mapping[str, int], kept: int) -> TakenOver:
    """Keep the base's tokens that words use most.

    Args:
        base: from `take_over`.
        words: how often each word occurs, from `count_base_words`.
        kept: tokens to keep at most; special tokens and those of no merge always stay, and count.

    Returns:
        The tokenizer, with ids 0 to at most `kept` - 1 in the base's order. It cuts a word as the base does
        where all tokens of the word were kept.

    Raises:
        UserError: if the base's tokenizer is not byte-level BPE, or `kept` has no room for what must stay.
    """
    check_extendable(base.tokenizer)
    content: dict[str, Any] = json.loads(base.tokenizer.to_str())
    model = content["model"]
    ids: dict[str, int] = dict(model["vocab"])
    for token in content["added_tokens"]:
        ids.setdefault(token["content"], token["id"])
    merges = [merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"]]
    parents: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for left, right in merges:
        parents[ids[left + right]].append((ids[left], ids[right]))
    usage: Counter[int] = Counter()
    for word, count in words.items():
        for piece in base.tokenizer.model.tokenize(word):
            usage[piece.id] += count
    stay = most_used(usage, parents, set(ids.values()) - set(parents) | set(base.roles.special), kept)
    names = {token_id: name for name, token_id in ids.items()}
    new_ids = {old: new for new, old in enumerate(sorted(stay & set(names)))}
    model["vocab"] = {names[old]: new for old, new in new_ids.items()}
    model["merges"] = [
        [left, right] for left, right in merges if {ids[left], ids[right], ids[left + right]} <= stay
    ]
    for token in content["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    trimmed = Tokenizer.from_str(json.dumps(content, ensure_ascii=False))
    named = {role: getattr(base.roles, role) for role in ("unk", "bos", "eos", "pad", "mask")}
    roles = replace(
        base.roles,
        size=len(new_ids),
        special=find_roles(trimmed, {}).special,
        **{role: None if old is None else new_ids[old] for role, old in named.items()},
    )
    return replace(base, tokenizer=trimmed, roles=roles, base_size=len(new_ids))


def most_used(usage: Mapping[int, int], parents: Parents, always: set[int], kept: int) -> set[int]:
    """The most used tokens, with what each is merged from, until the next has no room.

    Args:
        usage: occurrences by token.
        parents: of each token that a merge makes.
        always: tokens that stay in any case.
        kept: how many tokens at most.

    Raises:
        UserError: if there is no room for those that stay in any case.
    """
    if len(always) > kept:
        raise UserError(
            f"tokenizer.kept_base_tokens is {kept:,}, but {len(always):,} of the base's tokens are single "
            "characters or special and stay in any case; give more"
        )
    stay = set(always)
    for token_id, _ in sorted(usage.items(), key=lambda item: (-item[1], item[0])):
        needed: set[int] = set()
        waiting = [token_id]
        while waiting:
            each = waiting.pop()
            if each not in stay and each not in needed:
                needed.add(each)
                waiting += [part for pair in parents[each] for part in pair]
        if len(stay) + len(needed) > kept:
            break
        stay |= needed
    return stay
