"""The ML proxy: properties of crystals learned from data (`train`, `evaluate`), and the oracle that answers by it."""

from oracles.ml_proxy.oracle import MLProxyOracle

__all__ = ["MLProxyOracle"]
