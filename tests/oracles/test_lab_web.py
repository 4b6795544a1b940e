"""The laboratory's form: what it records, and who and what it turns away."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lab_cases import CRYSTAL, KEYS, empty_store, laboratory
from starlette.testclient import TestClient

from activelearning.store.database import Database
from activelearning.store.repository import Repository
from oracles.lab import list_requests, read_request, record
from oracles.lab.results import MAX_FILE_BYTES
from oracles.lab.web import Access, make_app
from oracles.lab.web.forms import MalformedError, read_form
from oracles.lab.web.guard import MAX_BODY

ORIGIN = "http://127.0.0.1:8765"
TOKEN = "t" * 43
CAMPAIGN: dict[str, Any] = {
    "name": "search",
    "space": {"type": "crystal", "elements": ["Li", "Cl"]},
    "objective": {"property": "log10_conductivity", "unit": "log10(S/cm)"},
    "fidelities": [{"name": "lab", "oracle": "lab", "cost": 1000, "target": True}],
    "budget": {"total": 5000},
}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with empty_store(tmp_path) as opened:
        Repository(opened, "search").save(CAMPAIGN, str(tmp_path), str(tmp_path / "artifacts"))
        lab = laboratory(opened, tmp_path / "artifacts" / "lab")
        for key in KEYS[:2]:
            lab.submit(CRYSTAL, key)
        yield opened


@pytest.fixture
def woken() -> list[str]:
    return []


@pytest.fixture
def access() -> Access:
    return Access((ORIGIN, "http://localhost:8765"), TOKEN)


@pytest.fixture
def stranger(database: Database, access: Access, woken: list[str]) -> TestClient:
    """A client that knows the address alone."""
    return TestClient(make_app(database, access, woken.append), base_url=ORIGIN, follow_redirects=False)


@pytest.fixture
def client(stranger: TestClient) -> TestClient:
    """A browser that has opened the printed address."""
    answer = stranger.get("/", params={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    stranger.headers["origin"] = ORIGIN
    return stranger


def hidden_fields(client: TestClient, path: str) -> dict[str, str]:
    """What a new form sends by itself."""
    return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', client.get(path).text))


def fields(client: TestClient, key: str = KEYS[0], **more: str) -> dict[str, tuple[None, str]]:
    """The fields of a request's form, its hidden ones from the page, as multipart."""
    hidden = hidden_fields(client, f"/requests/{key}")
    return {name: (None, text) for name, text in {**hidden, **more}.items()}


def everything(database: Database) -> Any:
    return list_requests(database, state=None)


def test_a_result_is_recorded_with_its_file(
    client: TestClient, database: Database, woken: list[str], tmp_path: Path
) -> None:
    page = client.get("/")
    assert f"/requests/{KEYS[0]}" in page.text
    assert "Fm-3m" in client.get(f"/requests/{KEYS[0]}").text
    assert "_cell_length_a 5.1400" in client.get(f"/requests/{KEYS[0]}/material.cif").text
    data = bytes(range(256)) * 3 + b"\r\n--not a boundary\r\n"
    sent = fields(client, value="1.2", std="0.1", unit="mS/cm", method="impedance", by="a <b>chemist</b>")
    answer = client.post(
        f"/requests/{KEYS[0]}/results", files={**sent, "file": ("../arc plot.mpt", data, "text/plain")}
    )
    assert answer.status_code == 303, answer.text
    (result,) = read_request(database, KEYS[0])["results"]
    assert (result["value"], result["std"], result["unit"]) == (1.2, 0.1, "mS/cm")
    (file,) = result["files"]
    assert file["sha256"] == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "artifacts" / file["path"]).read_bytes() == data
    assert woken == ["search"]
    page = client.get(answer.headers["location"])
    assert "The result is recorded" in page.text
    # What people write is text, never HTML.
    assert "a &lt;b&gt;chemist&lt;/b&gt;" in page.text
    assert "<b>" not in page.text


def test_corrections_replicates_and_rejections(
    client: TestClient, database: Database, woken: list[str]
) -> None:
    path = f"/requests/{KEYS[0]}/results"
    assert client.post(path, files=fields(client, value="<1e-10", unit="S/cm")).status_code == 303
    stale = fields(client, value="-9.5", kind="1")
    assert client.post(path, files=stale).status_code == 303
    # The same form once more, as by the browser's back button: it was decided on what is no longer so.
    answer = client.post(path, files=stale)
    assert answer.status_code == 422
    assert "were seen" in answer.text
    assert client.post(path, files=fields(client, value="-9.4", kind="replicate")).status_code == 303
    results = read_request(database, KEYS[0])["results"]
    assert [(r["censoring"], r["corrects"], r["corrected_by"]) for r in results] == [
        ("upper", None, 2),
        ("none", 1, None),
        ("none", None, None),
    ]
    answer = client.post(path, files=fields(client, value="-9.4"))
    assert (answer.status_code, "has a result already" in answer.text) == (422, True)
    rejection = fields(client, KEYS[1], reason="explosive", by="me")
    del rejection["n_seen"]
    assert client.post(f"/requests/{KEYS[1]}/rejection", files=rejection).status_code == 303
    assert read_request(database, KEYS[1])["rejection"]["reason"] == "explosive"
    assert woken == ["search"] * 4


def test_a_wrong_result_is_told_and_what_was_typed_stays(client: TestClient, database: Database) -> None:
    before = everything(database)
    for wrong, said in (
        ({"value": "about 3"}, "is no measured value"),
        ({"value": "1", "unit": "eV"}, "can&#x27;t be converted"),
        ({"value": "3.2e-4"}, "without a unit"),
        ({"value": "-3", "std": "-1"}, "not negative"),
        ({"value": "-3", "std": "nan"}, "is a finite number"),
        ({"value": "-3", "cost": "much"}, "is a finite number"),
        ({"value": "-3", "note": "x" * 3000}, "has 3000 characters"),
        ({"value": "-3", "kind": "7"}, "has no result number 7"),
        ({"value": "-3", "kind": "first"}, "has a number of results"),
    ):
        answer = client.post(
            f"/requests/{KEYS[0]}/results", files=fields(client, method='by "hand"', **wrong)
        )
        assert answer.status_code == 422, answer.text
        assert said in answer.text
        assert 'value="by &quot;hand&quot;"' in answer.text
    assert everything(database) == before


def test_a_table_is_taken_whole_or_not(client: TestClient, database: Database) -> None:
    head, *rows = client.get("/export.csv").text.splitlines()
    assert {"key", "value", "unit"} < set(head.split(","))
    assert [row.split(",")[0] for row in rows] == KEYS[:2]
    before = everything(database)

    def send(text: str) -> Any:
        secret = fields(client)["form_secret"]
        return client.post("/import", files={"form_secret": secret, "table": ("lab.csv", text.encode())})

    answer = send(f"key,value\n{KEYS[0]},-3\nzz,-4\n{KEYS[1]},so so\n")
    assert answer.status_code == 422
    assert "2 of 3 rows" in answer.text
    assert "line 3" in answer.text
    assert "line 4" in answer.text
    assert everything(database) == before
    answer = send(f"key,value,unit\n{KEYS[0]},3e-4,S/cm\n{KEYS[1]},<1e-10,S/cm\n")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?all=1&done=2")
    assert {r["state"] for r in everything(database)} == {"answered"}


def test_a_material_that_nobody_asked_for(client: TestClient, database: Database) -> None:
    from pymatgen.core import Lattice, Structure

    salt = Structure.from_spacegroup(225, Lattice.cubic(5.2), ["Li", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    cif = salt.get_primitive_structure().to(fmt="cif").encode()
    sent = {
        "form_secret": fields(client)["form_secret"],
        "campaign": (None, "search"),
        "value": (None, "-8"),
        "unit": (None, "log10(S/cm)"),
    }
    answer = client.post("/unrequested", files={**sent, "material": ("salt.cif", b"data_nothing")})
    assert (answer.status_code, "can&#x27;t be read as a CIF" in answer.text) == (422, True)
    answer = client.post("/unrequested", files={**sent, "material": ("salt.cif", cif)})
    assert answer.status_code == 303, answer.text
    request = read_request(database, answer.headers["location"].split("/")[2].split("?")[0])
    assert (request["origin"], request["state"]) == ("person", "answered")
    assert request["candidate"]["composition"] == {"Cl": 4, "Li": 4}
    assert request["candidate"]["space_group"] == 225
    assert request["candidate"]["lattice"] == [5.2, 5.2, 5.2, 90.0, 90.0, 90.0]


SALT = json.dumps(CRYSTAL.to_dict() | {"lattice": [5.3, 5.3, 5.3, 90.0, 90.0, 90.0]}).encode()


def unrequested(client: TestClient, **more: str) -> dict[str, Any]:
    """The fields of a new form for a material that nobody asked for."""
    texts = {**hidden_fields(client, "/unrequested"), "campaign": "search", "value": "-8", **more}
    return {name: (None, text) for name, text in texts.items()} | {"material": ("salt.json", SALT)}


def test_a_form_sent_twice_is_recorded_once(client: TestClient, database: Database, tmp_path: Path) -> None:
    sent = unrequested(client, by="me") | {"file": ("arc.mpt", b"1 2 3")}
    with ThreadPoolExecutor(4) as pool:  # as by a double click
        answers = list(pool.map(lambda _: client.post("/unrequested", files=sent), range(4)))
    assert [answer.status_code for answer in answers] == [303] * 4
    (address,) = {answer.headers["location"] for answer in answers}
    assert "The result is recorded" in client.get(address).text
    (request,) = [r for r in everything(database) if r["origin"] == "person"]
    (result,) = request["results"]
    assert [file["name"] for file in result["files"]] == ["arc.mpt"]
    # It stays so when the result was corrected in the meantime.
    record(database, request["key"], -7.5, corrects=1)
    assert client.post("/unrequested", files=sent).headers["location"] == address
    assert len(read_request(database, request["key"])["results"]) == 2


def test_a_table_sent_twice_is_recorded_once(client: TestClient, database: Database) -> None:
    material = '"' + SALT.decode().replace('"', '""') + '"'
    text = f"candidate,campaign,value\n{material},search,-8\n{material},search,-8\n"  # measured twice
    before = len(everything(database))
    for n_more in (2, 4):
        hidden = {name: (None, text) for name, text in hidden_fields(client, "/import").items()}
        for _ in range(2):
            answer = client.post("/import", files={**hidden, "table": ("lab.csv", text.encode())})
            assert (answer.status_code, answer.headers["location"]) == (303, "/?all=1&done=2")
        assert len(everything(database)) == before + n_more


def test_a_form_sent_twice_with_another_content_is_refused(client: TestClient, database: Database) -> None:
    sent = unrequested(client)
    assert client.post("/unrequested", files=sent).status_code == 303
    before = everything(database)
    for other in (
        {"value": (None, "-7")},
        {"value": (None, "<-8")},
        {"value": (None, "1e-8"), "unit": (None, "S/cm")},
        {"std": (None, "0.1")},
        {"method": (None, "impedance")},
        {"file": ("arc.mpt", b"1")},
    ):
        answer = client.post("/unrequested", files={**sent, **other})
        assert answer.status_code == 422
        assert "was recorded before, under the key" in answer.text
    assert everything(database) == before
    # The same material in a form of its own is another sample.
    assert client.post("/unrequested", files=unrequested(client)).status_code == 303
    assert len(everything(database)) == len(before) + 1


@pytest.mark.parametrize(
    "path", ["/", f"/requests/{KEYS[0]}", f"/requests/{KEYS[0]}/material.cif", "/export.csv", "/import"]
)
def test_nothing_is_shown_without_the_token(stranger: TestClient, access: Access, path: str) -> None:
    for headers in (
        {},
        {"cookie": f"{access.cookie}={TOKEN}"},
        {"cookie": f"{access.cookie}={'0' * 64}"},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Bearer Bär".encode("latin-1").decode("latin-1")},
    ):
        answer = stranger.get(path, headers={k: v.encode("latin-1") for k, v in headers.items()})
        assert answer.status_code == 401
        assert "LiCl" not in answer.text
        assert KEYS[0] not in answer.text
    assert stranger.get(path, params={"token": "wrong"}).status_code == 401
    assert stranger.get(path, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_the_cookie_is_no_use_to_scripts_and_other_sites(stranger: TestClient) -> None:
    answer = stranger.get("/requests/aa", params={"token": TOKEN, "done": "recorded"})
    assert answer.headers["location"] == "/requests/aa?done=recorded"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    page = stranger.get("/requests/aa")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["cache-control"] == "no-store"
    # Nothing is loaded from elsewhere, and nothing is run.
    assert re.findall(r'(?:src|href|action)="(?!/)[^"]*"', page.text) == []
    assert "<script" not in page.text


@pytest.mark.parametrize("other", ['a={"x":1}', "b=[1, 2]", "no equals sign", "=", 'c="', 'd="é"; @:=1', ""])
def test_cookies_of_other_services_lock_nobody_out(stranger: TestClient, access: Access, other: str) -> None:
    ours = f"{access.cookie}={access.session}"
    for cookies in (f"{other}; {ours}", f"{ours}; {other}"):
        assert stranger.get("/", headers={"cookie": cookies.encode("latin-1")}).status_code == 200
    theirs = f"{other}; {access.cookie}={'0' * 64}"
    assert stranger.get("/", headers={"cookie": theirs.encode("latin-1")}).status_code == 401


def test_a_browser_is_logged_in_at_two_servers_of_one_host(stranger: TestClient, access: Access) -> None:
    other = Access(("http://127.0.0.1:8766", "http://localhost:8766"), "another token")
    assert other.cookie != access.cookie == Access(access.origins, "that of its next start").cookie
    both = f"{other.cookie}={other.session}; {access.cookie}={access.session}"
    assert stranger.get("/", headers={"cookie": both}).status_code == 200
    theirs = f"{other.cookie}={other.session}"
    assert stranger.get("/", headers={"cookie": theirs}).status_code == 401


def test_the_login_form_takes_the_token(stranger: TestClient) -> None:
    wrong = stranger.post("/login", data={"token": "wrong"}, headers={"origin": ORIGIN})
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    foreign = stranger.post("/login", data={"token": TOKEN}, headers={"origin": "http://evil.example"})
    assert (foreign.status_code, "set-cookie" in foreign.headers) == (403, False)
    assert stranger.post("/login", data={"token": TOKEN}, headers={"origin": ORIGIN}).status_code == 303
    assert stranger.get("/").status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:4200", "https://127.0.0.1:8765", None]
)
def test_a_form_from_another_site_changes_nothing(
    client: TestClient, database: Database, woken: list[str], origin: str | None
) -> None:
    before = everything(database)
    sent = fields(client, value="-3")
    del client.headers["origin"]
    answer = client.post(
        f"/requests/{KEYS[0]}/results", files=sent, headers={} if origin is None else {"origin": origin}
    )
    assert answer.status_code == 403
    assert (everything(database), woken) == (before, [])


def test_a_form_without_the_secret_changes_nothing(client: TestClient, database: Database) -> None:
    before = everything(database)
    for secret in ({}, {"form_secret": (None, "0" * 64)}):
        sent = {name: text for name, text in fields(client, value="-3").items() if name != "form_secret"}
        answer = client.post(f"/requests/{KEYS[0]}/results", files={**sent, **secret})
        assert answer.status_code == 403
    assert everything(database) == before


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1:9", ""])
def test_another_name_for_the_loopback_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 421


def test_programs_send_the_token_in_a_header(stranger: TestClient, database: Database) -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    answer = stranger.post(f"/requests/{KEYS[0]}/results", data={"value": "-3.5"}, headers=bearer)
    assert answer.status_code == 303, answer.text
    assert read_request(database, KEYS[0])["taken"]["value"] == -3.5


def test_what_is_too_large_changes_nothing(client: TestClient, database: Database, tmp_path: Path) -> None:
    before = everything(database)
    sent = fields(client, value="-3")
    path = f"/requests/{KEYS[0]}/results"
    over = {**sent, "file": ("big", b"0" * (MAX_FILE_BYTES + 1))}
    assert client.post(path, files=over).status_code == 422
    far = {**sent, "file": ("big", b"0" * MAX_BODY)}
    assert client.post(path, files=far).status_code == 413
    # Without a stated length, too: what comes is counted.
    chunks = (b"0" * 2**20 for _ in range(MAX_BODY // 2**20 + 2))
    assert client.post(path, content=chunks, headers={"content-type": "text/plain"}).status_code == 413
    assert client.post(path, content=b"", headers={"content-length": "-5"}).status_code == 413
    assert everything(database) == before
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"value": -3}'),
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="value"\r\n\r\n-3'),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\n-3\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nno head\r\n--b--\r\n"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="value"\r\n\r\n\xff\r\n--b--\r\n',
        ),
        ("application/x-www-form-urlencoded", b"value=-3&value=-4"),
        ("application/x-www-form-urlencoded", b"value=-3&colour=red"),
        ("application/x-www-form-urlencoded", b"value"),
        ("application/x-www-form-urlencoded", b"value=%ff"),
        ("application/x-www-form-urlencoded", b"\xff=1"),
        ("application/x-www-form-urlencoded", b"&".join(b"a%d=1" % i for i in range(100))),
    ],
)
def test_what_is_no_form_of_ours_changes_nothing(
    stranger: TestClient, database: Database, content_type: str, body: bytes
) -> None:
    before = everything(database)
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": content_type}
    answer = stranger.post(f"/requests/{KEYS[0]}/results", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert everything(database) == before


def test_other_methods_and_addresses(client: TestClient, database: Database) -> None:
    assert client.put(f"/requests/{KEYS[0]}/results").status_code == 405
    assert client.delete(f"/requests/{KEYS[0]}").status_code == 405
    assert client.get("/docs").status_code == 404
    assert client.get("/openapi.json").status_code == 404
    assert client.get("/requests/zz").status_code == 404
    assert client.get("/", params={"done": "x"}).status_code == 400
    record(database, KEYS[0], -3.0)
    assert client.get("/?all=1").status_code == 200


def test_multipart_as_browsers_write_it() -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\nline 1\r\nline 2 \xc2\xb5\r\n'
        b'--x\r\nContent-Disposition: form-data; name="by"\r\n\r\n\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a%22b.mpt"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\x00\r\n--y\r\n\r\n--x--\r\n"
    )
    form = read_form("multipart/form-data; boundary=x", body, ("note", "by", "file"))
    assert form.texts == {"note": "line 1\r\nline 2 µ"}
    assert (form.files["file"].name, form.files["file"].content) == ("a%22b.mpt", b"\x00\r\n--y\r\n")
    with pytest.raises(MalformedError, match="has a field 'file' that is not its own"):
        read_form("multipart/form-data; boundary=x", body, ("note", "by"))
