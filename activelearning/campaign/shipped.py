"""The campaigns that ship with the project, found by name.

In a checkout they lie in `configs/` beside this package; a wheel carries the same files as
`activelearning/_configs`. A shipped config's name is its file's stem.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from activelearning.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]
_SUFFIXES = (".yaml", ".yml")


def shipped_folder() -> Path:
    """Folder of the shipped configs: the wheel's own, or the checkout's.

    Raises:
        ConfigError: the installation carries none.
    """
    in_wheel, in_checkout = _PACKAGE / "_configs", _PACKAGE.parent / "configs"
    # A wheel's own folder comes first: beside an installed package lies site-packages, where `configs`
    # would be a stranger's.
    for folder in (in_wheel, in_checkout):
        if folder.is_dir():
            return folder
    raise ConfigError(
        f"This installation of activelearning carries no shipped configs: neither {in_wheel} nor "
        f"{in_checkout} is a folder. Reinstall the package, or give the path of a config file."
    )


def shipped_configs() -> dict[str, Path]:
    """Names of the shipped campaigns and their files, sorted by name."""
    return {path.stem: path for path in sorted(shipped_folder().glob("*.yaml"))}


def find_config(name_or_path: str) -> Path:
    """Find a config by its path or by a shipped name; a file of that path goes before a shipped name.

    Raises:
        ConfigError: there is neither.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path.resolve()
    if path.is_dir():
        raise ConfigError(f"{name_or_path} is a folder; name the campaign's YAML file.")
    shipped = shipped_configs()
    if name_or_path in shipped:
        return shipped[name_or_path]
    known = ", ".join(shipped) or "none"
    is_path = path.suffix in _SUFFIXES or len(path.parts) > 1
    wanted = (
        f"There is no config file {name_or_path!r}" if is_path else f"There is no config {name_or_path!r}"
    )
    near = difflib.get_close_matches(path.stem, shipped, n=1)
    hint = f" Did you mean the shipped config {near[0]!r}?" if near else ""
    raise ConfigError(f"{wanted}.{hint} Give the path of a YAML file or a shipped name (shipped: {known}).")
