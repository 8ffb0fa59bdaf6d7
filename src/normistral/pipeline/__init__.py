"""The pipeline: which stage follows which, what is skipped, resumed or redone."""

from normistral.pipeline.branch import branch_run, decay_recipe
from normistral.pipeline.run import STAGES, run
from normistral.pipeline.stage import Screen
from normistral.pipeline.train import train_run

__all__ = ["STAGES", "Screen", "branch_run", "decay_recipe", "run", "train_run"]
