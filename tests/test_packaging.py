"""The wheel carries all that an installation needs, and works outside the checkout."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import HeaderParser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from activelearning.campaign.shipped import find_config, shipped_configs
from activelearning.errors import ConfigError

ROOT = Path(__file__).parents[1]
PACKAGES = ("activelearning", "flows", "oracles", "surrogates", "samplers")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # Without build isolation nothing is downloaded: the build backend is one of the dev dependencies.
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    result = subprocess.run(
        [*build, "--wheel-dir", str(folder), str(ROOT)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    (path,) = folder.glob("activelearning-*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_holds_the_five_packages_and_nothing_else(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == set(PACKAGES)


def test_wheel_carries_every_tracked_file_of_the_packages(names: set[str]) -> None:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    assert tracked
    assert tracked <= names
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_wheel_maps_the_shipped_configs_below_the_core(names: set[str]) -> None:
    shipped = {path.name for path in (ROOT / "configs").glob("*.yaml")}
    assert shipped
    assert {f"activelearning/_configs/{name}" for name in shipped} <= names


def test_wheel_states_dependencies_licence_and_entry_points(wheel: Path, names: set[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with zipfile.ZipFile(wheel) as archive:
        (metadata_name,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(archive.read(metadata_name).decode())
        points = archive.read(metadata_name.replace("METADATA", "entry_points.txt")).decode()
    required = [r for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r]
    assert len(required) == len(project["dependencies"])
    assert any(r.replace(" ", "") == "fastapi<=0.150" for r in required)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    for group in project["entry-points"]:
        assert f"[{group}]" in points


# Runs in a folder of its own with the unpacked wheel first on the path: the checkout can't stand in for it.
OUTSIDE = """
import importlib, sys
from pathlib import Path
from importlib.metadata import distribution

unpacked = Path(sys.argv[1]).resolve()
for package in sys.argv[2:]:
    found = Path(importlib.import_module(package).__file__).resolve()
    assert unpacked in found.parents, f"{package} comes from {found}"

from activelearning.campaign.shipped import find_config, shipped_configs
from activelearning.contracts.registry import GROUPS, load_plugin

assert shipped_configs(), "no shipped configs"
for name, path in shipped_configs().items():
    assert unpacked in path.parents, path
    assert find_config(name) == path

points = distribution("activelearning").entry_points
assert Path(str(distribution("activelearning").locate_file(""))).resolve() == unpacked
for point in points:
    point.load()
print(len(shipped_configs()), "configs,", len(points), "entry points")
"""


def test_unpacked_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    unpacked, elsewhere = tmp_path / "unpacked", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    result = subprocess.run(
        [sys.executable, "-c", OUTSIDE, str(unpacked), *PACKAGES],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith("entry points")


def test_a_shipped_config_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    for name, path in shipped_configs().items():
        assert find_config(name) == path
        assert find_config(str(path)) == path.resolve()
        first = path.read_text().splitlines()[0]
        assert first.startswith("# "), f"{path.name} must say in its first line what it is"


def test_a_missing_config_names_the_nearest_shipped_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean the shipped config 'quickstart'"):
        find_config("quickstrat")
    with pytest.raises(ConfigError, match=r"no config file 'nowhere/quickstart\.yaml'.*'quickstart'"):
        find_config("nowhere/quickstart.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        find_config(str(ROOT))


def test_constraints_pin_exactly_and_name_no_place() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert "torch==2.13.0" in pins
    for pin in pins:
        name, _, version = pin.partition("==")
        assert name, pin
        assert version, pin
        assert not set("/@+") & set(pin), pin


def test_every_imported_package_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [
        entry for name, added in project["optional-dependencies"].items() if name != "dev" for entry in added
    ]
    declared = {
        _normalised(re.split(r"[\[<>=!~; ]", entry)[0]) for entry in [*project["dependencies"], *extras]
    }
    providers = packages_distributions()
    undeclared: dict[str, str] = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for name in _imports(path) - set(PACKAGES) - sys.stdlib_module_names:
                # One that is optional need not be here to say what it is called.
                given = providers.get(name, ["obelix-data" if name == "obelix" else name])
                given_by = {_normalised(provider) for provider in given}
                # pymatgen is a shell around a distribution of its own name.
                given_by |= {provider.removesuffix("-core") for provider in given_by}
                if not given_by & declared:
                    undeclared[name] = str(path.relative_to(ROOT))
    assert not undeclared


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _imports(path: Path) -> set[str]:
    """Top-level names of all absolute imports, those inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names
