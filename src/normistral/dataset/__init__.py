"""From documents to training sequences: shards, the mixture plan and its changes, the order, packing."""

from normistral.dataset.mixture import MixturePlan, SourcePlan, plan_mixture
from normistral.dataset.packing import PackedDataset, PackedSequence
from normistral.dataset.replan import PlanChange, remaining_counts, replan
from normistral.dataset.shards import TokenShard, open_shard, write_shard
from normistral.dataset.tokenise import batched_texts, tokenise_source

__all__ = [
    "MixturePlan",
    "PackedDataset",
    "PackedSequence",
    "PlanChange",
    "SourcePlan",
    "TokenShard",
    "batched_texts",
    "open_shard",
    "plan_mixture",
    "remaining_counts",
    "replan",
    "tokenise_source",
    "write_shard",
]
