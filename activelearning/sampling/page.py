"""The run page: one HTML file that needs no network and no other file."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import yaml

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.elements import atomic_number
from activelearning.crystals.symmetry import LATTICE_SYSTEMS, POINT_SYMMETRIES, space_group
from activelearning.errors import InputError
from activelearning.rewards import ProductReward
from activelearning.sampling import plots
from activelearning.sampling.config import SampleConfig
from activelearning.sampling.crystals import Crystals
from activelearning.sampling.plots import Sample
from activelearning.sampling.statistics import Array, CrystalCounts, Reweighted
from activelearning.sampling.structures import FOLDER, Realised
from activelearning.sampling.summary import N_TOP, Drawn
from activelearning.sampling.training import Training

_TEMPLATE = Path(__file__).with_name("page.html")
_LENGTHS = (("a", "a, Å"), ("b", "b, Å"), ("c", "c, Å"))
_SHORT = {
    "trigonal-rhombohedral": "trigonal, R lattice",
    "trigonal-hexagonal": "trigonal, P lattice",
    "enantiomorphic-polar": "both",
}
_ANGLES = (("alpha", "α, degrees"), ("beta", "β, degrees"), ("gamma", "γ, degrees"))


@dataclass(frozen=True)
class RunPage:
    """All that a run page shows.

    Attributes:
        config: The config.
        training: The training.
        reward: The reward that was trained on.
        drawn: Samples and what they are compared with.
        summary: The run's figures, as `summarise` gives them.
        realised: The best crystals with their atoms.
        files: Names of their CIF files.
    """

    config: SampleConfig
    training: Training
    reward: ProductReward
    drawn: Drawn
    summary: Mapping[str, Any]
    realised: Sequence[Realised]
    files: Sequence[str]

    def write(self, path: Path) -> None:
        """Write the page.

        Raises:
            InputError: the file can't be written.
        """
        sections = {
            "name": _text(self.config.name),
            "subtitle": self._subtitle(),
            "tiles": self._tiles(),
            "properties": self._properties(),
            "training": self._training(),
            "probability": self._probability(),
            "symmetry": self._symmetry(),
            "composition": self._composition(),
            "lattice": self._lattice(),
            "best": self._best(),
            "config": _text(
                yaml.safe_dump(
                    self.config.model_dump(mode="json", exclude_unset=True),
                    sort_keys=False,
                    allow_unicode=True,
                )
            ),
        }
        try:
            path.write_text(
                Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(sections), encoding="utf-8"
            )
        except OSError as error:
            raise InputError(f"{path} can't be written: {error.strerror or error}.") from error

    # ------------------------------------------------------------- what is compared

    @property
    def _sets(self) -> dict[Sample, Crystals]:
        """The sets of crystals, in the order they are drawn in: the samples above all."""
        d = self.drawn
        is_restricted = d.unrestricted is not None
        named = (
            ("untrained", "untrained, unrestricted" if is_restricted else "untrained sampler", d.untrained),
            ("validation", "known crystals", d.validation),
            ("unrestricted", "trained, unrestricted", d.unrestricted),
            ("samples", "trained, restricted" if is_restricted else "trained sampler", d.samples),
        )
        return {
            Sample(key, label, len(crystals)): crystals
            for key, label, crystals in named
            if crystals is not None
        }

    def _label(self, name: str) -> str:
        unit = next(term.source.unit for term in self.reward.terms if term.source.name == name)
        words = name.replace("_", " ")
        return f"{words}, {unit}" if unit else words

    # ------------------------------------------------------------- sections

    def _subtitle(self) -> str:
        parts = []
        for term in self.reward.terms:
            unit = f" ({_text(term.source.unit)})" if term.source.unit else ""
            formula = getattr(term.shaping, "formula", type(term.shaping).__name__)
            parts.append(f"{_text(term.source.name)} x{unit} with reward <code>{_text(formula)}</code>")
        text = "<br>".join(parts)
        if self.config.restrict:
            told = ", ".join(f"{key}: {value}" for key, value in self.config.restrict.items())
            text += f"<br>sampled within <code>{_text(told)}</code>, without training on it"
        return text

    def _tiles(self) -> str:
        s = self.summary
        tiles = []
        for name, found in s["properties"].items():
            if found["samples"] is None:
                continue
            before = found["untrained"]
            kind = "untrained" if self.drawn.unrestricted is None else "untrained, unrestricted"
            note = "" if before is None else f"{kind} {_number(before['median'])}"
            if found["validation"] is not None:
                note += f", known {_number(found['validation']['median'])} (n = {found['validation']['n']})"
            tiles.append((_number(found["samples"]["median"]), f"median {self._label(name)}", note))
        pair = s["correlation"]
        if pair is not None and pair["pearson"] is not None:
            tiles.append(
                (
                    plots.minus(f"{pair['pearson']:.3f}"),
                    "correlation of log-probability and log reward",
                    f"n = {pair['n']}",
                )
            )
        share = 100.0 * s["unique"] / max(s["n"], 1)
        tiles.append((f"{share:.4g} %", "of the samples are unique", f"n = {s['n']}"))
        top = s["distinct_top"]
        for key, label in (("space_groups", "space groups"), ("elements", "elements")):
            tiles.append(
                (str(s["distinct"][key]), label, f"{top[key]} among the best {min(N_TOP, s['unique'])}")
            )
        if s["floored"] > 0.01 * s["n"]:
            tiles.append((str(s["floored"]), "samples have the least reward", "lower the reward's floor?"))
        if s["failed"]:
            tiles.append(
                (str(s["failed"]), "samples without a property", _text(self.drawn.samples.reason or ""))
            )
        return "".join(
            f'<div class="tile"><b>{_text(value)}</b><span>{_text(label)}</span><small>{note}</small></div>'
            for value, label, note in tiles
        )

    def _properties(self) -> str:
        names = list(self.summary["properties"])
        sets = self._sets

        def paint(*axes: Any) -> None:
            for place, name in zip(axes, names, strict=True):
                values = {sample: crystals.properties[name] for sample, crystals in sets.items()}
                plots.histograms(place, values, label=self._label(name))
            plots.legend_of_figure(axes[0], n_columns=2)

        figure = plots.draw(paint, columns=len(names), width=7.6, height=3.2)
        tables = "".join(self._quantiles(name) for name in names)
        size = self.summary["effective_sample_size"]
        pair = self.drawn.correlated
        note = (
            ""
            if size is None or pair is None
            else f"<p class='note'>* The first {len(pair[0])} samples weighted by reward over probability: what "
            f"sampling in exact proportion to the reward would give. They are worth {size:.0f} independent samples; "
            f"with few of them this row is chance.</p>"
        )
        return _figure(figure, "Distribution of the property before and after training") + tables + note

    def _quantiles(self, name: str) -> str:
        found = self.summary["properties"][name]
        rows = [(sample.label, found[sample.key]) for sample in self._sets]
        rows.append(("the reward itself*", found["reward"]))
        keys = ("n", "min", "q25", "median", "q75", "max")
        body = "".join(
            f"<tr><th>{_text(label)}</th>"
            + "".join(f"<td>{_cell_text(key, numbers)}</td>" for key in keys)
            + "</tr>"
            for label, numbers in rows
            if numbers is not None
        )
        head = "".join(f"<th>{key}</th>" for key in ("n", "min", "25 %", "median", "75 %", "max"))
        head = f"<thead><tr><th>{_text(self._label(name))}</th>{head}</tr></thead>"
        return f"<table>{head}<tbody>{body}</tbody></table>"

    def _training(self) -> str:
        t = self.training
        steps = t.curves["step"]
        shown = [
            (key, label, is_log)
            for key, label, is_log in (
                ("loss", "loss", True),
                ("log_z", "learned log Z", False),
                ("mean_log_reward", "mean log reward", False),
            )
            if any(np.isfinite(t.curves[key]))
        ]
        if not shown:
            return f"<p>This sampler is not trained step by step ({t.step} steps).</p>"

        def paint(*axes: Any) -> None:
            for place, (key, label, is_log) in zip(axes, shown, strict=True):
                plots.curve(place, steps, t.curves[key], label=label, is_log=is_log)

        figure = plots.draw(paint, columns=len(shown), width=9.6, height=2.7)
        note = (
            f"<p class='note'>{t.step} steps in {_duration(t.seconds)}; each point is a mean over the steps "
            f"since the one before. The mean log reward is that of the training's own draws, exploration included.</p>"
        )
        return _figure(figure, "Loss, learned log Z and mean log reward over the training") + note

    def _probability(self) -> str:
        pair = self.drawn.correlated
        if pair is None:
            return f"<p>Log-probabilities are not known: {_text(self.drawn.why_no_probabilities or '')}</p>"
        log_probabilities, log_rewards = pair
        left_out = (
            f" {self.drawn.n_left_out} samples are left out, as their log-probability or log reward is not finite."
            if self.drawn.n_left_out
            else ""
        )
        if not len(log_rewards):
            return f"<p>Log-probabilities are not known.{left_out}</p>"
        exponent = float(self.training.figures.get("beta") or 1.0)
        log_z = Reweighted.of(log_probabilities, exponent * log_rewards).log_z
        figure = plots.draw(
            lambda axes: plots.scatter(axes, log_rewards, log_probabilities, log_z, exponent),
            width=5.2,
            height=4.0,
        )
        found = self.summary["correlation"]
        told = (
            "One of them does not vary."
            if found["pearson"] is None
            else plots.minus(f"Pearson {found['pearson']:.4f}, Spearman {found['spearman']:.4f}")
            + f" over {found['n']} samples."
        )
        return _figure(figure, "Log-probability of samples against their log reward") + (
            f"<p class='note'>{told}{left_out} Densities are against counting measure on discrete choices times "
            f"Lebesgue measure on unit-scaled lattice parameters. On the line a sampler is exact.</p>"
        )

    def _counts(self) -> dict[Sample, tuple[CrystalCounts, int]]:
        return {
            sample: (CrystalCounts.of(crystals.crystals), max(len(crystals), 1))
            for sample, crystals in self._sets.items()
        }

    def _symmetry(self) -> str:
        counts = self._counts()
        (of_samples, n) = next(found for sample, found in counts.items() if sample.key == "samples")
        groups = plots.draw(lambda axes: plots.space_group_bars(axes, of_samples, n), width=9.6, height=2.8)

        def paint(systems: Any, symmetries: Any) -> None:
            shares = {sample: plots.system_shares(*found) for sample, found in counts.items()}
            names = [_SHORT.get(system.value, system.value) for system in LATTICE_SYSTEMS]
            plots.bars(systems, names, shares, label="crystal-lattice system")
            shares = {sample: plots.symmetry_shares(*found) for sample, found in counts.items()}
            names = [_SHORT.get(symmetry.value, symmetry.value) for symmetry in POINT_SYMMETRIES]
            plots.bars(symmetries, names, shares, label="point symmetry")
            for axes in (systems, symmetries):
                for tick in axes.get_xticklabels():
                    tick.set(rotation=30, ha="right", rotation_mode="anchor")
            plots.legend_of_figure(symmetries, n_columns=4)

        both = plots.draw(paint, columns=2, width=9.6, height=3.3)
        return _figure(groups, "Space groups of the samples") + _figure(
            both, "Crystal-lattice systems and point symmetries"
        )

    def _composition(self) -> str:
        counts = self._counts()
        elements = sorted({e for found, _ in counts.values() for e in found.elements}, key=atomic_number)
        most = max((k for found, _ in counts.values() for k in found.n_elements), default=1)

        def paint_elements(axes: Any) -> None:
            shares = {
                sample: [100.0 * found.elements[e] / n for e in elements]
                for sample, (found, n) in counts.items()
            }
            plots.bars(axes, elements, shares, label="crystals that hold the element")
            plots.legend_above(axes, n_columns=4)

        def paint_numbers(numbers: Any, atoms: Any) -> None:
            shares = {
                sample: [100.0 * found.n_elements[k] / n for k in range(1, most + 1)]
                for sample, (found, n) in counts.items()
            }
            plots.bars(numbers, [str(k) for k in range(1, most + 1)], shares, label="elements in a crystal")
            sizes = {
                sample: np.array([float(c.n_atoms) for c in crystals.crystals])
                for sample, crystals in self._sets.items()
            }
            plots.histograms(atoms, sizes, label="atoms in the conventional cell", is_whole=True)
            plots.legend_of_figure(atoms, n_columns=4)

        return _figure(
            plots.draw(paint_elements, width=9.6, height=2.9), "Elements, as share of crystals that hold them"
        ) + _figure(
            plots.draw(paint_numbers, columns=2, width=9.6, height=2.8),
            "Number of elements and of atoms",
        )

    def _lattice(self) -> str:
        sets = {
            sample: [crystal for crystal in crystals.crystals if crystal.lattice is not None]
            for sample, crystals in self._sets.items()
        }
        if not any(sets.values()):
            return "<p>The space has no lattice.</p>"

        def values(crystals: Sequence[CrystalCandidate], column: int) -> Array:
            return np.array([c.lattice[column] for c in crystals if c.lattice is not None], dtype=np.float64)

        def paint(*axes: Any) -> None:
            for column, (_, label) in enumerate((*_LENGTHS, *_ANGLES)):
                shown = {sample: values(crystals, column) for sample, crystals in sets.items()}
                # Most angles are fixed at 90° by symmetry; a logarithmic scale shows the free ones.
                plots.histograms(axes[column], shown, label=label, is_log=column >= len(_LENGTHS))
            plots.legend_of_figure(axes[0], n_columns=4)

        def paint_volume(axes: Any) -> None:
            shown = {
                sample: np.array([c.volume / c.n_atoms for c in crystals])
                for sample, crystals in sets.items()
            }
            plots.histograms(axes, shown, label="volume per atom, Å³")
            plots.legend_of_figure(axes, n_columns=2)

        return (
            _figure(
                plots.draw(paint, rows=2, columns=3, width=9.6, height=4.6),
                "Lattice parameters of the conventional cell",
            )
            + _figure(plots.draw(paint_volume, width=5.2, height=2.9), "Volume per atom")
            + (
                "<p class='note'>In all distributions the outer half per cent on either side is gathered in the last "
                "bins.</p>"
            )
        )

    def _best(self) -> str:
        names = list(self.summary["properties"])
        samples = self.drawn.samples
        files = {found.row: file for found, file in zip(self.realised, self.files, strict=True)}
        drawn_by = {found.row: found.is_sampled for found in self.realised}
        head = "".join(f"<th>{_text(self._label(name))}</th>" for name in names)
        rows = []
        for rank, row in enumerate(samples.ranking()[: max(len(files), 20)], start=1):
            crystal = samples.crystals[row]
            group = space_group(crystal.space_group)
            told = "".join(f"<td>{_number(samples.properties[name][row])}</td>" for name in names)
            link = ""
            if row in files:
                how = "sampled" if drawn_by[row] else "PyXtal"
                link = f'<a href="{FOLDER}/{html.escape(files[row], quote=True)}">CIF</a> ({how})'
            rows.append(
                f"<tr><td>{rank}</td><th>{_formula_html(crystal)}</th><td>{_text(group.symbol)} ({group.number})</td>"
                f"<td>{_cell(crystal)}</td>{told}<td>{plots.minus(f'{samples.log_rewards[row]:.3f}')}</td><td>{link}</td></tr>"
            )
        return (
            "<table class='best'><thead><tr><th></th><th>composition of the cell</th><th>space group</th>"
            f"<th>a, b, c (Å); α, β, γ (°)</th>{head}<th>log reward</th><th>atoms</th></tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>"
            "<p class='note'>Distinct samples by falling reward. Values are the oracle's, not measurements. Atoms "
            "marked PyXtal are one random arrangement that the symmetry allows, not relaxed.</p>"
        )


def _figure(svg: str, caption: str) -> str:
    # Each figure's ids are its own: two in one page must not share clip paths.
    prefix = re.sub(r"\W+", "-", caption.lower())
    svg = re.sub(r'(id="|url\(#|href="#)', lambda match: match.group(1) + prefix + "-", svg)
    label = html.escape(caption, quote=True)
    return f'<figure role="img" aria-label="{label}">{svg}<figcaption>{_text(caption)}</figcaption></figure>'


def _text(value: str) -> str:
    return html.escape(value, quote=False)


def _number(value: float) -> str:
    return "–" if value != value else plots.minus(f"{value:.4g}")


def _cell_text(key: str, numbers: Mapping[str, float]) -> str:
    if key not in numbers:
        return ""
    return str(numbers[key]) if key == "n" else _number(numbers[key])


def _duration(seconds: float) -> str:
    return f"{seconds / 60.0:.1f} minutes" if seconds >= 60.0 else f"{seconds:.1f} seconds"


def _formula_html(crystal: CrystalCandidate) -> str:
    return "".join(f"{e}<sub>{n}</sub>" if n > 1 else e for e, n in crystal.composition.items())


def _cell(crystal: CrystalCandidate) -> str:
    if crystal.lattice is None:
        return "–"
    a, b, c, alpha, beta, gamma = crystal.lattice
    return f"{a:.2f}, {b:.2f}, {c:.2f}; {alpha:.1f}, {beta:.1f}, {gamma:.1f}"
