"""The contracts between the rooms: what a space, oracle, surrogate, sampler and acquisition must do."""

from activelearning.contracts.acquisition import (
    Acquisition,
    AcquisitionContext,
    Constraint,
    Goals,
    Objective,
    Scorer,
)
from activelearning.contracts.oracle import (
    ExternalId,
    JobState,
    OracleContext,
    OracleLike,
    QueuedOracleLike,
    RecordingOracleLike,
    Unasked,
)
from activelearning.contracts.sampler import LogReward, Proposal, Sampler
from activelearning.contracts.space import Space
from activelearning.contracts.surrogate import FeasibilityModel, Prediction, Surrogate

__all__ = [
    "Acquisition",
    "AcquisitionContext",
    "Constraint",
    "ExternalId",
    "FeasibilityModel",
    "Goals",
    "JobState",
    "LogReward",
    "Objective",
    "OracleContext",
    "OracleLike",
    "Prediction",
    "Proposal",
    "QueuedOracleLike",
    "RecordingOracleLike",
    "Sampler",
    "Scorer",
    "Space",
    "Surrogate",
    "Unasked",
]
