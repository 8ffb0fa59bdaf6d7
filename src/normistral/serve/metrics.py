"""Figures of the server for Prometheus, at `/metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
NO_ROUTE = "none"


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "normistral_requests", "Requests answered", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "normistral_request_seconds",
            "From the request's first byte to the answer's last",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.tokens = Counter(
            "normistral_tokens",
            "Tokens of completions, read (prompt) and written (completion)",
            ["kind"],
            registry=self.registry,
        )
        self.batches = Histogram(
            "normistral_batch_size",
            "Texts read together",
            ["kind"],
            buckets=BATCH_SIZES,
            registry=self.registry,
        )
        self.disconnects = Counter(
            "normistral_disconnects", "Requests whose client went away", registry=self.registry
        )
        self.writing = Gauge("normistral_writing", "Completions being computed", registry=self.registry)
        self.waiting = Gauge("normistral_waiting", "Completions waiting", registry=self.registry)
        self.engine_ready = Gauge(
            "normistral_engine_ready", "Whether the engine that writes is ready", registry=self.registry
        )
        self.engine_restarts = Gauge(
            "normistral_engine_restarts", "Times the engine was started again", registry=self.registry
        )

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)
