"""Checking plug-in sections against the constructors they are for, and saying what is wrong in one paragraph."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, PydanticUserError, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

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
    values = keywords(
        cls,
        params,
        key=key,
        folder=folder,
        own_keys=own_keys,
        n_given=len(given),
        subject=f"{key} ({name}): ",
    )
    try:
        return cls(*given, **values)
    except ActiveLearningError as error:
        raise type(error)(f"{key} ({name}): {error}") from error
    except Exception as error:
        raise PluginError(
            f"{key}: the plug-in {name!r} can't be made from its parameters: {type(error).__name__}: {error}."
        ) from error


def keywords(
    cls: type[Any],
    params: Mapping[str, Any],
    *,
    key: str,
    folder: Path | None,
    own_keys: Sequence[str] = (),
    n_given: int = 0,
    subject: str = "",
) -> dict[str, Any]:
    """The keys of a section as keywords of a constructor: checked by its annotations, of their types, paths resolved.

    Only what was written is there: defaults belong to the constructor alone.

    Args:
        cls: The plug-in's class.
        params: The section, less the keys that are not the plug-in's.
        key: Dotted key of the section, for messages.
        folder: Folder of the config, at which relative paths start.
        own_keys: Keys of the section that are not the plug-in's, for hints at a mistyped one.
        n_given: Number of parameters, the first, that the engine hands over and no section can name.
        subject: What a message about unknown and wrong values begins with.

    Raises:
        ConfigError: a parameter is missing, unknown or of the wrong type.
        PluginError: the constructor's parameters can't be told from its signature.
    """
    model = parameters_model(cls, n_given)
    try:
        checked = model.model_validate(dict(params))
    except ValidationError as error:
        raise ConfigError(subject + explain(error, model, prefix=key, own_keys=own_keys)) from None
    return {
        k: _resolved(getattr(checked, k), model.model_fields.get(k), folder, f"{key}.{k}") for k in params
    }


def plugin_identity(name: str, folder: Path) -> Mapping[str, Any]:
    """A plug-in's name; for a file of the user's own, its content, wherever it lies."""
    where, _, attribute = name.rpartition(":")
    if where.endswith(".py"):
        return {"class": attribute, "file": hashlib.sha256((folder / where).read_bytes()).hexdigest()}
    return {"name": name}


def _resolved(value: Any, field: FieldInfo | None, folder: Path | None, key: str) -> Any:
    """The value with every path in it starting at the config's folder; a text is one where `Path` is annotated."""
    if isinstance(value, (list, tuple)) and any(isinstance(item, Path) for item in value):
        return type(value)(_resolved(item, field, folder, key) for item in value)
    if isinstance(value, str) and field is not None and Path in get_args(field.annotation):
        value = Path(value)
    return resolved_path(value, folder, key) if isinstance(value, Path) else value


def resolved_path(path: Path, folder: Path | None, key: str) -> Path:
    """A path that a config names: from the config's folder on, `~` and `${NAME}` of the environment put in.

    Raises:
        ConfigError: the environment has no such variable.
    """
    return (folder or Path()) / Path(with_environment(str(path), key)).expanduser()


def with_environment(text: str, key: str) -> str:
    """A text with every `${NAME}` in it replaced by that variable of the environment.

    Raises:
        ConfigError: the environment has no such variable.
    """

    def value_of(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if not value:
            raise ConfigError(
                f"{key}: {text} names the environment variable {match[1]}, which is not set; set it, or write the path "
                f"of the file itself."
            )
        return value

    return re.sub(r"\$\{(\w+)\}", value_of, text)


def explain(
    error: ValidationError, model: type[BaseModel], *, prefix: str = "", own_keys: Sequence[str] = ()
) -> str:
    """One readable paragraph of all that pydantic found, with the nearest valid key for each unknown one."""
    sentences = []
    told: list[list[int | str]] = []
    for found in error.errors():
        location = _without_members(model, found["loc"])
        dotted = ".".join(map(str, [prefix, *location] if prefix else location))
        if found["type"] == "extra_forbidden":
            known = _keys_at(model, location[:-1])
            if len(location) == 1:
                known = sorted({*known, *own_keys})
            near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known) or 'none'}"
            sentences.append(f"unknown key {dotted!r}{hint}")
        elif found["type"] == "missing":
            sentences.append(f"the key {dotted!r} is missing")
        elif found["type"] == "value_error" and not location:
            sentences.append(found["msg"].removeprefix("Value error, "))
        elif location not in told:
            # What each member of a union says of one value is said together.
            told.append(location)
            alike = [e for e in error.errors() if _without_members(model, e["loc"]) == location]
            sentences.append(f"{dotted!r} is {found['input']!r}: {_what_would_be_right(alike)}")
    text = "; ".join(sentences)
    return text if text.endswith("?") else f"{text}."


def _what_would_be_right(errors: Sequence[ErrorDetails]) -> str:
    """What the errors of one value say, in one clause; a list is shown by an example."""
    texts: list[str] = []
    value = errors[0]["input"]
    types = {found["type"] for found in errors}
    for found in errors:
        text = found["msg"].removeprefix("Value error, ")
        if found["type"] == "tuple_type" and "list_type" in types:
            continue
        if found["type"] == "list_type" and not isinstance(value, Mapping):
            text = f"Input should be a list, as in [{value}]"
        elif found["type"] == "tuple_type":
            high = value if isinstance(value, (int, float)) and value > 1 else 10
            low = high // 2 if isinstance(high, int) else high / 2
            text = f"Input should be a list, as in [{low:g}, {high:g}]"
        elif found["type"] in ("dict_type", "model_type", "dataclass_type"):
            text = "Input should be a mapping of keys to values"
        texts.append(text[:1].lower() + text[1:])
    first, *others = dict.fromkeys(texts)
    return ", or ".join([first, *(text.removeprefix("input should be ") for text in others)])


def _without_members(annotation: Any, location: Sequence[int | str]) -> list[int | str]:
    """A location as the file has it, less the parts by which pydantic names the members of unions."""
    if not location:
        return []
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _without_members(args[0], location)
    part, rest = location[0], location[1:]
    if origin in (Union, UnionType):
        members = [member for member in args if member is not NoneType]
        if len(members) == 1:
            return _without_members(members[0], location)
        return _without_members(next((m for m in members if getattr(m, "__name__", None) == part), Any), rest)
    inner: Any = Any
    if _is_model(annotation):
        field = annotation.model_fields.get(part)
        inner = Any if field is None else field.annotation
    elif args:
        inner = args[part] if origin is tuple and isinstance(part, int) and part < len(args) else args[-1]
        inner = args[0] if inner is Ellipsis else inner
    return [part, *_without_members(inner, rest)]


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
