"""Oracles: sources of a property. Subclass `Oracle` (or `QueuedOracle`) to bring your own."""

from oracles.base import Oracle, QueuedOracle

__all__ = ["Oracle", "QueuedOracle"]
