"""Synthetic trajectories of ions whose self-diffusion coefficient is known."""

import math

import numpy as np

AXES = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=float)


def brownian(rng, n_frames, n_ions, d, frame_ps):
    """Brownian motion, ⟨Δr²⟩ = 6 D t."""
    steps = rng.normal(0.0, math.sqrt(2.0 * d * frame_ps), size=(n_frames - 1, n_ions, 3))
    return np.concatenate([np.zeros((1, n_ions, 3)), np.cumsum(steps, axis=0)])


def vibration(rng, n_frames, n_ions, amplitude=0.35, memory=0.9):
    """Motion about a site, Å along each axis, with a memory from frame to frame."""
    found = np.empty((n_frames, n_ions, 3))
    found[0] = rng.normal(0.0, amplitude, (n_ions, 3))
    noise = rng.normal(0.0, amplitude * math.sqrt(1.0 - memory**2), (n_frames, n_ions, 3))
    for k in range(1, n_frames):
        found[k] = memory * found[k - 1] + noise[k]
    return found


def hopping(rng, n_frames, n_ions, d, frame_ps, *, a=3.0, back=0.0, trap_ps=None, together=1):
    """Hops of length a along the axes at random times, with vibration.

    With `back` a hop takes the last one back with that probability (tracer correlation factor (1 - p) / (1 + p)); with
    `trap_ps` an ion is free and trapped in turns, for that long on average; with `together` so many ions hop as one.
    """
    n_movers = n_ions // together
    factor = (1.0 - back) / (1.0 + back) * (1.0 if trap_ps is None else 0.5)
    counts = rng.poisson(6.0 * d / (a * a * factor) * frame_ps, (n_frames - 1, n_movers))
    if trap_ps is not None:
        switches = np.cumsum(rng.random((n_frames - 1, n_movers)) < frame_ps / trap_ps, axis=0) % 2 == 1
        counts = counts * np.logical_xor(rng.random(n_movers) < 0.5, switches)
    steps = np.zeros((n_frames - 1, n_movers, 3))
    latest = rng.integers(0, 6, n_movers)
    for frame, ion in zip(*np.nonzero(counts), strict=True):
        for _ in range(counts[frame, ion]):
            latest[ion] = latest[ion] ^ 1 if rng.random() < back else rng.integers(0, 6)
            steps[frame, ion] += a * AXES[latest[ion]]
    sites = np.concatenate([np.zeros((1, n_movers, 3)), np.cumsum(steps, axis=0)])
    return np.repeat(sites, together, axis=1) + vibration(rng, n_frames, n_ions)


def caged(rng, n_frames, n_ions, d, frame_ps, *, a=4.0, ratio=10.0):
    """Fast jumps among six places within a cage, and hops from cage to cage that are `ratio` times rarer."""
    between = hopping(rng, n_frames, n_ions, d, frame_ps, a=a)
    return between + within_cages(rng, n_frames, n_ions, ratio * 6.0 * d / (a * a) * frame_ps)


def cages(rng, n_frames, n_ions, frame_ps, *, jump_ps):
    """Jumps within cages, one in `jump_ps` on average, out of which there is no way, with vibration: D = 0."""
    return within_cages(rng, n_frames, n_ions, frame_ps / jump_ps) + vibration(rng, n_frames, n_ions)


def within_cages(rng, n_frames, n_ions, probability, *, radius=2.2):
    """Jumps among six places, with this probability in a frame."""
    jumps = rng.random((n_frames, n_ions)) < probability
    places = rng.integers(0, 6, (n_frames, n_ions))
    for k in range(1, n_frames):
        places[k] = np.where(jumps[k], places[k], places[k - 1])
    return radius * AXES[places]


def walk(kind, rng, n_frames, n_ions, d, frame_ps):
    """A trajectory, `T x N x 3`, of one of the `KINDS`."""
    if kind == "brownian":
        return brownian(rng, n_frames, n_ions, d, frame_ps)
    if kind == "caged":
        return caged(rng, n_frames, n_ions, d, frame_ps)
    return hopping(rng, n_frames, n_ions, d, frame_ps, **KINDS[kind](n_frames * frame_ps))


KINDS = {
    "brownian": None,
    "hopping": lambda _time: {},
    "back-jumps": lambda _time: {"back": 0.5},
    "caged": None,
    "trapping": lambda time: {"trap_ps": time / 5.0},
    "pairs": lambda _time: {"together": 2},
}
