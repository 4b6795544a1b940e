"""Restrictions at sampling time: a part of the space is sampled by a sampler that was trained on all of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from activelearning.campaign.sections import explain
from activelearning.contracts.sampler import Sampler
from activelearning.contracts.space import Space
from activelearning.errors import ActiveLearningError, ConfigError

KEY = "restrict"


def restricted_space(space: Space, restrictions: Mapping[str, Any]) -> Space:
    """The part of a space that keeps restrictions as well.

    Args:
        space: A space with a method `restricted(**restrictions)`, as the space of crystals has.
        restrictions: The keys of that method.

    Raises:
        ConfigError: the space takes no restrictions, a key is unknown or its value wrong, or nothing is left.
    """
    method: Callable[..., Space] | None = getattr(space, "restricted", None)
    if method is None:
        raise ConfigError(
            f"{KEY}: a space of type {space.kind!r} can't be restricted; a space of crystals can."
        )
    hints = get_type_hints(method)
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if p.default is inspect.Parameter.empty else p.default)
        for name, p in inspect.signature(method).parameters.items()
    }
    model = create_model(KEY, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields)
    try:
        checked = model.model_validate(dict(restrictions))
    except ValidationError as error:
        raise ConfigError(f"{KEY}: {explain(error, model, prefix=KEY)}") from None
    try:
        return method(**{name: getattr(checked, name) for name in restrictions})
    except ActiveLearningError as error:
        raise type(error)(f"{KEY}: {error}") from error


def restricted_sampler(sampler: Sampler, space: Space) -> Sampler:
    """A trained sampler that samples a restricted space in place of its own.

    Raises:
        ConfigError: the sampler can't be restricted.
    """
    method: Callable[[Space], Sampler] | None = getattr(sampler, "restricted", None)
    if method is None:
        raise ConfigError(
            f"{KEY}: the sampler {type(sampler).__name__} can't sample a part of the space it was trained on; choose "
            f"the sampler 'gflownet', or restrict `space` itself and train on that."
        )
    return method(space)
