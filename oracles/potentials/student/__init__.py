"""The student: a small MACE for Li-P-S-Cl, distilled from CHGNet. `python -m oracles.potentials.student --help`."""
