"""GFlowNets: policies trained to sample in proportion to a reward."""

from samplers.gflownet.sampler import GFlowNetSampler

__all__ = ["GFlowNetSampler"]
