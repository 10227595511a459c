"""What the service counts, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from medimg_edge.kiosk.drifting import Found

MEDIA_TYPE = CONTENT_TYPE_LATEST

disable_created_metrics()  # the start of each series, which would double what is read

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


class Metrics:
    """The counters of one service, from its start on.

    waiting, is_ready, entries, free_bytes, drift: asked when somebody reads.
    """

    def __init__(
        self,
        *,
        waiting: Callable[[], int],
        is_ready: Callable[[], bool],
        entries: Callable[[], int],
        free_bytes: Callable[[], int],
        drift: Callable[[], Found] = Found,
    ) -> None:
        self._registry = registry = CollectorRegistry()
        self._answers = Counter(
            "medimg_edge_predictions",
            "Images by their record's status and code.",
            ("status", "code"),
            registry=registry,
        )
        self._findings = Counter(
            "medimg_edge_decisions",
            "Decisions of answered images.",
            ("label", "decision"),
            registry=registry,
        )
        self._requests = Counter(
            "medimg_edge_http_requests",
            "Requests by route, method, status and error code.",
            ("route", "method", "status", "code"),
            registry=registry,
        )
        self._waited = Histogram(
            "medimg_edge_wait_seconds",
            "What images waited before they were answered.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._answered = Histogram(
            "medimg_edge_answer_seconds",
            "What answering an image took.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._served = Histogram(
            "medimg_edge_request_seconds",
            "From a request to its response.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._model = Info("medimg_edge_model", "What answers.", registry=registry)
        for name, words, ask in (
            ("waiting", "Images that wait for their answers, or are being answered.", waiting),
            ("ready", "1 if the golden set has passed since the start.", is_ready),
            ("record_entries", "Entries of the record.", entries),
            ("free_bytes", "Free bytes on the disk of the record.", free_bytes),
        ):
            gauge = Gauge(f"medimg_edge_{name}", words, registry=registry)
            gauge.set_function(lambda ask=ask: float(ask()))
        registry.register(_Drift(drift))

    def model(self, **facts: str) -> None:
        """Say what answers."""
        self._model.info(facts)

    def image(self, status: str, code: str | None, waited_ms: float, answer_ms: float) -> None:
        """Count an image that has a record. Times are in milliseconds."""
        self._answers.labels(status, code or "").inc()
        self._waited.observe(waited_ms / 1000)
        self._answered.observe(answer_ms / 1000)

    def decision(self, label: str, decision: str) -> None:
        """Count what was decided about a label."""
        self._findings.labels(label, decision).inc()

    def request(
        self, route: str, method: str, status: int, code: str | None, seconds: float
    ) -> None:
        """Count a request. ``route`` is the pattern of its path."""
        self._requests.labels(route, method, str(status), code or "").inc()
        self._served.labels(route).observe(seconds)

    def text(self) -> bytes:
        """What a Prometheus reads."""
        return generate_latest(self._registry)


class _Drift(Collector):
    """What ``drifting`` found; a number of which there are too few images is not there."""

    def __init__(self, ask: Callable[[], Found]) -> None:
        self._ask = ask

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called when somebody reads."""
        found = self._ask()
        index = GaugeMetricFamily(
            "medimg_edge_drift",
            "Population stability index of the newest images against the model's validation, less "
            "what chance gives.",
            labels=("number",),
        )
        for name, value in sorted(found.psi.items()):
            index.add_metric((name,), value)
        yield index
        for name, words, value in (
            ("images", "The newest images, that are compared.", found.images),
            ("found", "1 if they have drifted from the model's validation.", bool(found.drift)),
        ):
            yield GaugeMetricFamily(f"medimg_edge_drift_{name}", words, value=float(value))
