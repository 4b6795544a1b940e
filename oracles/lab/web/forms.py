"""Reading forms as browsers send them; whatever is not exactly that is refused."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from activelearning.errors import InputError
from oracles.lab.results import Upload

_MAX_FIELDS = 40
_BOUNDARY = re.compile(
    r'multipart/form-data;\s*boundary="?([0-9A-Za-z\'()+_,./:=? -]{1,70})"?', re.IGNORECASE
)
# As browsers write it (WHATWG HTML, "multipart/form-data encoding algorithm"): quotes and line ends in names are
# percent-encoded, so that none is within the quotes.
_DISPOSITION = re.compile(r'form-data; name="([^"\r\n]*)"(?:; filename="([^"\r\n]*)")?')


class MalformedError(InputError):
    """A body that no form of this server has."""


@dataclass(frozen=True)
class Form:
    """A form's texts and files by their fields' names; an empty field is not there."""

    texts: Mapping[str, str]
    files: Mapping[str, Upload]

    def text(self, name: str) -> str | None:
        """A text, or None where nothing was written."""
        return self.texts.get(name)


def read_form(content_type: str, body: bytes, fields: Collection[str]) -> Form:
    """A form from the body of a request.

    Args:
        content_type: The header.
        body: The body.
        fields: Names of the fields that the form has.

    Raises:
        MalformedError: it is no form, or of other fields.
    """
    multipart = _BOUNDARY.fullmatch(content_type.strip())
    if multipart is not None:
        pairs = _read_multipart(body, multipart[1].encode("ascii"))
    elif content_type.split(";")[0].strip().lower() == "application/x-www-form-urlencoded":
        try:
            text = body.decode("ascii")
            found = parse_qsl(
                text,
                keep_blank_values=True,
                strict_parsing=bool(text),
                errors="strict",
                max_num_fields=_MAX_FIELDS,
            )
        except ValueError as error:
            raise MalformedError(f"The form can't be read: {error}.") from error
        pairs = [(name, value) for name, value in found]
    else:
        raise MalformedError(f"A form is sent as multipart/form-data, not as {content_type[:80]!r}.")
    names = [name for name, _ in pairs]
    wrong = sorted({name for name in names if name not in fields or names.count(name) > 1})
    if wrong:
        raise MalformedError(f"The form has a field {wrong[0][:80]!r} that is not its own, or has it twice.")
    texts = {name: value.strip() for name, value in pairs if isinstance(value, str) and value.strip()}
    # A browser sends an empty part without a name where no file was chosen.
    files = {
        name: value for name, value in pairs if isinstance(value, Upload) and (value.name or value.content)
    }
    return Form(texts, files)


def _read_multipart(body: bytes, boundary: bytes) -> list[tuple[str, str | Upload]]:
    """Parts of a body of the type multipart/form-data (RFC 7578), in order."""
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary)
    if pieces[0] or len(pieces) < 2 or pieces[-1] not in (b"--", b"--\r\n"):
        raise MalformedError("The form can't be read: its parts are not delimited as its header says.")
    if len(pieces) > _MAX_FIELDS + 2:
        raise MalformedError(f"The form has more than {_MAX_FIELDS} fields.")
    pairs: list[tuple[str, str | Upload]] = []
    for piece in pieces[1:-1]:
        head, blank, content = piece.partition(b"\r\n\r\n")
        if not head.startswith(b"\r\n") or not blank:
            raise MalformedError("The form can't be read: a part has no head.")
        pairs.append(_read_part(head[2:], content))
    return pairs


def _read_part(head: bytes, content: bytes) -> tuple[str, str | Upload]:
    try:
        lines = [line.partition(":") for line in head.decode("utf-8").split("\r\n")]
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        disposition = _DISPOSITION.fullmatch(headers.get("content-disposition", ""))
        if disposition is None:
            raise MalformedError("The form can't be read: a part does not name its field.")
        if disposition[2] is not None:
            return disposition[1], Upload(disposition[2], content)
        return disposition[1], content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"The form can't be read: {error}.") from error
