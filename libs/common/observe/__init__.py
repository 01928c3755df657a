"""What a process tells of itself: `log` (structlog), `trace` (W3C trace context, OpenTelemetry), `metrics` (Prometheus)."""
