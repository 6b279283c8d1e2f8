"""Sends one round of metrics of every kind by the OpenTelemetry SDK, and says what the exporter made of the answer.

usage: client.py URL cumulative|delta
"""

import sys

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

url, temporality = sys.argv[1:]
preferred = AggregationTemporality[temporality.upper()]
exporter = OTLPMetricExporter(
    endpoint=url,
    compression=Compression.Gzip,
    preferred_temporality={Counter: preferred, Histogram: preferred},
)

outcomes = []
send = exporter.export


def remember(*arguments, **named):
    outcomes.append(send(*arguments, **named))
    return outcomes[-1]


exporter.export = remember
reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
provider = MeterProvider(
    resource=Resource.create(
        {
            "service.name": "checkout",
            "service.namespace": "shop",
            "service.instance.id": "i-1",
            "deployment.environment.name": "test",
        }
    ),
    metric_readers=[reader],
    views=[View(instrument_name="payload.size", aggregation=ExponentialBucketHistogramAggregation())],
)
meter = provider.get_meter("isobar.test", "1.0")
orders = meter.create_counter("orders", unit="{order}", description="Orders taken.")
orders.add(5, {"http.response.status_code": 200})
orders.add(2, {"http.response.status_code": 500})
latency = meter.create_histogram("request.duration", unit="s")
for value in (0.003, 0.2, 0.2, 7.0):
    latency.record(value)
size = meter.create_histogram("payload.size", unit="By")
for value in (100, 200, 400):
    size.record(value)
meter.create_observable_gauge("room.temperature", [lambda _: [Observation(21.5)]], unit="Cel")
provider.force_flush()
print("exports", *(outcome.name for outcome in outcomes[:1]))
provider.shutdown()
