"""The Arrhenius line on synthetic conductivities: exact, covered, and as precise as its points allow."""

import math

import numpy as np
import pytest
from ase.units import kB
from scipy.optimize import curve_fit

from oracles.mace_md.arrhenius import fit_arrhenius

ENERGY = 0.25  # eV
Z90 = 1.645


def truth(temperatures, prefactor=1000.0, energy=ENERGY):
    """log10 of conductivities with σT = A exp(-E / k T)."""
    kelvin = np.asarray(temperatures, dtype=float)
    return np.log10(prefactor * np.exp(-energy / (kB * kelvin)) / kelvin)


def test_a_line_without_scatter_is_found_exactly():
    temperatures = (600.0, 800.0, 1000.0, 1200.0)
    found = fit_arrhenius(temperatures, truth(temperatures), [0.1] * 4, 300.0)
    assert found.activation_energy == pytest.approx(ENERGY, abs=1e-9)
    assert found.log10_sigma == pytest.approx(truth(300.0), abs=1e-9)
    assert found.chi_squared == pytest.approx(0.0, abs=1e-12)


def test_the_line_is_that_of_weighted_least_squares():
    """Value and covariance, by another library, before the widening for few points."""
    temperatures, errors = np.array([500.0, 650.0, 800.0, 1000.0]), np.array([0.3, 0.1, 0.05, 0.08])
    values = truth(temperatures) + np.array([0.2, -0.1, 0.05, -0.04])

    def line(kelvin, level, energy):
        return (level - energy / (kB * kelvin)) / math.log(10.0) - np.log10(kelvin)

    (level, energy), covariance = curve_fit(line, temperatures, values, sigma=errors, absolute_sigma=True)
    found = fit_arrhenius(temperatures, values, errors, 300.0)
    assert found.activation_energy == pytest.approx(energy, rel=1e-6)
    assert found.log10_sigma == pytest.approx(line(300.0, level, energy), rel=1e-6)
    at = np.array([1.0, -1.0 / (kB * 300.0)])
    plain = math.sqrt(at @ covariance @ at) / math.log(10.0)
    ratio = found.log10_error / plain
    assert ratio == pytest.approx(found.activation_error / math.sqrt(covariance[1, 1]), rel=1e-5)
    residuals = (values - line(temperatures, level, energy)) / errors
    assert found.chi_squared == pytest.approx((residuals**2).sum(), rel=1e-6)


@pytest.mark.parametrize(
    "temperatures", [(600, 800, 1000), (600, 800, 1000, 1200), (500, 600, 700, 800, 1000, 1200)]
)
def test_intervals_hold_the_truth(temperatures):
    """Of activation energy and extrapolated conductivity, over 400 repeats with different errors at each point."""
    rng = np.random.default_rng(0)
    energies, targets = [], []
    for _ in range(400):
        errors = rng.uniform(0.04, 0.2, len(temperatures))
        values = truth(temperatures) + errors * rng.standard_normal(len(temperatures))
        found = fit_arrhenius(temperatures, values, errors, 300.0)
        energies.append(abs(found.activation_energy - ENERGY) < Z90 * found.activation_error)
        targets.append(abs(found.log10_sigma - truth(300.0)) < Z90 * found.log10_error)
    assert 0.85 <= np.mean(energies) <= 0.96
    assert 0.85 <= np.mean(targets) <= 0.96


def test_points_off_the_line_widen_it():
    temperatures, errors = (600, 700, 800, 1000), [0.05] * 4
    straight = fit_arrhenius(temperatures, truth(temperatures), errors, 300.0)
    bent = fit_arrhenius(temperatures, truth(temperatures) + np.array([0.3, -0.3, -0.3, 0.3]), errors, 300.0)
    assert bent.log10_error > 3.0 * straight.log10_error


def test_further_is_less_sure():
    temperatures = (600, 800, 1000)
    errors = [
        fit_arrhenius(temperatures, truth(temperatures), [0.1] * 3, t).log10_error for t in (800, 500, 300)
    ]
    assert errors == sorted(errors)
    assert errors[2] > 3.0 * errors[0]


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="needs 3 temperatures"):
        fit_arrhenius((600, 800), (-1.0, -0.5), (0.1, 0.1), 300.0)
    with pytest.raises(ValueError, match="needs 3 temperatures"):
        fit_arrhenius((600, 800, 800), (-1.0, -0.5, -0.5), (0.1, 0.1, 0.1), 300.0)
    with pytest.raises(ValueError, match="errors above zero"):
        fit_arrhenius((600, 800, 900), (-1.0, -0.5, -0.4), (0.1, 0.1, 0.0), 300.0)
