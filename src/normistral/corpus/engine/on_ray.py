"""The ranks of a phase as tasks of a Ray cluster (extra `ray`), or of Ray on this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from datatrove.executor.ray import RayPipelineExecutor
from datatrove.utils.stats import PipelineStats

from normistral.corpus.engine.ranks import RankRunner
from normistral.errors import UserError
from normistral.recipe import CorpusExecutionSettings

SECONDS_BETWEEN_LOOKS = 1.0


class RayExecutor(RankRunner, RayPipelineExecutor):  # type: ignore[misc]  # datatrove has no types
    """datatrove's Ray executor with our way to run a rank."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        stats = super()._run_for_rank(rank, local_rank, node_rank)
        with self.logging_dir.open(f"stats/{rank:05d}.json", "w") as file:  # which it adds up at the end
            stats.save_to_disk(file)
        return stats


def connect(settings: CorpusExecutionSettings) -> None:
    """Join the Ray cluster, or start Ray on this machine where there is none.

    Raises:
        UserError: if Ray is not installed, or its cluster can't be reached.
    """
    try:
        import ray
    except ImportError:
        raise UserError(
            "runtime.corpus.executor is ray, which is not installed; install it with "
            "`pip install 'normistral[ray]'`, or set runtime.corpus.executor=local"
        ) from None
    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        ray.init(address=settings.ray_address, **quiet)
    except ConnectionError as error:
        if settings.ray_address != "auto":
            raise UserError(
                f"runtime.corpus.ray_address: no Ray cluster answers at {settings.ray_address}"
            ) from error
        ray.init(address="local", include_dashboard=False, **quiet)


def run_on_ray(
    settings: CorpusExecutionSettings,
    place: Path,
    name: str,
    steps: list[Any],
    tasks: int,
    on_done: Callable[[float], None],
) -> None:
    """Run a phase on Ray; what is not done afterwards has failed."""
    import ray

    workers = settings.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    executor = RayExecutor(
        pipeline=steps,
        tasks=tasks,
        workers=workers,
        mem_per_cpu_gb=settings.ray_memory_gb,
        logging_dir=str(place),
    )
    left = len(executor.get_incomplete_ranks())
    with ThreadPoolExecutor(1) as thread:
        work = thread.submit(executor.run)
        while not work.done():
            wait([work], SECONDS_BETWEEN_LOOKS)
            now = len(executor.get_incomplete_ranks())
            if now < left:
                on_done(left - now)
            left = now
        work.result()
