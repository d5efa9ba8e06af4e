"""Numbers for Prometheus: the gateway's own and those of the node."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from relight.gateway.node import Node

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class OfNode(Collector):
    """The node's numbers, asked for when somebody reads them."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        for metric in self._node.metrics():
            labels = sorted(metric.values[0][0]) if metric.values else []
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(f"relight_{metric.name}", metric.help, labels=labels)
            for named, value in metric.values:
                family.add_metric([named[label] for label in labels], value)
            yield family


class Metrics:
    """Routes are named by their template, so that no id, name or prompt becomes a label."""

    def __init__(self, node: Node) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "relight_http_requests", "Requests answered", ["route", "method", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "relight_http_request_seconds",
            "From a request's head to the end of its answer",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.running = Gauge("relight_http_requests_running", "Requests in the works", registry=self._registry)
        self._registry.register(OfNode(node))

    def text(self) -> bytes:
        return generate_latest(self._registry)
