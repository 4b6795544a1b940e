"""The laboratory: requests wait in the store, people record results by command, by table or in the browser."""

from oracles.lab.oracle import LabOracle
from oracles.lab.recording import RefusedError, record, record_all, reject
from oracles.lab.requests import (
    ANSWERED,
    CANCELLED,
    OPEN,
    REJECTED,
    list_requests,
    read_request,
)
from oracles.lab.results import NewResult, Unrequested, Upload, combine, parse_number, parse_value

__all__ = [
    "ANSWERED",
    "CANCELLED",
    "OPEN",
    "REJECTED",
    "LabOracle",
    "NewResult",
    "RefusedError",
    "Unrequested",
    "Upload",
    "combine",
    "list_requests",
    "parse_number",
    "parse_value",
    "read_request",
    "record",
    "record_all",
    "reject",
]
