"""Environments of the GFlowNet: crystal, box, grid."""
