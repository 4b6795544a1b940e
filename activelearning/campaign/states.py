"""Warm states as bytes for the store: tensors and plain values only, read back without running code."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch


def pack(state: Mapping[str, Any]) -> bytes:
    """Serialise a state dict."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, Any]:
    """Read a state dict back; refuses anything but tensors and plain values."""
    value: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    return value
