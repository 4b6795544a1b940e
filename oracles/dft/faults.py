"""Why a job ended without a result, and whether trying again can help."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from oracles.dft.runner import TROUBLE_OF_THE_NODE


class Fault(StrEnum):
    """What went wrong, in the words of reasons of failure."""

    NOT_CONVERGED = "did not converge"
    BAD_INPUT = "bad input"
    CODE_ERROR = "the code failed"
    OUT_OF_MEMORY = "out of memory"
    OUT_OF_TIME = "out of time"
    KILLED = "killed"
    NODE_LOST = "node lost"
    LOST = "lost by the scheduler"

    @property
    def is_of_infrastructure(self) -> bool:
        """Whether the same job may well succeed when tried again as it is.

        A job that ran out of time is no such one, unless it got on; who follows it knows.
        """
        return self in (Fault.KILLED, Fault.NODE_LOST, Fault.LOST)


@dataclass(frozen=True)
class Diagnosis:
    """A fault, and what is known about it in one line."""

    fault: Fault
    detail: str


# What codes print or raise, whichever they are. The first that fits counts.
_PATTERNS: tuple[tuple[Fault, str], ...] = (
    (Fault.OUT_OF_MEMORY, r"MemoryError|oom[-_ ]kill|Out of memory|std::bad_alloc|Cannot allocate memory"),
    (Fault.OUT_OF_TIME, r"DUE TO TIME LIMIT"),
    (Fault.NODE_LOST, r"DUE TO NODE FAILURE|No space left on device|Stale file handle"),
    (Fault.NOT_CONVERGED, r"NotConvergedError|ConvergenceError"),
    (Fault.BAD_INPUT, r"ModuleNotFoundError|ImportError"),  # of the engine's environment
    # A program that the calculation had started, by itself or through a launcher.
    (Fault.KILLED, r"died with <Signals\.SIG(KILL|TERM):|returned non-zero exit status 1(37|43)\b"),
)
_OF_SHELLS = {126: "the command can't be run", 127: "the command was not found"}
_SIGNALS_OF_CRASHES = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 11: "SIGSEGV"}


def diagnose_failure(
    failure: Mapping[str, Any], output: str, patterns: Sequence[tuple[Fault, str]]
) -> Diagnosis:
    """What an error of the calculation means, by the `result.json` that the runner wrote.

    Args:
        failure: With `stage`, `type` and `message`.
        output: The end of what the engine's own program wrote, where it is one. What that says of itself counts more
            than the error that ASE made of its end.
        patterns: Faults and regular expressions of an engine's own, looked at first.
    """
    told = _search(output, patterns)
    if told is not None:
        return told
    detail = f"{failure['type']}: {' '.join(str(failure['message']).split())}".removesuffix(": ")
    found = _search(detail, (*patterns, *_PATTERNS))
    if found is not None:
        return Diagnosis(found.fault, detail)
    return Diagnosis(Fault.BAD_INPUT if failure["stage"] == "set-up" else Fault.CODE_ERROR, detail)


def diagnose_end(exit_code: int | None, log: str, patterns: Sequence[tuple[Fault, str]]) -> Diagnosis:
    """What it means that a job ended without any `result.json`.

    Args:
        exit_code: Of its script, in a shell's convention (128 + signal); None where not even that is known.
        log: The end of its standard output and error.
        patterns: Faults and regular expressions of an engine's own, looked at first.
    """
    found = _search(log, (*patterns, *_PATTERNS))
    if found is not None:
        return found
    if exit_code is None:
        return Diagnosis(Fault.KILLED, "it ended without a word")
    if exit_code == TROUBLE_OF_THE_NODE:
        return Diagnosis(Fault.NODE_LOST, "a disk or a network was at fault")
    if exit_code in _OF_SHELLS:
        return Diagnosis(Fault.BAD_INPUT, f"{_OF_SHELLS[exit_code]} (exit code {exit_code})")
    if exit_code > 128:
        signal = exit_code - 128
        if signal in _SIGNALS_OF_CRASHES:
            return Diagnosis(Fault.CODE_ERROR, f"it crashed with {_SIGNALS_OF_CRASHES[signal]}")
        return Diagnosis(Fault.KILLED, f"it was ended by signal {signal}")
    return Diagnosis(Fault.CODE_ERROR, f"it ended with exit code {exit_code} and no result")


def _search(text: str, patterns: Iterable[tuple[Fault, str]]) -> Diagnosis | None:
    """The first fault whose pattern is found, with the lines that it spans."""
    for fault, pattern in patterns:
        match = re.search(pattern, text)
        if match is not None:
            begin, end = text.rfind("\n", 0, match.start()) + 1, text.find("\n", match.end())
            lines = text[begin : end if end >= 0 else None]
            return Diagnosis(fault, " ".join(lines.split())[:300])
    return None
