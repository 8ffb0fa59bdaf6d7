"""From documents to training sequences: shards, the mixture plan and its changes, the order, packing."""

from normistral.dataset.audit import SourceAudit, audit_order, sorted_starts
from normistral.dataset.encoder import EncoderChoice, batched_texts
from normistral.dataset.imported import import_shards, imported_files
from normistral.dataset.manifest import ShardManifest, open_sources
from normistral.dataset.mixture import (
    MixturePlan,
    SourcePlan,
    plan_by_policy,
    plan_mixture,
    plan_warnings,
)
from normistral.dataset.packing import PackedDataset, PackedSequence
from normistral.dataset.passages import Passage, sample_passages
from normistral.dataset.policy import SourceTokens
from normistral.dataset.replan import PlanChange, remaining_counts, replan
from normistral.dataset.shards import ShardFile, TokenShard, open_shard, write_shard
from normistral.dataset.source import TokenSource
from normistral.dataset.state import OrderState
from normistral.dataset.tokenise import tokenise_documents

__all__ = [
    "EncoderChoice",
    "MixturePlan",
    "OrderState",
    "PackedDataset",
    "PackedSequence",
    "Passage",
    "PlanChange",
    "ShardFile",
    "ShardManifest",
    "SourceAudit",
    "SourcePlan",
    "SourceTokens",
    "TokenShard",
    "TokenSource",
    "audit_order",
    "batched_texts",
    "import_shards",
    "imported_files",
    "open_shard",
    "open_sources",
    "plan_by_policy",
    "plan_mixture",
    "plan_warnings",
    "remaining_counts",
    "replan",
    "sample_passages",
    "sorted_starts",
    "tokenise_documents",
    "write_shard",
]
