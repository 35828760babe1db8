"""What the gateway counts, by model and version, in Prometheus's form."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from deployments.services.outbox import Outbox
from tasks.serve.exchange import Failure
from tasks.serve.routing import Side

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.9, 1.5, 3, 6, 15, 30, 60)
_VERSION = ("model", "version", "side")


class Metrics:
    """Counters of one gateway process."""

    def __init__(self, outbox: Outbox) -> None:
        self.registry = CollectorRegistry()
        self._answers = Counter(
            "retune_gateway_answers",
            "Answers given",
            (*_VERSION, "status"),
            registry=self.registry,
        )
        self._refusals = Counter(
            "retune_gateway_refusals",
            "Requests that reached no replica",
            ("status", "code"),
            registry=self.registry,
        )
        self._failures = Counter(
            "retune_gateway_failures",
            "Attempts at a replica that brought no answer",
            (*_VERSION, "failure"),
            registry=self.registry,
        )
        self._tokens = Counter(
            "retune_gateway_tokens", "Tokens", (*_VERSION, "kind"), registry=self.registry
        )
        self._seconds = Histogram(
            "retune_gateway_seconds",
            "Seconds until the end of an answer",
            _VERSION,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._first = Histogram(
            "retune_gateway_first_byte_seconds",
            "Seconds until the first byte of an answer",
            _VERSION,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "retune_gateway_in_flight", "Requests being answered", registry=self.registry
        )
        self.registry.register(_Lost(outbox))

    def answered(
        self,
        model: str,
        version: str,
        side: Side,
        status: int,
        seconds: float,
        first_byte_seconds: float | None,
        tokens: tuple[int | None, int | None],
    ) -> None:
        self._answers.labels(model, version, side, status).inc()
        self._seconds.labels(model, version, side).observe(seconds)
        if first_byte_seconds is not None:
            self._first.labels(model, version, side).observe(first_byte_seconds)
        for kind, count in zip(("prompt", "completion"), tokens, strict=True):
            if count is not None:
                self._tokens.labels(model, version, side, kind).inc(count)

    def failed(self, model: str, version: str, side: Side, failure: Failure) -> None:
        self._failures.labels(model, version, side, failure).inc()

    def refused(self, status: int, code: str) -> None:
        self._refusals.labels(status, code).inc()


class _Lost(Collector):
    """The outbox's own count of what was not kept."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def collect(self) -> Iterable[CounterMetricFamily]:
        name = "retune_gateway_not_kept"
        family = CounterMetricFamily(name, "Records of requests not kept", labels=["reason"])
        for reason, count in self._outbox.lost.items():
            family.add_metric([reason], count)
        yield family
