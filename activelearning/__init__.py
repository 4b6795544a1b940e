"""Multi-fidelity active learning for materials discovery.

The core: values, contracts, spaces, crystals, acquisition, the campaign engine and its store. It knows
neither Prefect nor any one oracle, surrogate or sampler; those are plug-ins (see
`activelearning.contracts.registry`).
"""

__version__ = "0.1.0"
