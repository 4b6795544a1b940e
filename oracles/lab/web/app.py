"""The form's addresses. Everything goes through the same functions as the commands do."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from activelearning.errors import ActiveLearningError, InputError
from activelearning.report.reading import campaign_names
from activelearning.store.database import Database
from oracles.lab.recording import record_all, reject
from oracles.lab.requests import OPEN, list_requests, read_request
from oracles.lab.results import NewResult, Unrequested, Upload, parse_number, parse_value
from oracles.lab.sheet import all_priorities, read_sheet
from oracles.lab.tables import export_table, import_table
from oracles.lab.unrequested import read_candidate
from oracles.lab.web import pages
from oracles.lab.web.forms import Form, MalformedError, read_form
from oracles.lab.web.guard import BY_COOKIE, Access, Guard, admitted, is_same

_STYLE = Path(__file__).with_name("style.css")
_UNPROCESSABLE = 422  # well formed, and wrong


def _nobody(_campaign: str) -> None:
    return


def make_app(database: Database, access: Access, on_recorded: Callable[[str], object] = _nobody) -> FastAPI:
    """The form as an ASGI application.

    Args:
        database: The store.
        access: Addresses and token.
        on_recorded: Told the campaign's name after something was recorded for it.
    """
    # No pages of FastAPI's own: they load scripts from elsewhere.
    app = FastAPI(title="activelearning lab", docs_url=None, redoc_url=None, openapi_url=None)
    _Routes(database, access, on_recorded).add_to(app)
    app.add_middleware(Guard, access=access)
    return app


class _Routes:
    """The pages of one server."""

    def __init__(self, database: Database, access: Access, on_recorded: Callable[[str], object]) -> None:
        self._database = database
        self._access = access
        self._on_recorded = on_recorded

    def add_to(self, app: FastAPI) -> None:
        for path, page in (
            ("/style.css", self.style),
            ("/", self.requests),
            ("/requests/{key}", self.request),
            ("/requests/{key}/material.cif", self.cif),
            ("/import", self.import_form),
            ("/unrequested", self.unrequested_form),
            ("/export.csv", self.export),
        ):
            app.add_api_route(path, page, methods=["GET"], response_class=HTMLResponse)
        for path, action in (
            ("/login", self.login),
            ("/requests/{key}/results", self.record),
            ("/requests/{key}/rejection", self.reject),
            ("/import", self.import_results),
            ("/unrequested", self.record_unrequested),
        ):
            app.add_api_route(path, action, methods=["POST"], response_class=HTMLResponse)
        app.add_exception_handler(MalformedError, _malformed)
        app.add_exception_handler(ActiveLearningError, _refused)
        app.add_exception_handler(HTTPException, _missing)
        app.add_exception_handler(RequestValidationError, _not_read)

    # -- reading; plain functions, which FastAPI runs in threads ---------------------------------------

    def style(self) -> Response:
        return Response(_STYLE.read_bytes(), media_type="text/css")

    def requests(self, all: bool = False, done: int = 0) -> str:
        requests = list_requests(self._database, state=None if all else OPEN)
        with self._database.read() as session:
            places = all_priorities(session, (request["campaign"] for request in requests))
        said = f"{done} results are recorded." if done > 0 else None
        return pages.list_page(requests, places, is_all=all, done=said)

    def request(self, key: str, done: str = "") -> str:
        said = {"recorded": "The result is recorded.", "rejected": "The request is rejected."}.get(done)
        return pages.request_page(read_sheet(self._database, key), self._access.form_secret, done=said)

    def cif(self, key: str) -> Response:
        sheet = read_sheet(self._database, key)
        if sheet.cif is None:
            raise InputError("This material has no CIF: it is no crystal with a lattice.")
        name = f'attachment; filename="{sheet.request["key"][:16]}.cif"'
        return Response(sheet.cif, media_type="chemical/x-cif", headers={"Content-Disposition": name})

    def import_form(self) -> str:
        return pages.import_page(self._access.form_secret)

    def unrequested_form(self) -> str:
        return pages.unrequested_page(self._campaigns(), self._access.form_secret)

    def export(self, all: bool = False) -> Response:
        name = 'attachment; filename="lab.csv"'
        text = export_table(self._database, all=all)
        return Response(text, media_type="text/csv", headers={"Content-Disposition": name})

    def _campaigns(self) -> list[str]:
        with self._database.read() as session:
            return campaign_names(session)

    # -- writing ---------------------------------------

    async def _form(self, request: Request, fields: Collection[str]) -> Form:
        form = read_form(request.headers.get("content-type", ""), await request.body(), fields)
        secret = form.text(pages.SECRET_FIELD)
        if request.scope.get(BY_COOKIE) and not is_same(secret, self._access.form_secret):
            raise HTTPException(
                403, "This form is not one of this server's, or an old one; load the page again."
            )
        return form

    async def login(self, request: Request) -> Response:
        form = read_form(request.headers.get("content-type", ""), await request.body(), ("token",))
        if not is_same(form.text("token"), self._access.token):
            return HTMLResponse(pages.login_page("That token is not the right one."), 401)
        return admitted(self._access, "/")

    async def record(self, request: Request, key: str) -> Response:
        form = await self._form(request, pages.RESULT_FIELDS)
        return await run_in_threadpool(self._record, key, form)

    def _record(self, key: str, form: Form) -> Response:
        whole = read_request(self._database, key)["key"]
        try:
            self._keep(_new_result(whole, form))
        except InputError as error:
            sheet = read_sheet(self._database, whole)
            typed = {name: text for name, text in form.texts.items() if name != pages.SECRET_FIELD}
            body = pages.request_page(sheet, self._access.form_secret, typed=typed, wrong=str(error))
            return HTMLResponse(body, _UNPROCESSABLE)
        return RedirectResponse(f"/requests/{quote(whole)}?done=recorded", 303)

    async def reject(self, request: Request, key: str) -> Response:
        form = await self._form(request, pages.REJECTION_FIELDS)
        return await run_in_threadpool(self._reject, key, form)

    def _reject(self, key: str, form: Form) -> Response:
        whole = read_request(self._database, key)["key"]
        try:
            cost = form.text("cost")
            rejected = reject(
                self._database,
                whole,
                reason=form.text("reason") or "",
                by=form.text("by"),
                cost=None if cost is None else parse_number(cost, "The cost"),
            )
        except InputError as error:
            sheet = read_sheet(self._database, whole)
            body = pages.request_page(
                sheet, self._access.form_secret, typed=dict(form.texts), wrong=str(error)
            )
            return HTMLResponse(body, _UNPROCESSABLE)
        self._on_recorded(rejected["campaign"])
        return RedirectResponse(f"/requests/{quote(whole)}?done=rejected", 303)

    async def import_results(self, request: Request) -> Response:
        form = await self._form(request, pages.IMPORT_FIELDS)
        return await run_in_threadpool(self._import, form)

    def _import(self, form: Form) -> Response:
        try:
            table = form.files.get("table")
            if table is None:
                raise InputError("No table was chosen.")
            text = table.content.decode("utf-8")
            keys = import_table(self._database, text, _no_file, once=form.text(pages.ONCE_FIELD))
        except (InputError, UnicodeDecodeError) as error:
            said = (
                str(error)
                if isinstance(error, InputError)
                else f"The table is not encoded in UTF-8: {error}."
            )
            return HTMLResponse(pages.import_page(self._access.form_secret, wrong=said), _UNPROCESSABLE)
        for name in {read_request(self._database, key)["campaign"] for key in keys}:
            self._on_recorded(name)
        return RedirectResponse(f"/?all=1&done={len(keys)}", 303)

    async def record_unrequested(self, request: Request) -> Response:
        form = await self._form(request, pages.UNREQUESTED_FIELDS)
        return await run_in_threadpool(self._record_unrequested, form)

    def _record_unrequested(self, form: Form) -> Response:
        try:
            material = form.files.get("material")
            if material is None:
                raise InputError("The material is missing: choose a CIF, or the JSON of a candidate.")
            candidate = read_candidate(material.name, material.content)
            of = Unrequested(
                candidate, form.text("campaign") or "", form.text("fidelity"), form.text(pages.ONCE_FIELD)
            )
            key = self._keep(_new_result(of, form))
        except InputError as error:
            body = pages.unrequested_page(
                self._campaigns(), self._access.form_secret, typed=dict(form.texts), wrong=str(error)
            )
            return HTMLResponse(body, _UNPROCESSABLE)
        return RedirectResponse(f"/requests/{quote(key)}?done=recorded", 303)

    def _keep(self, result: NewResult) -> str:
        (key,) = record_all(self._database, [result])
        self._on_recorded(read_request(self._database, key)["campaign"])
        return key


def _new_result(of: str | Unrequested, form: Form) -> NewResult:
    value, censoring = parse_value(form.text("value") or "")
    std, cost, kind, seen = (form.text(name) for name in ("std", "cost", "kind", "n_seen"))
    for what, text in (("number", kind if kind != pages.REPLICATE else None), ("number", seen)):
        if text is not None and not text.isdecimal():
            raise MalformedError(f"The form names {text[:80]!r} where it has a {what} of results.")
    file = form.files.get("file")
    return NewResult(
        of=of,
        value=value,
        censoring=censoring,
        std=None if std is None else parse_number(std, "The standard error"),
        unit=form.text("unit"),
        corrects=int(kind) if kind is not None and kind != pages.REPLICATE else None,
        is_replicate=kind == pages.REPLICATE,
        method=form.text("method"),
        by=form.text("by"),
        cost=None if cost is None else parse_number(cost, "The cost"),
        note=form.text("note"),
        files=() if file is None else (file,),
        n_seen=None if seen is None else int(seen),
    )


def _no_file(name: str) -> Upload:
    raise InputError(
        f"the file {name!r} can't come with a table in the browser; use `activelearning lab import`, or its own form"
    )


async def _malformed(_request: Request, error: Exception) -> Response:
    return HTMLResponse(pages.problem_page(str(error)), 400)


async def _refused(_request: Request, error: Exception) -> Response:
    return HTMLResponse(pages.problem_page(str(error)), 404 if isinstance(error, InputError) else 500)


async def _missing(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = "There is no such page." if error.status_code == 404 else str(error.detail)
    return HTMLResponse(pages.problem_page(said), error.status_code)


async def _not_read(_request: Request, _error: Exception) -> Response:
    return HTMLResponse(pages.problem_page("The address has a part that can't be read."), 400)
