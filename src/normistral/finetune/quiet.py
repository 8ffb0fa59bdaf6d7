"""Keep the library's own bars, load reports and warnings out of a command that tells its progress itself."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as library_logging

NOISY = ("bitsandbytes.backends.cpu.ops", "bitsandbytes.autograd._functions", "transformers")


@contextmanager
def quiet_library() -> Iterator[None]:
    """Errors of `transformers` alone are shown inside."""
    had_bars = library_logging.is_progress_bar_enabled()
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    library_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of names that PEFT still uses
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if had_bars:
            library_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
