"""Features of crystals."""

from __future__ import annotations

from activelearning.crystals.descriptors import DESCRIPTOR_NAMES, descriptor_table

__all__ = ["DESCRIPTOR_NAMES", "descriptor_table"]
