"""Whether the daemon traces requests: the environment names a collector, as for OpenTelemetry.

Owns that decision, and the log lines if tracing is impossible. `observing.tracing` owns the spans.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping

import structlog

log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
NEEDED = "opentelemetry.exporter.otlp.proto.http"
SPOKEN = "http/protobuf"
SECRET = re.compile(r"(?<=//)[^/?#]*@|[?#].*", re.DOTALL)  # what may be one in an address


def collector_in(environ: Mapping[str, str]) -> str:
    """Return the collector's address for the log; nothing if no spans are sent.

    The address comes without user, password and query. If the environment names a collector that
    cannot be used, the log says why. See the OpenTelemetry specification, "SDK configuration" and
    "OTLP exporter configuration".

    Args:
        environ: the daemon's environment.
    """
    endpoint = next((environ[name] for name in ENDPOINTS if environ.get(name)), "")
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if not endpoint or off or (environ.get("OTEL_TRACES_EXPORTER") or "otlp") != "otlp":
        return ""
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), SPOKEN)
    if protocol != SPOKEN:
        log.warning(
            f"Requests are not traced: llamadoze sends spans by {SPOKEN}, and the environment "
            f"requires {protocol}. Set OTEL_EXPORTER_OTLP_PROTOCOL={SPOKEN}, and an endpoint for it"
        )
        return ""
    if not _is_installed():
        log.warning(
            "Requests are not traced: the environment names a collector, but the extra 'otel' is "
            "not installed. In a clone: uv tool install --reinstall '.[gpu,otel]'. Or unset "
            "OTEL_EXPORTER_OTLP_ENDPOINT"
        )
        return ""
    return SECRET.sub("", endpoint)


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec(NEEDED) is not None
    except ModuleNotFoundError:  # not even the first of its packages is there
        return False
