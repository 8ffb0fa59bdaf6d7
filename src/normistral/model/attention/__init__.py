"""Attention over packed documents, causal or bidirectional per sequence, by interchangeable backends.

Every backend takes the same two facts: which document each position belongs to, and for each sequence whether
its documents are read causally or both ways. No position ever attends to another document.
"""

from normistral.model.attention.layout import AttentionBackend, AttentionLayout, PreparedAttention, attend

__all__ = ["AttentionBackend", "AttentionLayout", "PreparedAttention", "attend"]
