"""Errors a user can act on.

Each message is one readable paragraph that names the key, file or plug-in at fault and what would be right.
The command line prints it without a traceback and exits with the error's `exit_code`.
"""

import errno


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


class MachineError(ActiveLearningError):
    """The machine failed an oracle, which says nothing of what it was asked: evaluations stay open, at no cost.

    Args:
        reason: What failed, as one sentence; the message adds how to go on.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = f"{reason.rstrip('.')}."

    def __str__(self) -> str:
        """The reason, and how to go on."""
        how = (
            "What was asked stays open and costs nothing; once that is mended, `activelearning run` goes on."
        )
        return f"{self.reason} {how}"


class DeviceError(MachineError):
    """An accelerator failed: for this process, as for one that crashed, there is no going on."""


class SamplerError(ActiveLearningError):
    """A sampler was given a reward, a state or a request that it can't work with."""


# No room, or none for this user; a file system that only reads, fails or went away; no more open files.
_STORAGE_CODES = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
}

# PyTorch knows some of its troubles by a class and others by their text alone, as do programs built upon it.
_MEMORY_CLASSES = {"MemoryError", "OutOfMemoryError"}
_DEVICE_CLASSES = {"AcceleratorError"}
_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
_DEVICE_TEXTS = (
    "CUDA error",
    "CUDA driver error",
    "HIP error",
    "cuDNN error",
    "CUBLAS_STATUS",
    "CUDNN_STATUS",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine, or of its accelerator, is used up."""
    return _is_of(error, _MEMORY_CLASSES, _MEMORY_TEXTS)


def is_broken_device(error: BaseException) -> bool:
    """Whether an error says that an accelerator fails, which it does from then on for the whole process."""
    return not is_out_of_memory(error) and _is_of(error, _DEVICE_CLASSES, _DEVICE_TEXTS)


def is_machine_trouble(error: BaseException) -> bool:
    """Whether an error is the machine's and says nothing of what was computed: no memory, or a device that fails."""
    return is_out_of_memory(error) or is_broken_device(error)


def is_out_of_storage(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, is an `OSError` of a disk or files that will be met again."""
    cause: BaseException | None = error
    seen: set[int] = set()  # errors may be raised from one another
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, OSError) and cause.errno in _STORAGE_CODES:
            return True
        seen.add(id(cause))
        cause = cause.__cause__
    return False


def machine_error(error: BaseException) -> type[MachineError] | None:
    """What an error is to a campaign where it is no answer about a candidate; None where it is one.

    Taken for answers, these would fail and charge one candidate after the other. Lack of memory is an answer: it is the
    crystal's size that this machine can't do.
    """
    if is_broken_device(error):
        return DeviceError
    return MachineError if is_out_of_storage(error) else None


def _is_of(error: BaseException, classes: set[str], texts: tuple[str, ...]) -> bool:
    # By name: PyTorch, which not all have, need not be imported for it.
    if any(kind.__name__ in classes for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
