"""What the judge of the flagship campaign takes for the crystal that was simulated."""

import flagship
import pytest
from pymatgen.core import Lattice, Structure


def test_a_cif_of_another_crystal_is_refused():
    salt = Structure.from_spacegroup(225, Lattice.cubic(5.14), ["Li", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    told = {"supercell": [1, 2, 2], "volume": 4 * 5.14**3}
    flagship.check_atoms("key", str(salt.to(fmt="cif")), told)
    salt.scale_lattice(1.01 * salt.volume)
    with pytest.raises(SystemExit, match="of another crystal; run the campaign anew"):
        flagship.check_atoms("key", str(salt.to(fmt="cif")), told)
