"""Our convolution, contraction and skip connection against those of e3nn and mace-torch."""

import numpy as np
import pytest
import torch
from ase import Atoms

import oracles.potentials.mace_model as mace_model
from oracles.potentials.convolution import ScalarConvolution
from oracles.potentials.mace_model import Architecture, MaceCalculator, build
from oracles.potentials.student.structures import argyrodite

CASES = {
    "argyrodite": argyrodite(primitive=True),
    "one atom, no neighbours": Atoms("Li", cell=[20.0] * 3, pbc=True),
    "a pair": Atoms("LiS", [[0, 0, 0], [1.1, 1.2, 1.3]], cell=[20.0] * 3, pbc=True),
    # Uneven numbers of neighbours: padding is not all at the end of the table.
    "a chain": Atoms("LiSPCl", [[0, 0, 0], [2, 0.3, 0], [4, 0, 0.5], [9.5, 0, 0]], cell=[20.0] * 3, pbc=True),
}


ARCHITECTURES = [
    {},
    {"max_ell": 3},
    {"correlation": 1},
    {"correlation": 3},
    {"max_ell": 1, "correlation": 4},
    {"max_l": 1, "correlation": 3},
]


@pytest.fixture(params=ARCHITECTURES, ids=str)
def pair(request, monkeypatch):
    """The same parameters with our parts and with theirs."""
    architecture = Architecture((3, 15, 16, 17), channels=6, radial_width=8, r_max=4.5, **request.param)
    ours = build(architecture, torch.float64)
    for replacement in ("use_scalar_convolutions", "use_scalar_contractions", "use_element_maps"):
        monkeypatch.setattr(mace_model, replacement, lambda model: None)
    theirs = build(architecture, torch.float64)
    missing = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(".conv_tp." in key for key in missing.missing_keys)  # e3nn's empty weights and masks
    return ours, theirs


@pytest.mark.parametrize("name", CASES)
def test_energies_forces_and_stresses_are_theirs(pair, name):
    results = []
    for model in pair:
        atoms = CASES[name].copy()
        atoms.rattle(0.1, seed=1)
        atoms.calc = MaceCalculator(model, dtype=torch.float64, compiled=False)
        results.append((atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()))
    (e, f, s), (e_theirs, f_theirs, s_theirs) = results
    assert e == pytest.approx(e_theirs, abs=1e-10)
    np.testing.assert_allclose(f, f_theirs, atol=1e-10)
    np.testing.assert_allclose(s, s_theirs, atol=1e-12)


def test_gradients_of_a_loss_on_forces_are_theirs(pair):
    """Training differentiates twice."""
    gradients = []
    for model in pair:
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        atoms = CASES["argyrodite"].copy()
        atoms.rattle(0.1, seed=2)
        data = mace_model.graph(atoms, model, torch.float64)
        data["head"] = torch.zeros(1, dtype=torch.int64)
        model.zero_grad()
        model(data, training=True)["forces"].pow(2).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    ours, theirs = gradients
    assert ours.keys() == theirs.keys()
    for name in ours:
        scale = float(theirs[name].abs().max())
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-9 * scale + 1e-14)


def test_the_order_of_edges_does_not_matter():
    torch.manual_seed(0)
    convolution = ScalarConvolution(channels=5, max_ell=2)
    n, n_edges = 7, 40
    nodes = torch.randn(n, 5, dtype=torch.float64)
    harmonics = torch.randn(n_edges, 9, dtype=torch.float64)
    radial = torch.randn(n_edges, 15, dtype=torch.float64)
    edges = torch.randint(n, (2, n_edges))
    order = torch.randperm(n_edges)
    first = convolution(nodes, harmonics, radial, edges)
    second = convolution(nodes, harmonics[order], radial[order], edges[:, order])
    torch.testing.assert_close(first, second)
    # The definition, edge by edge.
    expected = torch.zeros(n, 45, dtype=torch.float64)
    for k, (sender, receiver) in enumerate(edges.T.tolist()):
        blocks = [
            torch.outer(
                radial[k, 5 * ell : 5 * ell + 5] * nodes[sender], harmonics[k, ell**2 : (ell + 1) ** 2]
            )
            for ell in range(3)
        ]
        expected[receiver] += torch.cat([block.flatten() for block in blocks])
    torch.testing.assert_close(first, expected)


@pytest.mark.parametrize(
    ("max_ell", "degree", "n"),
    # With harmonics to order 2: A0², |A1|², |A2|², and A0³, A0|A1|², A0|A2|², A1A2A1, tr A2³.
    [(2, 1, 1), (2, 2, 3), (2, 3, 5), (1, 3, 2), (3, 2, 4)],
)
def test_as_many_polynomials_as_there_are_invariants(max_ell, degree, n):
    contraction = build(Architecture((3,), channels=2, max_ell=max_ell, correlation=degree)).products[0]
    ours = contraction.symmetric_contractions.contractions[0]
    polynomials = getattr(ours, f"polynomials_{degree}")
    assert len(polynomials) == n
    assert ours.weights_max.shape[1] >= n


def test_the_invariants_do_not_change_under_rotations():
    from e3nn import o3

    ours = build(Architecture((3, 16), channels=4, max_ell=2, correlation=3), torch.float64).products[0]
    torch.manual_seed(1)
    features = torch.randn(6, 4, 9, dtype=torch.float64)
    elements = torch.nn.functional.one_hot(torch.tensor([0, 1, 1, 0, 0, 1]), 2).double()
    rotation = o3.Irreps("0e+1o+2e").D_from_matrix(-o3.rand_matrix().double())
    first, second = (
        ours.symmetric_contractions(turned, elements) for turned in (features, features @ rotation.T)
    )
    assert first.abs().min() > 0
    torch.testing.assert_close(first, second)
