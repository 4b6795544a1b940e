"""Loops of a MACE whose nodes carry scalars, compiled: convolution, contraction, and the repulsion of nuclei.

As products of arrays they move gigabytes through memory and use each number once. Here the numbers of an edge, or of an
atom, are computed, used and forgotten before the next one's. The loops over channels are innermost and become vector
instructions. All run on one thread and give the same bits each time.

Shapes: n atoms; E edges, sorted by receiver, of which atom i has those from `first[i]` to `first[i + 1]`; C channels;
harmonics of orders 0 to 2, nine in all. `radial` holds cubic Hermite splines for each order and channel, `knots x 2 x 3
x C`: values, and slopes times the distance of knots.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from oracles.compilation import compiled

N_ORDERS = 3
N_HARMONICS = N_ORDERS**2

_ROOT3, _ROOT5, _ROOT15 = math.sqrt(3.0), math.sqrt(5.0), math.sqrt(15.0)
# Sums over channels may be taken in any order, or they could not be vector instructions; NaN and infinities stay.
_FASTMATH = {"reassoc", "contract", "nsz"}

_kernel = compiled(fastmath=_FASTMATH, nogil=True)
_inlined = compiled(fastmath=_FASTMATH, inline="always")


@_inlined
def _set_harmonics(x: Any, y: Any, z: Any, out: Any) -> None:
    """Real spherical harmonics of a unit vector in e3nn's order, with mean squares of one."""
    out[0] = 1.0
    out[1] = _ROOT3 * x
    out[2] = _ROOT3 * y
    out[3] = _ROOT3 * z
    out[4] = _ROOT15 * x * z
    out[5] = _ROOT15 * x * y
    out[6] = _ROOT5 * (y * y - 0.5 * (x * x + z * z))
    out[7] = _ROOT15 * y * z
    out[8] = 0.5 * _ROOT15 * (z * z - x * x)


@_inlined
def _knot(place: Any, n_knots: Any) -> Any:
    """The last knot before a place, if that is NaN, too: outside an array, any number might be found."""
    return min(int(place), n_knots - 2) if 0.0 <= place < n_knots else n_knots - 2


@_inlined
def _set_weights(u: Any, out: Any) -> None:
    """Of values and slopes at both ends of an interval in a cubic Hermite spline at 0 <= u <= 1."""
    out[2] = u * u * (3.0 - 2.0 * u)
    out[0] = 1.0 - out[2]
    out[1] = u * (1.0 - u) * (1.0 - u)
    out[3] = u * u * (u - 1.0)


@_inlined
def _set_slopes(u: Any, out: Any) -> None:
    """Derivatives of `_set_weights`."""
    out[2] = 6.0 * u * (1.0 - u)
    out[0] = -out[2]
    out[1] = (1.0 - u) * (1.0 - 3.0 * u)
    out[3] = u * (3.0 * u - 2.0)


@_inlined
def _spline(weights: Any, knot: Any, radial: Any, order: Any, out: Any) -> None:
    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    v0, s0 = radial[knot, 0, order], radial[knot, 1, order]
    v1, s1 = radial[knot + 1, 0, order], radial[knot + 1, 1, order]
    for c in range(len(out)):
        out[c] = w0 * v0[c] + w1 * s0[c] + w2 * v1[c] + w3 * s1[c]


@_kernel
def convolve(
    first: Any, sender: Any, vectors: Any, radial: Any, step: float, features: Any, out: Any
) -> None:
    """Sum of the messages to each atom, A_i,lm,k = Σ_j R_lk(r_ij) h_jk Y_lm(r_ij).

    Args:
        first: Where the edges of each receiver begin, `n + 1`.
        sender: Of each edge, `E`.
        vectors: From sender to receiver, Å, `E x 3`.
        radial: R, as splines.
        step: Distance of their knots, Å.
        features: h, `n x C`.
        out: A, `9 x n x C`.
    """
    n, channels = features.shape
    harmonics, weights = np.empty(N_HARMONICS, features.dtype), np.empty(4, features.dtype)
    message = np.empty(channels, features.dtype)
    for i in range(n):
        out[:, i] = 0.0
        for e in range(first[i], first[i + 1]):
            x, y, z = vectors[e, 0], vectors[e, 1], vectors[e, 2]
            r = math.sqrt(x * x + y * y + z * z)
            _set_harmonics(x / r, y / r, z / r, harmonics)
            knot = _knot(r / step, len(radial))
            _set_weights(r / step - knot, weights)
            h = features[sender[e]]
            for order in range(N_ORDERS):
                _spline(weights, knot, radial, order, message)
                for c in range(channels):
                    message[c] *= h[c]
                for m in range(order * order, (order + 1) * (order + 1)):
                    factor, total = harmonics[m], out[m, i]
                    for c in range(channels):
                        total[c] += factor * message[c]


@_kernel
def convolve_back(
    first: Any,
    sender: Any,
    vectors: Any,
    radial: Any,
    step: float,
    features: Any,
    gradient: Any,
    are_features_variable: bool,
    out_vectors: Any,
    out_features: Any,
) -> None:
    """Gradient of an energy through `convolve`, added to what is there.

    Args:
        first, sender, vectors, radial, step, features: As there.
        gradient: Of the energy by A, `9 x n x C`.
        are_features_variable: Whether the gradient by h is wanted.
        out_vectors: By the vectors, `E x 3`.
        out_features: By h, `n x C`.
    """
    n, channels = features.shape
    dtype = features.dtype
    harmonics, weights, slopes = np.empty(N_HARMONICS, dtype), np.empty(4, dtype), np.empty(4, dtype)
    value, slope, mine = np.empty(channels, dtype), np.empty(channels, dtype), np.empty(channels, dtype)
    turn = np.empty(N_HARMONICS, dtype)
    for i in range(n):
        for e in range(first[i], first[i + 1]):
            x, y, z = vectors[e, 0], vectors[e, 1], vectors[e, 2]
            r = math.sqrt(x * x + y * y + z * z)
            x, y, z = x / r, y / r, z / r
            _set_harmonics(x, y, z, harmonics)
            knot = _knot(r / step, len(radial))
            _set_weights(r / step - knot, weights)
            _set_slopes(r / step - knot, slopes)
            h, by_h = features[sender[e]], out_features[sender[e]]
            stretch = 0.0
            for order in range(N_ORDERS):
                _spline(weights, knot, radial, order, value)
                _spline(slopes, knot, radial, order, slope)
                mine[:] = 0.0
                for m in range(order * order, (order + 1) * (order + 1)):
                    factor, row = harmonics[m], gradient[m, i]
                    for c in range(channels):
                        mine[c] += factor * row[c]
                if are_features_variable:
                    for c in range(channels):
                        by_h[c] += value[c] * mine[c]
                part = dtype.type(0.0)
                for c in range(channels):
                    value[c] *= h[c]
                    part += slope[c] * h[c] * mine[c]
                stretch += part
                for m in range(order * order, (order + 1) * (order + 1)):
                    row = gradient[m, i]
                    part = dtype.type(0.0)
                    for c in range(channels):
                        part += value[c] * row[c]
                    turn[m] = part
            gx = _ROOT3 * turn[1] + _ROOT15 * (z * turn[4] + y * turn[5] - x * turn[8]) - _ROOT5 * x * turn[6]
            gy = _ROOT3 * turn[2] + _ROOT15 * (x * turn[5] + z * turn[7]) + 2.0 * _ROOT5 * y * turn[6]
            gz = _ROOT3 * turn[3] + _ROOT15 * (x * turn[4] + y * turn[7] + z * turn[8]) - _ROOT5 * z * turn[6]
            # Only what is across the vector turns it.
            along = stretch / step - (gx * x + gy * y + gz * z) / r
            out_vectors[e, 0] += along * x + gx / r
            out_vectors[e, 1] += along * y + gy / r
            out_vectors[e, 2] += along * z + gz / r


@_kernel
def contract(kinds: Any, factors: Any, weights: Any, features: Any, out: Any) -> None:
    """Sum of products of features, Σ_t w_tk Π_f A_f,ik, for each atom and channel.

    Args:
        kinds: Index of each atom's element, `n`.
        factors: Features in each term, padded by -1, `terms x degree`.
        weights: w of each element, `n_elements x terms x C`.
        features: A, `9 x n x C`.
        out: `n x C`.
    """
    channels = out.shape[1]
    term = np.empty(channels, out.dtype)
    for i in range(len(kinds)):
        total = out[i]
        total[:] = 0.0
        for t in range(len(factors)):
            term[:] = weights[kinds[i], t]
            for f in factors[t]:
                if f >= 0:
                    row = features[f, i]
                    for c in range(channels):
                        term[c] *= row[c]
            for c in range(channels):
                total[c] += term[c]


@_kernel
def contract_back(kinds: Any, factors: Any, weights: Any, features: Any, gradient: Any, out: Any) -> None:
    """Gradient of an energy through `contract`.

    Args:
        kinds, factors, weights, features: As there.
        gradient: Of the energy by the result, `n x C`.
        out: By the features, `9 x n x C`.
    """
    channels = gradient.shape[1]
    term = np.empty(channels, gradient.dtype)
    for i in range(len(kinds)):
        out[:, i] = 0.0
        given = gradient[i]
        for t in range(len(factors)):
            for place in range(factors.shape[1]):
                if factors[t, place] < 0:
                    break
                weight = weights[kinds[i], t]
                for c in range(channels):
                    term[c] = weight[c] * given[c]
                for other in range(factors.shape[1]):
                    if other != place and factors[t, other] >= 0:
                        row = features[factors[t, other], i]
                        for c in range(channels):
                            term[c] *= row[c]
                total = out[factors[t, place], i]
                for c in range(channels):
                    total[c] += term[c]


@_kernel
def repel(
    first: Any,
    sender: Any,
    vectors: Any,
    kinds: Any,
    strengths: Any,
    inverse_lengths: Any,
    ranges: Any,
    shares: Any,
    power: int,
    out: Any,
    out_vectors: Any,
) -> None:
    """Screened repulsion of nuclei (Ziegler, Biersack & Littmark 1985) that ends at the sum of covalent radii.

    Args:
        first, sender, vectors: Edges, as in `convolve`.
        kinds: Index of each atom's element, `n`.
        strengths: Half of the product of the charges, eV Å, `n_elements x n_elements`.
        inverse_lengths: 1 over the screening length, 1/Å, likewise.
        ranges: Where it ends, Å, likewise.
        shares: Of the four exponentials of the universal screening function.
        power: Of the polynomial envelope.
        out: Energy of each atom, `n`.
        out_vectors: Its gradient by the vectors, `E x 3`.
    """
    a, b, c = (power + 1.0) * (power + 2.0) / 2.0, power * (power + 2.0), power * (power + 1.0) / 2.0
    decays = (3.2, 0.9423, 0.4028, 0.2016)
    for i in range(len(kinds)):
        out[i] = 0.0
        for e in range(first[i], first[i + 1]):
            out_vectors[e] = 0.0
            pair = kinds[i], kinds[sender[e]]
            x, y, z = vectors[e, 0], vectors[e, 1], vectors[e, 2]
            r = math.sqrt(x * x + y * y + z * z)
            s = r / ranges[pair]
            if s >= 1.0:
                continue
            screening, slope = 0.0, 0.0
            for k in range(4):
                part = shares[k] * math.exp(-decays[k] * r * inverse_lengths[pair])
                screening += part
                slope -= decays[k] * inverse_lengths[pair] * part
            rest = s ** (power - 1)
            envelope = 1.0 - rest * s * (a - b * s + c * s * s)
            fall = -rest * (a * power - b * (power + 1) * s + c * (power + 2) * s * s) / ranges[pair]
            coulomb = strengths[pair] / r
            out[i] += coulomb * screening * envelope
            force = coulomb * ((slope - screening / r) * envelope + screening * fall)
            out_vectors[e, 0] = force * x / r
            out_vectors[e, 1] = force * y / r
            out_vectors[e, 2] = force * z / r


@_kernel
def gather(first: Any, sender: Any, vectors: Any, gradient: Any, forces: Any, virial: Any) -> None:
    """Forces on atoms, and the gradient by strain, from the gradient by the edges' vectors; both are set.

    Args:
        first, sender, vectors: Edges, as in `convolve`.
        gradient: Of the energy by the vectors, eV/Å, `E x 3`.
        forces: eV/Å, `n x 3`.
        virial: dE/dε, eV, `3 x 3`.
    """
    forces[:] = 0.0
    virial[:] = 0.0
    for i in range(len(forces)):
        for e in range(first[i], first[i + 1]):
            for k in range(3):
                forces[i, k] -= gradient[e, k]
                forces[sender[e], k] += gradient[e, k]
                for m in range(3):
                    virial[k, m] += 0.5 * (vectors[e, k] * gradient[e, m] + vectors[e, m] * gradient[e, k])
