"""Where a stage runs: several processes on this machine."""

from normistral.launch.local import start_processes

__all__ = ["start_processes"]
