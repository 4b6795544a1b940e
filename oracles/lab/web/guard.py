"""Who may come in: every request passes here before any page sees it.

A browser shows the token once, in the address that `activelearning lab serve` prints or in the login form, and is given
a cookie that other sites can't use (`SameSite=Strict`) and scripts can't read. What changes anything must come from a
page of this server: its `Origin` is compared, and each form bears a secret. A program sends the token as
`Authorization: Bearer`, which no page of another origin can do without being asked. A `Host` that is not this
server's is refused, so that no foreign name can be pointed at the loopback (DNS rebinding). Bodies are read up to a
limit before they are looked at.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oracles.lab.results import MAX_FILE_BYTES
from oracles.lab.web.pages import login_page, problem_page

# A file, and what is written beside it.
MAX_BODY = MAX_FILE_BYTES + 512 * 1024
OPEN_PATHS = ("/style.css", "/login")
BY_COOKIE = "lab.by_cookie"
_SAFE_METHODS = ("GET", "HEAD")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`, with which browsers call the origin of a form `null`.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """The server's addresses and secrets.

    Attributes:
        origins: Under what people reach it, as `http://127.0.0.1:8765`; nothing after the port.
        token: What must be known.
    """

    origins: tuple[str, ...]
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def hosts(self) -> frozenset[str]:
        """The `Host` headers that mean this server."""
        return frozenset(urlsplit(origin).netloc for origin in self.origins)

    @property
    def cookie(self) -> str:
        """The cookie's name, by this server's addresses: browsers send cookies to every port of a host."""
        return f"activelearning_lab_{sha256(' '.join(self.origins).encode()).hexdigest()[:8]}"

    @property
    def session(self) -> str:
        """What the cookie holds."""
        return self._derived("session")

    @property
    def form_secret(self) -> str:
        """What every form holds."""
        return self._derived("form")

    def _derived(self, purpose: str) -> str:
        return hmac.new(self.token.encode(), purpose.encode(), "sha256").hexdigest()


def is_same(given: str | None, secret: str) -> bool:
    """Compare in a time that does not tell how much is right."""
    return given is not None and secrets.compare_digest(given.encode(), secret.encode())


class Guard:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at once, or let the request through with its whole body."""
        if scope["type"] != "http":  # there are no sockets to talk on
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
            return
        body = b"" if scope["method"] in _SAFE_METHODS else await _body(Headers(scope=scope), receive)
        if body is None:
            limit = f"{MAX_BODY / 2**20:.1f} MiB"
            answer = _problem(
                413, f"What was sent is larger than {limit}, or breaks off; nothing was recorded."
            )
            await answer(scope, receive, send_with_headers)
            return
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return {"type": "http.disconnect"}
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, path = Headers(scope=scope), scope["path"]
        if headers.getlist("host") not in ([host] for host in self.access.hosts):
            return _problem(421, "This server is not known by that name.")
        if scope["method"] not in (*_SAFE_METHODS, "POST"):
            return _problem(405, "Pages are read (GET) and forms are sent (POST).")
        bearer = headers.get("authorization", "")
        if bearer:
            kind, _, token = bearer.partition(" ")
            if kind.lower() != "bearer" or not is_same(token.strip(), self.access.token):
                return _problem(401, "The token is not the one that `activelearning lab serve` printed.")
            return None
        if scope["method"] == "POST" and headers.getlist("origin") not in (
            [origin] for origin in self.access.origins
        ):
            return _problem(403, "This form was sent from another site; nothing was changed.")
        if path in OPEN_PATHS:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"))
        given = [value for name, value in query if name == "token"]
        if given and scope["method"] in _SAFE_METHODS:
            if not is_same(given[0], self.access.token):
                return HTMLResponse(login_page("That token is not the right one."), 401)
            # On to the same page without the token, which then stays in no history and no link.
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            return admitted(self.access, f"/{path.lstrip('/')}" + (f"?{rest}" if rest else ""))
        if not is_same(_cookie(self.access.cookie, headers.getlist("cookie")), self.access.session):
            return HTMLResponse(login_page(), 401)
        scope[BY_COOKIE] = True
        return None


def admitted(access: Access, path: str) -> Response:
    """Send a browser that has shown the token on to a page, with its cookie."""
    answer = RedirectResponse(path, 303)
    answer.set_cookie(
        access.cookie,
        access.session,
        httponly=True,
        samesite="strict",
        secure=all(origin.startswith("https:") for origin in access.origins),
    )
    return answer


def _problem(status: int, said: str) -> Response:
    return HTMLResponse(problem_page(said), status)


def _cookie(name: str, headers: Iterable[str]) -> str | None:
    """A cookie among those of this host, whose other services, on other ports, write what they like into theirs."""
    for header in headers:
        found = cookie_parser(header).get(name)
        if found is not None:
            return found
    return None


async def _body(headers: Headers, receive: Receive) -> bytes | None:
    """The whole body; None where it is too large or breaks off."""
    stated = headers.get("content-length", "0")
    if not stated.isdecimal() or int(stated) > MAX_BODY:
        return None
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > MAX_BODY:
            return None
        if not message.get("more_body", False):
            return b"".join(chunks)
