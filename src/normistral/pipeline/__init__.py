"""The pipeline: which stage follows which, what is skipped, resumed or redone."""

from normistral.pipeline.run import STAGES, run
from normistral.pipeline.stage import Screen

__all__ = ["STAGES", "Screen", "run"]
