"""What Prefect's UI shows of a campaign after each round: a summary with a picture, and the batch with its results.

Artifacts of one key are versions of one another, so the UI shows the newest first and the earlier rounds below.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from activelearning.campaign.engine import Engine
from activelearning.report import batch, diagnostics, rounds, status, trace, why_no_best
from activelearning.report.text import candidate_text, number_text, value_text
from flows.plots import best_against_cost, data_uri
from flows.server import PrefectError, require_api
from oracles.lab.requests import list_requests

LAB_URL = "http://127.0.0.1:8765"


def artifact_key(campaign: str, what: str) -> str:
    """Key of an artifact: lower case letters, digits and dashes, as Prefect wants it."""
    return re.sub(r"[^a-z0-9]+", "-", f"{campaign}-{what}".lower()).strip("-")


def publish(engine: Engine, index: int) -> None:
    """Create a round's artifacts; where Prefect does not take them, the campaign goes on without.

    Must be called within a flow, to which the artifacts then belong.
    """
    import httpx
    from prefect import get_run_logger
    from prefect.artifacts import create_markdown_artifact, create_table_artifact
    from prefect.exceptions import PrefectException

    name, database = engine.name, engine.database
    sought = engine.config.sought
    label = f"{sought[0].property} [{sought[0].unit}]" if sought[0].unit else sought[0].property
    if len(sought) > 1:
        label = f"hypervolume of {', '.join(objective.property for objective in sought)}"
    picture = best_against_cost(trace(database, name), label=label, total=engine.config.budget.total)
    shown = f"Campaign {name}, round {index}"
    standing = status(database, name)
    best = why_no_best(database, name) if standing["best"] is None else best_markdown(standing["best"])
    asked = list_requests(database, campaign=name, state=None)
    try:
        require_api()
        create_markdown_artifact(
            summary_markdown(standing, rounds(database, name), label, best, picture)
            + model_markdown(diagnostics(database, name)),
            key=artifact_key(name, "round"),
            description=f"{shown}: budget, best so far, best against cost, every round, the model",
        )
        create_table_artifact(
            [table_row(row) for row in batch(database, name, index)],
            key=artifact_key(name, "batch"),
            description=f"{shown}: the batch and its results",
        )
        if asked:
            create_markdown_artifact(
                laboratory_markdown(name, asked, lab_url()),
                key=artifact_key(name, "lab"),
                description=f"{shown}: what the laboratory is asked for, with links to its form",
            )
    except (httpx.HTTPError, PrefectException, PrefectError) as error:
        get_run_logger().warning("the artifacts of round %d are lost: %s", index, error)


def table_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One evaluation of a batch as the UI's table shows it."""
    return {
        "candidate": candidate_text(row["candidate"]),
        "fidelity": row["fidelity"],
        "state": row["state"],
        "value": value_text(row["value"], row["std"], row["censoring"]),
        "predicted": value_text(row["predicted_mean"], row["predicted_std"]),
        "cost": row["cost_reserved"] if row["cost_paid"] is None else row["cost_paid"],
        "reason": row["reason"] or "",
        "key": row["key"][:16],
    }


def summary_markdown(
    standing: Mapping[str, Any],
    committed: Sequence[Mapping[str, Any]],
    label: str,
    best: str,
    picture: bytes,
) -> str:
    """The campaign so far as Markdown: budget, best result, a picture (PNG), and a table of its rounds."""
    budget = standing["budget"]
    lines = [
        f"# {standing['campaign']}",
        "",
        f"**Budget** {budget['spent']:g} spent, {budget['reserved']:g} reserved, {budget['remaining']:g} of "
        f"{budget['total']:g} left",
        "",
        f"**Best {label}** {best}",
        "",
        f"![best {label} against cumulative cost]({data_uri(picture)})",
        "",
        "| round | evaluations | cost | spent | best |",
        "|---:|---|---:|---:|---:|",
    ]
    for row in committed:
        evaluations = "; ".join(
            f"{fidelity}: " + ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
            for fidelity, states in sorted(row["evaluations"].items())
        )
        so_far = value_text(row["best"])
        lines.append(
            f"| {row['round']} | {evaluations} | {row['cost_paid']:g} | {row['spent']:g} | {so_far} |"
        )
    return "\n".join(lines)


def model_markdown(judged: Mapping[str, Mapping[str, Any]]) -> str:
    """How good the model is, by fidelity: answers left out, forecasts, and agreement with the target."""
    if not judged:
        return ""
    lines = [
        "",
        "",
        "**Model** errors in each fidelity's unit; coverage of 50 % and 90 % intervals; `now` are the answers since "
        "the round before",
        "",
        "| fidelity | judged by | n | rmse | nlpd | 50 % | 90 % |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for fidelity, found in judged.items():
        kinds = {
            "left out": found["left_out"],
            "forecasts": found["forecasts"],
            "forecasts, now": found["new"],
        }
        for kind, figures in kinds.items():
            if figures is not None and figures["rmse"] is not None:
                shown = [
                    number_text(figures[key], 3) for key in ("rmse", "nlpd", "coverage_50", "coverage_90")
                ]
                lines.append(f"| {fidelity} | {kind} | {figures['n']} | {' | '.join(shown)} |")
    targets = {fidelity: found["target"] for fidelity, found in judged.items() if found["target"] is not None}
    if targets:
        lines += [
            "",
            "| fidelity | with the target | shared | Pearson | Spearman | learned |",
            "|---|---|---:|---:|---:|---:|",
        ]
        for fidelity, target in targets.items():
            shown = [number_text(target[key], 3) for key in ("pearson", "spearman", "learned")]
            lines.append(f"| {fidelity} | {target['target']} | {target['n']} | {' | '.join(shown)} |")
    return "\n".join(lines)


def lab_url() -> str:
    """Where the laboratory's form is reached: ACTIVELEARNING_LAB_URL, else where `activelearning lab serve` listens."""
    return os.environ.get("ACTIVELEARNING_LAB_URL", LAB_URL).rstrip("/")


def laboratory_markdown(campaign: str, requests: Sequence[Mapping[str, Any]], url: str) -> str:
    """What a campaign asks of its laboratory, each open request with a link to its page in the form."""
    waiting = [request for request in requests if request["state"] == "open"]
    lines = [
        f"# {campaign}: the laboratory",
        "",
        f"{len(waiting)} of {len(requests)} requests wait for a result. [The form]({url}/) is served by "
        f"`activelearning lab serve`.",
    ]
    if waiting:
        lines += ["", "| material | wanted |", "|---|---|"]
    for request in waiting:
        unit = f" [{request['unit']}]" if request["unit"] else ""
        material = candidate_text(request["candidate"])
        lines.append(f"| [{material}]({url}/requests/{request['key']}) | {request['property']}{unit} |")
    return "\n".join(lines)


def best_markdown(best: Mapping[str, Any]) -> str:
    """The best of a status, as the page of a round has it."""
    if "hypervolume" in best:
        return f"{value_text(best['hypervolume'])}, of {best['size']} candidates"
    return f"{value_text(best['value'], best['std'])} at {candidate_text(best['candidate'])}"
