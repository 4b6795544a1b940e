"""Pages as HTML: plain forms and tables, nothing from elsewhere, and every text that is not ours escaped."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from activelearning.report.text import candidate_text, value_text
from oracles.lab.requests import OPEN
from oracles.lab.results import MAX_FILE_BYTES, MAX_TEXT
from oracles.lab.sheet import Sheet
from oracles.units import CONDUCTIVITIES, ENERGIES

SECRET_FIELD = "form_secret"
# Marks one form, so that it is recorded once however often it is sent.
ONCE_FIELD = "once"
RESULT_FIELDS = (
    "value",
    "std",
    "unit",
    "method",
    "by",
    "cost",
    "note",
    "file",
    "kind",
    "n_seen",
    SECRET_FIELD,
)
REJECTION_FIELDS = ("reason", "by", "cost", SECRET_FIELD)
IMPORT_FIELDS = ("table", ONCE_FIELD, SECRET_FIELD)
UNREQUESTED_FIELDS = (
    *("campaign", "fidelity", "material", "value", "std", "unit", "method", "by", "cost", "note", "file"),
    ONCE_FIELD,
    SECRET_FIELD,
)
REPLICATE = "replicate"
_FILE_LIMIT = f"at most {MAX_FILE_BYTES // 2**20} MiB"


def page(title: str, *parts: str, wrong: str | None = None, done: str | None = None) -> str:
    """A whole page of HTML parts, with what went wrong, or was done, at its top."""
    said = f'<p class="wrong" role="alert">{escape(wrong)}</p>' if wrong else ""
    said += f'<p class="done" role="status">{escape(done)}</p>' if done else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="stylesheet" href="/style.css"></head><body>'
        '<nav><a href="/">Requests</a><a href="/?all=1">All results</a><a href="/unrequested">Another material</a>'
        '<a href="/import">Import a table</a><a href="/export.csv">Export</a></nav>'
        f"<main><h1>{escape(title)}</h1>{said}{''.join(parts)}</main></body></html>"
    )


def login_page(wrong: str | None = None) -> str:
    """Asks for the token."""
    return page(
        "The laboratory",
        "<p>The token is in the address that <code>activelearning lab serve</code> printed.</p>"
        '<form method="post" action="/login"><label for="token">Token</label>'
        '<input id="token" name="token" type="password" required autocomplete="off"><button>Enter</button></form>',
        wrong=wrong,
    )


def problem_page(said: str) -> str:
    """Says what was wrong with a request."""
    return page("That did not work", wrong=said)


def list_page(
    requests: Sequence[Mapping[str, Any]], places: Mapping[str, int], *, is_all: bool, done: str | None = None
) -> str:
    """Requests as a table, those to be done first at the top."""
    rows = []
    for request in sorted(requests, key=lambda r: (r["campaign"], places.get(r["key"], len(places) + 1))):
        asked = f"{request['property']} [{request['unit'] or 'no unit'}]"
        results = "; ".join(_result_text(r) for r in request["results"]) or request["state"]
        cells = (request["campaign"], str(places.get(request["key"], "")), asked, results)
        link = (
            f'<a href="/requests/{escape(request["key"])}">{escape(candidate_text(request["candidate"]))}</a>'
        )
        rows.append(f"<tr><td>{link}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("material", "campaign", "priority", "wanted", "results"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    nothing = "<p>No request waits for a result.</p>"
    return page("All requests" if is_all else "Requests", table if rows else nothing, done=done)


def request_page(
    sheet: Sheet,
    secret: str,
    *,
    typed: Mapping[str, str] | None = None,
    wrong: str | None = None,
    done: str | None = None,
) -> str:
    """A request's sheet, its results, and the forms for another one and for a rejection; `typed` fills them in."""
    request, typed = sheet.request, typed or {}
    key = escape(request["key"])
    rows = "".join(
        f"<tr><th>{escape(label)}</th><td>{escape(text)}</td></tr>" for label, text in sheet.rows()
    )
    parts = [f"<table>{rows}</table>"]
    if sheet.cif is not None:
        parts.append(f'<p><a href="/requests/{key}/material.cif">The material as CIF</a></p>')
    if request["rejection"]:
        parts.append(f"<p>Rejected: {escape(request['rejection']['reason'])}</p>")
    if request["results"]:
        parts += ["<h2>Results</h2>", _results(request)]
    if request["state"] in (OPEN, "answered"):
        parts += [
            "<h2>Record a result</h2>",
            f'<form method="post" action="/requests/{key}/results" enctype="multipart/form-data" id="record">',
            _hidden(SECRET_FIELD, secret),
            _hidden("n_seen", str(len(request["results"]))),
            _kind(request, typed),
            _result_inputs(request["unit"], typed),
            "<button>Record</button></form>",
        ]
    if request["state"] == OPEN:
        parts += [
            "<h2>Reject the request</h2>",
            f'<form method="post" action="/requests/{key}/rejection" id="reject">',
            _hidden(SECRET_FIELD, secret),
            _input("reason", "Reason", typed, required=True),
            _input("by", "By", typed, suffix="-rejection"),
            _input("cost", "Spent in trying", typed, hint="in the campaign's cost unit", suffix="-rejection"),
            "<button>Reject</button></form>",
        ]
    return page(candidate_text(request["candidate"]), *parts, wrong=wrong, done=done)


def import_page(secret: str, *, wrong: str | None = None) -> str:
    """Takes a table; what it holds of materials that nobody asked for is recorded once a page, as in the other form."""
    return page(
        "Import a table",
        '<p>A table in CSV (UTF-8), as <a href="/export.csv">Export</a> writes it, with values filled in: all of its '
        "results are recorded, or none. Rows without a value are passed over.</p>",
        '<form method="post" action="/import" enctype="multipart/form-data">',
        _hidden(SECRET_FIELD, secret),
        _hidden(ONCE_FIELD, secrets.token_hex(16)),
        '<label for="table">Table</label><input id="table" name="table" type="file" accept=".csv" required>',
        "<button>Import</button></form>",
        wrong=wrong,
    )


def unrequested_page(
    campaigns: Sequence[str],
    secret: str,
    *,
    typed: Mapping[str, str] | None = None,
    wrong: str | None = None,
) -> str:
    """Takes a result of a material that no campaign asked for; one a page, however often it is sent."""
    typed = typed or {}
    options = "".join(_option(name, typed.get("campaign") == name) for name in campaigns)
    return page(
        "Another material",
        "<p>A result for a material that nobody asked for: the campaign learns from it, free of charge.</p>",
        '<form method="post" action="/unrequested" enctype="multipart/form-data">',
        _hidden(SECRET_FIELD, secret),
        _hidden(ONCE_FIELD, secrets.token_hex(16)),
        f'<label for="campaign">Campaign</label><select id="campaign" name="campaign" required>{options}</select>',
        _input("fidelity", "Laboratory", typed, hint="the fidelity's name, where the campaign has several"),
        '<label for="material">Material</label><input id="material" name="material" type="file" required>'
        "<p><small>a CIF, or the JSON of a candidate</small></p>",
        _result_inputs(None, typed),
        "<button>Record</button></form>",
        wrong=wrong,
    )


def _results(request: Mapping[str, Any]) -> str:
    rows = []
    for result in request["results"]:
        corrected = result["corrected_by"]
        value = escape(_result_text(result))
        shown = (
            value if corrected is None else f'<span class="corrected">{value}</span> corrected by {corrected}'
        )
        files = ", ".join(f"{file['name']} (sha256 {file['sha256'][:12]}…)" for file in result["files"])
        facts = [result["method"], result["note"], result["recorded_by"], result["recorded_at"], files]
        cells = "".join(f"<td>{escape(str(fact or ''))}</td>" for fact in facts)
        rows.append(f"<tr><td>{result['number']}</td><td>{shown}</td>{cells}</tr>")
    names = ("number", "value", "method", "note", "by", "recorded", "files")
    head = "".join(f"<th>{name}</th>" for name in names)
    taken = request["taken"]
    whole = f"{value_text(taken['value'], taken['std'], taken['censoring'])} {taken['unit'] or ''}".rstrip()
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"<p>The campaign takes in {escape(whole)}.</p>"
    )


def _result_text(result: Mapping[str, Any]) -> str:
    return (
        f"{value_text(result['value'], result['std'], result['censoring'])} {result['unit'] or ''}".rstrip()
    )


def _kind(request: Mapping[str, Any], typed: Mapping[str, str]) -> str:
    """What the new result is to those that are there; a request without any has no choice."""
    valid = [result for result in request["results"] if result["corrected_by"] is None]
    if not valid:
        return ""
    choices = [("", "choose …"), (REPLICATE, "another measurement beside it")]
    choices += [(str(r["number"]), f"a correction of {r['number']}: {_result_text(r)}") for r in valid]
    options = "".join(_option(value, typed.get("kind", "") == value, text) for value, text in choices)
    return f'<label for="kind">This is</label><select id="kind" name="kind" required>{options}</select>'


def _result_inputs(unit: str | None, typed: Mapping[str, str]) -> str:
    units = [
        name for family in (CONDUCTIVITIES, ENERGIES) if unit is None or unit in family for name in family
    ]
    chosen = typed.get("unit", "")
    options = "".join(_option(name, chosen == name) for name in units or [unit or ""])
    return "".join(
        [
            _input("value", "Value", typed, hint="a number, or a bound such as <1e-10", required=True),
            _input("std", "Standard error", typed, hint="one standard deviation, in the same unit"),
            '<label for="unit">Unit</label><select id="unit" name="unit">'
            f"{_option('', not chosen, 'the campaign’s' + (f' ({unit})' if unit else ''))}{options}</select>",
            _input("method", "Method", typed),
            _input("by", "By", typed),
            _input("cost", "Cost", typed, hint="in the campaign's cost unit, where it charges by measure"),
            _input("note", "Note", typed),
            '<label for="file">File</label><input id="file" name="file" type="file">'
            f"<p><small>raw data, {_FILE_LIMIT}</small></p>",
        ]
    )


def _input(
    name: str,
    label: str,
    typed: Mapping[str, str],
    *,
    hint: str = "",
    required: bool = False,
    suffix: str = "",
) -> str:
    said = f"<p><small>{escape(hint)}</small></p>" if hint else ""
    return (
        f'<label for="{name}{suffix}">{escape(label)}</label>'
        f'<input id="{name}{suffix}" name="{name}" value="{escape(typed.get(name, ""))}" maxlength="{MAX_TEXT}" '
        f'autocomplete="off"{" required" if required else ""}>{said}'
    )


def _hidden(name: str, value: str) -> str:
    return f'<input type="hidden" name="{name}" value="{escape(value)}">'


def _option(value: str, is_chosen: bool, text: str | None = None) -> str:
    mark = " selected" if is_chosen else ""
    return f'<option value="{escape(value)}"{mark}>{escape(value if text is None else text)}</option>'
