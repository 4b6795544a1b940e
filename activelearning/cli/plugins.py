"""The plug-ins of this installation."""

from __future__ import annotations

import inspect

from activelearning.contracts.registry import GROUPS, load_plugin, plugin_names
from activelearning.errors import PluginError


def list_plugins() -> list[dict[str, str]]:
    """Every plug-in named by an entry point: `group, name, class, doc`.

    `doc` is the first line of the class's docstring; for a plug-in that can't be imported it says why.
    """
    found = []
    for group in GROUPS:
        for name, point in plugin_names(group).items():
            try:
                doc = _first_line(load_plugin(group, name))
            except PluginError as error:
                doc = f"broken: {error}"
            found.append({"group": group, "name": name, "class": point.value, "doc": doc})
    return found


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0].strip()
