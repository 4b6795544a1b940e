"""Finding plug-ins: by short name (entry points), `package.module:Class`, or `path/to/file.py:Class`."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from activelearning.errors import PluginError

GROUPS = ("oracles", "samplers", "surrogates", "acquisitions", "spaces", "rewards")


def plugin_names(group: str) -> dict[str, EntryPoint]:
    """Short names of a group and their entry points, sorted."""
    found = {point.name: point for point in entry_points(group=f"activelearning.{group}")}
    return dict(sorted(found.items()))


def load_plugin(group: str, name: str, *, folder: Path | None = None) -> type[Any]:
    """Import a plug-in's class.

    Args:
        group: One of `GROUPS`.
        name: Short name, `package.module:Class`, or `path/to/file.py:Class`.
        folder: Folder to which a file's path is relative (the config's own).

    Raises:
        PluginError: nothing of that name, the import fails, or the name is no class.
    """
    singular = group.removesuffix("s")
    if ":" not in name:
        points = plugin_names(group)
        if name not in points:
            near = difflib.get_close_matches(name, points, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise PluginError(
                f"There is no {singular} named {name!r}.{hint} Known: {', '.join(points) or 'none'}. "
                f"A class of your own is named by 'package.module:Class' or 'path/to/file.py:Class'."
            )
        try:
            loaded = points[name].load()
        except Exception as error:
            raise PluginError(
                f"The {singular} {name!r} ({points[name].value}) can't be imported: "
                f"{type(error).__name__}: {error}."
            ) from error
    else:
        where, _, attribute = name.rpartition(":")
        module = _load_file(where, folder, name) if where.endswith(".py") else _load_module(where, name)
        if not hasattr(module, attribute):
            raise PluginError(f"{where} has no class {attribute!r} (named as the {singular} {name!r}).")
        loaded = getattr(module, attribute)
    if not isinstance(loaded, type):
        raise PluginError(f"{name!r} names a {type(loaded).__name__}; the {singular} must be a class.")
    return loaded


def _load_module(dotted: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(dotted)
    except Exception as error:
        raise PluginError(
            f"The plug-in {name!r} can't be imported: {type(error).__name__}: {error}. "
            f"The module {dotted!r} must be installed or on PYTHONPATH."
        ) from error


def _load_file(where: str, folder: Path | None, name: str) -> ModuleType:
    path = Path(where) if folder is None else folder / where
    path = path.resolve()
    if not path.is_file():
        raise PluginError(f"The plug-in {name!r} names a file that does not exist: {path}.")
    # The name depends on the path alone, so that a worker process finds the same module under the same name.
    module_name = f"activelearning_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"The plug-in {name!r} can't be read as Python: {path}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise PluginError(
            f"The plug-in {name!r} fails on import: {type(error).__name__}: {error} (in {path})."
        ) from error
    return module
