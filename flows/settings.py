"""Prefect's settings for this project, made before Prefect is first imported."""

from __future__ import annotations

import os

# What a user has set stays: these are defaults, and Prefect's own profile and environment go before them.
_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "DO_NOT_TRACK": "1",
    # Log lines of flows and tasks go to Prefect's API, where its UI shows them; the terminal is our display's.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
}


def configure() -> None:
    """Set the defaults in this process's environment, from which its children inherit them."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
