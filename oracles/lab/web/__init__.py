"""The laboratory's form in the browser: the same as the commands, behind a token, without a line of JavaScript."""

from oracles.lab.web.app import make_app
from oracles.lab.web.guard import Access

__all__ = ["Access", "make_app"]
