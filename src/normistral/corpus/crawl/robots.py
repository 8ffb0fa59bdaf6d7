"""robots.txt as RFC 9309 has it: what a server's answer means, and for how long.

| answer | means |
|---|---|
| 2xx | its rules; the first 500 KiB are read |
| 3xx | up to five redirects are followed, then as 4xx |
| 4xx | no rules: all may be fetched |
| 5xx, no answer | nothing may be fetched, for now |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from protego import Protego

MAX_BYTES = 500 * 1024
MAX_REDIRECTS = 5

Verdict = Literal["allowed", "disallowed", "unreachable"]


@dataclass(frozen=True, slots=True)
class Robots:
    """The rules of one host, for us.

    Args:
        text: of robots.txt; empty where there is none; None where the server could not be asked.
        agent: name by which the rules may address us.
    """

    text: str | None
    agent: str
    _rules: Protego = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rules", Protego.parse(self.text or ""))

    def verdict(self, url: str) -> Verdict:
        """Whether a URL may be fetched."""
        if self.text is None:
            return "unreachable"
        return "allowed" if self._rules.can_fetch(url, self.agent) else "disallowed"

    @property
    def delay(self) -> float:
        """Seconds between two requests that the host asks for; 0 if it doesn't."""
        rate = self._rules.request_rate(self.agent)
        by_rate = rate.seconds / rate.requests if rate and rate.requests else 0.0
        return max(float(self._rules.crawl_delay(self.agent) or 0.0), by_rate)


def rules_of_answer(status: int, body: bytes) -> str | None:
    """The text of robots.txt that an answer means: empty for none, None if the server can't be asked now.

    Args:
        status: of the answer, redirects followed.
        body: of the answer, decompressed.

    Example:
        >>> rules_of_answer(404, b"<html>"), rules_of_answer(503, b"")
        ('', None)
    """
    if status >= 500 or status == 429:
        return None
    if not 200 <= status < 300:
        return ""
    return body[:MAX_BYTES].decode("utf-8-sig", errors="replace")
