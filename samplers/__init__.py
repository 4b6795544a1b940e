"""Samplers: GFlowNets and the baselines they are measured against."""
