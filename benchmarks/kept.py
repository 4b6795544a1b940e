"""What benchmarks keep from one start to the next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def keep_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all: a benchmark that is killed finds what it had kept."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    partial.replace(path)
