"""The model card that goes beside a weights file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from oracles.ml_proxy.model import ProxyModel, checksum
from oracles.ml_proxy.properties import proxy_property

TEMPLATE = """\
# Model card: `{name}`

Written by `activelearning proxy train --property {name} --data PATH{option}`, with the weights `{file}`
(SHA-256 `{checksum}`). The same data, seed and library versions give the same file.

| | |
|---|---|
| Predicts | `{name}` in {unit}, with a predictive standard deviation |
| From | composition, space group and lattice of the conventional cell ({n_descriptors} descriptors) |
| Model | {regressor} |
| Seed | {seed} |
| Rows | {n_rows}, {n_bounds} of them upper bounds, in {n_groups} groups |
| Elements | {elements} |

## Data

{data}

## How good it is

Cross-validation in {n_folds} folds by groups: rows that share a composition or a publication, however indirectly,
are in one fold. The calibration of the error bars, too, is fitted without the fold it is judged on.

| figure | value |
|---|---|
| Mean absolute error | {mae:.2f} |
| Root mean square error | {rmse:.2f} |
| R² (rows that are no bounds) | {r2:.2f} |
| Spearman's rank correlation | {spearman:.2f} |
| Coverage of the 90 % interval | {coverage:.2f} |

A row that is an upper bound contributes max(0, prediction - bound). The rows, their folds and the predictions made in
cross-validation are kept in the weights: `activelearning proxy evaluate` judges a row whose composition or publication
was trained on, whatever its lattice, by a model fitted without the folds that hold it.

By prediction, from low to high, and for bounds apart:

| rows | n | MAE | mean standard deviation | within 90 % |
|---|---|---|---|---|
{coverage_table}

The standard deviation is sqrt(f² + s² g² v): v is {variance}, f = {floor:.2f}, s = {slope:.2f}, and
g = exp({tilt:.2f} (M - m)) with the prediction m kept between {bottom:.1f} and M = {top:.1f}. s and the exponent are
fitted to held-out predictions by a Gaussian likelihood, in which a bound counts with the probability of a value
below it.

## Limits

- It ranks families of materials; the effect of a small change within one family is mostly below its error.
- It sees no atomic positions: polymorphs of one space group and nearly equal lattice are the same to it.
- {far}
  Elements that no training row holds are named in an answer's metadata.
- Measured conductivities hold grain boundaries, density of the pellet and impurities; so do the predictions.
"""
VARIANCE = {"process": "the variance of the process", "forest": "the variance between trees"}
FAR = {
    "process": "Far from known materials the process falls back to their common level, and its error grows to the\n"
    "  spread of all of them; there its answer is hardly more than that the material is unknown.",
    "forest": "Trees do not extrapolate. Far from known materials (volume per atom, elements) they give the value of\n"
    "  the nearest ones, and the error bar, calibrated on known materials that were left out, is then too small.",
}


def write_card(model: ProxyModel, weights: Path) -> Path:
    """Write the card of a model beside its weights file, as Markdown, and return its path."""
    info, figures = model.info, model.info["figures"]
    card = weights.with_suffix(".md")
    card.write_text(
        TEMPLATE.format(
            name=model.name,
            file=weights.name,
            checksum=checksum(weights),
            unit=model.unit,
            n_descriptors=len(model.descriptors),
            elements=", ".join(model.elements),
            data=proxy_property(model.name).data,
            mae=figures["mae"],
            rmse=figures["rmse"],
            r2=figures["r2"],
            spearman=figures["spearman"],
            coverage=figures["coverage_90"],
            coverage_table="\n".join(
                f"| {r['rows']} | {r['n']} | {r['mae']:.2f} | {r['mean_std']:.2f} | {r['coverage_90']:.2f} |"
                for r in info["coverage"]
            ),
            **asdict(model.calibration),
            option="" if model.family == "process" else f" --model {model.family}",
            variance=VARIANCE[model.family],
            far=FAR[model.family],
            **{key: info[key] for key in ("seed", "n_rows", "n_bounds", "n_groups", "n_folds", "regressor")},
        ),
        encoding="utf-8",
    )
    return card
