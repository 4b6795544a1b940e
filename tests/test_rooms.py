"""The import contracts cover every part of the core, so that a new part can't escape them."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_core_contract_names_every_part_of_the_core() -> None:
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = [c for c in linter["contracts"] if c["name"].startswith("The core knows no other room")]
    parts = {
        path.stem
        for path in (ROOT / "activelearning").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    expected = {f"activelearning.{part}" for part in parts - {"__init__", "cli"}}
    assert set(contract["source_modules"]) == expected


def test_root_module_of_the_core_imports_nothing() -> None:
    # A contract on `activelearning` itself would take in its cli, so the root module is held to no imports.
    lines = (ROOT / "activelearning" / "__init__.py").read_text().splitlines()
    assert not [line for line in lines if line.startswith(("import ", "from "))]
