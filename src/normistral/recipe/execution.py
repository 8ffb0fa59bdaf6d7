"""Settings of where corpus work runs: on this machine, on Slurm or on Ray. They change no byte of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from normistral.recipe.settings import Settings


class SlurmSettings(Settings):
    """How corpus tasks are submitted to Slurm, as array jobs of one phase each."""

    partition: str = ""
    """Partition that the tasks run in; must be given for `executor: slurm`."""
    time: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,2}(:\d{2}){0,2}$")] = "04:00:00"
    """Time limit of one job, as Slurm writes it (`HH:MM:SS`, `D-HH:MM:SS`)."""
    cpus_per_task: PositiveInt = 1
    """Cores of one task; a task uses one, so that more only brings more memory."""
    memory_per_cpu_gb: PositiveInt = 4
    """Memory of each core, in GB; the second voter of language identification alone needs one."""
    qos: str = ""
    """Quality of service; empty: the site's default."""
    account: str = ""
    """Account that is charged; empty: the user's default."""
    max_array_size: PositiveInt = 1000
    """Tasks of one array job, at most (the site's `MaxArraySize` less one); more become several jobs."""
    tasks_per_job: PositiveInt = 1
    """Tasks that one element of an array does one after the other: more where the queue is slow."""
    environment: str = ""
    """Shell command that each job runs first, such as `source /project/venv/bin/activate`; empty: the
    environment that the job was submitted from."""
    sbatch_arguments: dict[str, str] = {}  # noqa: RUF012  # frozen like all settings
    """Further `#SBATCH` options by their long names, such as `constraint: cpu`."""
    poll_seconds: PositiveFloat = 10.0
    """How often the queue is looked at while a phase runs."""


class CorpusExecutionSettings(Settings):
    """Where the tasks of the corpus run; the same tasks, and the same bytes, everywhere."""

    executor: Literal["local", "slurm", "ray"] = "local"
    """`local`: processes of this machine; `slurm`: array jobs; `ray`: a Ray cluster (extra `ray`)."""
    workers: PositiveInt | None = None
    """Tasks at work at the same time; unset: one for each core of this machine, on Slurm and Ray as many as
    there is room for. 1 works in this very process."""
    slurm: SlurmSettings = SlurmSettings()
    """Read for `executor: slurm` alone."""
    ray_address: str = "auto"
    """Address of the Ray cluster; `auto`: the one that this machine belongs to, else one of this machine
    alone."""
    ray_memory_gb: PositiveFloat = 2.0
    """Memory that Ray sets aside for one task, in GB."""
    dry_run: bool = False
    """Write the scripts of the first phase that has work left and stop, without submitting it."""
    keep_work: bool = True
    """Keep the cleaned texts in `corpus/work` when the corpus is done, so that a removal list or another
    held-out share does not clean everything anew; they take as much room as the corpus."""

    @model_validator(mode="after")
    def _slurm_has_a_partition(self) -> CorpusExecutionSettings:
        if self.executor == "slurm" and not self.slurm.partition:
            raise ValueError("executor is slurm, but slurm.partition is not given; name the partition")
        if self.dry_run and self.executor != "slurm":
            raise ValueError(f"dry_run writes Slurm's scripts, but executor is {self.executor}")
        return self
