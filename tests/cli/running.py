"""Run a command in the test's own process."""

from __future__ import annotations

import sys

import pytest

from normistral.cli.main import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `normistral ARGUMENTS`; its exit code."""
    monkeypatch.setattr(sys, "argv", ["normistral", *arguments])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
