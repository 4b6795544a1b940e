"""Errors a user can act on.

Each message is one readable paragraph that names the key, file or plug-in at fault and what would be right.
The command line prints it without a traceback and exits with the error's `exit_code`.
"""


class ActiveLearningError(Exception):
    """Base of every error raised on purpose by this project."""

    exit_code = 1


class ConfigError(ActiveLearningError):
    """A campaign's configuration is wrong, or differs where it may not."""

    exit_code = 2


class PluginError(ActiveLearningError):
    """A plug-in can't be found, imported or constructed."""

    exit_code = 2


class InputError(ActiveLearningError):
    """An argument or a file given by the user is wrong."""

    exit_code = 2


class StoreError(ActiveLearningError):
    """The campaign store can't be reached, or is of another schema."""

    exit_code = 2


class LeaseHeldError(ActiveLearningError):
    """Another live process is running the steps of this campaign."""

    exit_code = 2


class EvaluatingError(LeaseHeldError):
    """Another live process has evaluations of this campaign in hand, and will go on with its steps after them."""


class OracleError(ActiveLearningError):
    """An oracle broke its contract (NaN, too few values, wrong type)."""


class SamplerError(ActiveLearningError):
    """A sampler was given a reward, a state or a request that it can't work with."""
