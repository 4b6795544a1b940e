"""PyXtal's loops as array operations against PyXtal's own, as they are in a process that did not replace them."""

import json
import subprocess
import sys

import numpy as np
import pytest

CELLS = {
    14: (5.1, 8.2, 10.7, 90, 104, 90),
    33: (5.0, 8.0, 11.0, 90, 90, 90),
    62: (12.0, 4.1, 9.3, 90, 90, 90),
    129: (4.0, 4.0, 9.0, 90, 90, 90),
    162: (7.0, 7.0, 6.0, 90, 90, 120),
    167: (5.0, 5.0, 13.0, 90, 90, 120),
    194: (3.9, 3.9, 12.0, 90, 90, 120),
    216: (9.9, 9.9, 9.9, 90, 90, 90),
    225: (5.1, 5.1, 5.1, 90, 90, 90),
    227: (8.4, 8.4, 8.4, 90, 90, 90),
}
CODE = """
import json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from pyxtal import operations, symmetry
if sys.argv[1] == "ours":
    from activelearning.crystals import pyxtal_loops
    pyxtal_loops.install()
from pyxtal.lattice import Lattice
rng = np.random.default_rng(0)
found = {}
for number, cell in json.loads(sys.argv[2]).items():
    group = symmetry.Group(int(number))
    lattice = Lattice.from_para(*cell, ltype=group.lattice_type).matrix
    first, second = rng.normal(size=(3, 3)), rng.normal(size=(20, 3))
    found[number] = {
        "distances": symmetry.distance_matrix(first.copy(), second.copy(), lattice).tolist(),
        "in a plane": symmetry.distance_matrix(first.copy(), second.copy(), lattice, PBC=[1, 1, 0]).tolist(),
        "shortest": float(symmetry.distance_matrix(first.copy(), second.copy(), lattice, [1, 1, 1], True)),
        "squared": symmetry.distance_matrix(first, second, lattice, metric="sqeuclidean").tolist(),
        "distance": symmetry.distance(second[0].copy(), lattice).tolist(),
        "points": [position.project(rng.uniform(size=3), lattice, [1, 1, 1]).tolist() for position in group],
        "by its second operation": group[0].project(rng.uniform(size=3), lattice, [1, 1, 1], 1).tolist(),
        "special points": [position.project(np.array([0.25, 0.5, 0.75]), lattice).tolist() for position in group],
        "of a molecule": group[0].project(rng.uniform(size=3), lattice, [0, 0, 0]).tolist(),
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers():
    return {
        whose: json.loads(
            subprocess.run(
                [sys.executable, "-c", CODE, whose, json.dumps(CELLS)],
                check=True, capture_output=True, text=True,
            ).stdout
        )
        for whose in ("ours", "PyXtal's")
    }  # fmt: skip


@pytest.mark.parametrize("group", CELLS)
def test_answers_are_pyxtals(answers, group):
    ours, theirs = (answers[whose][str(group)] for whose in ("ours", "PyXtal's"))
    for quantity in ("distances", "in a plane", "shortest", "squared", "distance", "of a molecule"):
        np.testing.assert_allclose(ours[quantity], theirs[quantity], rtol=0, atol=1e-12)
    for points in ("points", "special points", "by its second operation"):
        apart = np.array(ours[points]) - theirs[points]
        np.testing.assert_allclose(apart, np.rint(apart), rtol=0, atol=1e-12)


# Groups in which images of one site are exact ties, that rounding decides.
DRAWS = """
import json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from activelearning.candidate import CrystalCandidate
from activelearning.crystals import pyxtal_loops
from activelearning.crystals.realise import realise
if sys.argv[1] == "PyXtal's":
    pyxtal_loops.install = lambda: None
cells = {162: (7.0, 7.0, 9.0, 90, 90, 120), 62: (12.0, 7.5, 9.3, 90, 90, 90), 216: (9.9,) * 3 + (90,) * 3}
crystals = [(162, {"Li": 6, "P": 4, "S": 12}), (62, {"Li": 12, "S": 8, "Cl": 4}), (216, {"Li": 24, "S": 20, "P": 4})]
found = []
for group, composition in crystals:
    candidate = CrystalCandidate(group, composition, cells[group])
    for draw in realise(candidate, n_trials=3, seed=5, min_distance_ratio=0.1):
        found.append([draw.trial, draw.atoms.numbers.tolist(), draw.atoms.get_scaled_positions().tolist()])
print(json.dumps(found))
"""


def test_draws_are_pyxtals():
    ours, theirs = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", DRAWS, whose], check=True, capture_output=True, text=True
            ).stdout
        )
        for whose in ("ours", "PyXtal's")
    )
    assert len(ours) >= 6
    for one, other in zip(ours, theirs, strict=True):
        assert one[:2] == other[:2]
        apart = np.array(one[2]) - other[2]
        np.testing.assert_allclose(apart, np.rint(apart), rtol=0, atol=1e-9)
