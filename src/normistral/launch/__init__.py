"""Where a stage runs: several processes on this machine."""

from normistral.launch.leave import end_process
from normistral.launch.local import start_processes

__all__ = ["end_process", "start_processes"]
