"""Checking plug-in sections against the constructors they are for, and saying what is wrong in one paragraph."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, PydanticUserError, ValidationError, create_model
from pydantic.fields import FieldInfo

from activelearning.contracts.registry import load_plugin
from activelearning.errors import ActiveLearningError, ConfigError, PluginError


def parameters_model(cls: type[Any], n_given: int = 0) -> type[BaseModel]:
    """A pydantic model of a constructor's keyword parameters, by their annotations and defaults.

    A constructor with `**params` takes any further key.

    Args:
        cls: The plug-in's class.
        n_given: Number of parameters, the first, that the engine hands over and no section can name.

    Raises:
        PluginError: the constructor's parameters can't be told from its signature.
    """
    signature = inspect.signature(cls.__init__)
    try:
        hints = get_type_hints(cls.__init__)
    except NameError as error:
        raise PluginError(
            f"{cls.__name__}.__init__ has an annotation that can't be read: {error}."
        ) from error
    fields: dict[str, Any] = {}
    takes_any = False
    for name, parameter in list(signature.parameters.items())[1 + n_given :]:  # the first is self
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            takes_any = cls.__init__ is not object.__init__
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[name] = (hints.get(name, Any), default)
    try:
        return create_model(
            cls.__name__,
            __config__=ConfigDict(
                extra="allow" if takes_any else "forbid",
                arbitrary_types_allowed=True,
                protected_namespaces=(),
            ),
            **fields,
        )
    except (NameError, TypeError, PydanticUserError) as error:
        raise PluginError(
            f"The parameters of {cls.__name__}.__init__ can't be checked: {' '.join(str(error).split())}."
        ) from error


def construct(
    group: str,
    name: str,
    params: Mapping[str, Any],
    *given: Any,
    key: str,
    folder: Path | None,
    own_keys: Sequence[str] = (),
) -> Any:
    """Import a plug-in and make it from its section.

    Args:
        group: Plug-in group, such as `oracles`.
        name: The section's `type` (or a fidelity's `oracle`).
        params: The section's other keys.
        given: What the engine hands over first.
        key: Dotted key of the section, for messages.
        own_keys: Keys of the section that are not the plug-in's, for hints at a mistyped one.
        folder: Folder of the config; relative paths (parameters annotated as `Path`) and plug-in files start there.

    Raises:
        PluginError: the plug-in can't be found, imported or made.
        ConfigError: a parameter is unknown or of the wrong type.
    """
    cls = load_plugin(group, name, folder=folder)
    model = parameters_model(cls, len(given))
    try:
        checked = model.model_validate(dict(params))
    except ValidationError as error:
        raise ConfigError(f"{key} ({name}): {explain(error, model, prefix=key, own_keys=own_keys)}") from None
    # Only what was written is handed over: defaults belong to the constructor alone.
    values = {k: _resolved(getattr(checked, k), model.model_fields.get(k), folder) for k in params}
    try:
        return cls(*given, **values)
    except ActiveLearningError as error:
        raise type(error)(f"{key} ({name}): {error}") from error
    except Exception as error:
        raise PluginError(
            f"{key}: the plug-in {name!r} can't be made from its parameters: {type(error).__name__}: {error}."
        ) from error


def _resolved(value: Any, field: FieldInfo | None, folder: Path | None) -> Any:
    """The value with every path in it starting at the config's folder; a text is one where `Path` is annotated."""
    if isinstance(value, (list, tuple)) and any(isinstance(item, Path) for item in value):
        return type(value)(_resolved(item, field, folder) for item in value)
    if isinstance(value, str) and field is not None and Path in get_args(field.annotation):
        value = Path(value)
    return (folder or Path()) / value.expanduser() if isinstance(value, Path) else value


def explain(
    error: ValidationError, model: type[BaseModel], *, prefix: str = "", own_keys: Sequence[str] = ()
) -> str:
    """One readable paragraph of all that pydantic found, with the nearest valid key for each unknown one."""
    sentences = []
    for found in error.errors():
        location = [str(part) for part in found["loc"]]
        dotted = ".".join([prefix, *location] if prefix else location)
        if found["type"] == "extra_forbidden":
            known = _keys_at(model, found["loc"][:-1])
            if len(location) == 1:
                known = sorted({*known, *own_keys})
            near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known) or 'none'}"
            sentences.append(f"unknown key {dotted!r}{hint}")
        elif found["type"] == "missing":
            sentences.append(f"the key {dotted!r} is missing")
        elif found["type"] == "value_error" and not location:
            sentences.append(found["msg"].removeprefix("Value error, "))
        else:
            message = found["msg"].removeprefix("Value error, ")
            sentences.append(f"{dotted!r} is {found['input']!r}: {message[:1].lower()}{message[1:]}")
    text = "; ".join(sentences)
    return text if text.endswith("?") else f"{text}."


def _keys_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Valid keys of the model that a location leads to."""
    here: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        field = here.model_fields.get(part) if _is_model(here) else None
        if field is None:
            return []
        candidates = [field.annotation, *get_args(field.annotation)]
        candidates += [inner for c in candidates for inner in get_args(c)]
        here = next((c for c in candidates if _is_model(c)), None)
        if here is None:
            return []
    return sorted(here.model_fields) if _is_model(here) else []


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)
