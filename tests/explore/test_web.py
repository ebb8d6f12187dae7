"""The web shell: who is let in, what is answered, and that nothing else is."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from served_page import Served, served

pytest.importorskip("uvicorn")


@pytest.fixture(scope="module")
def page() -> Iterator[Served]:
    with served() as one:
        one.session.wait(judged=True)
        yield one


def origin(page: Served) -> dict[str, str]:
    return {
        "Cookie": page.cookie,
        "Origin": f"http://127.0.0.1:{page.port}",
        "Content_Type": "application/json",
    }


def test_the_link_sets_a_cookie_and_leads_to_an_address_without_the_token(page: Served) -> None:
    path = page.link.partition(str(page.port))[2]
    response, _ = page.ask("GET", path)
    assert response.status == 303 and response.getheader("Location") == "/"
    cookie = str(response.getheader("Set-Cookie"))
    assert page.cookie in cookie and "HttpOnly" in cookie and "SameSite=strict" in cookie
    response, content = page.ask("GET", "/", Cookie=page.cookie)
    assert response.status == 200 and b"Plan by wish" in content
    assert "default-src 'none'" in str(response.getheader("Content-Security-Policy"))
    assert "unsafe-eval" not in str(response.getheader("Content-Security-Policy"))


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {}),
        ("/state", {}),
        ("/state?token=wrong", {}),
        ("/?token=wrong", {}),
        ("/state", {"Cookie": "vmat_explore_{port}=wrong"}),
        ("/state", {"Cookie": "{cookie}", "Host": "evil.example:{port}"}),
        ("/state", {"Cookie": "{cookie}", "Host": "127.0.0.1:1"}),
        ("/state", {"Cookie": "{cookie}", "Origin": "http://evil.example"}),
        ("/state", {"Cookie": "{cookie}", "Origin": "null"}),
        ("/plans/1/export", {"Cookie": "{cookie}", "Origin": "http://127.0.0.1:1"}),
    ],
)
def test_others_are_refused(page: Served, path: str, headers: dict[str, str]) -> None:
    filled = {name: value.format(port=page.port, cookie=page.cookie) for name, value in headers.items()}
    response, content = page.ask("GET", path, **filled)
    assert response.status == 403 and b"phantom" not in content


@pytest.mark.parametrize("missing", ["Cookie", "Origin", "Content_Type"])
def test_an_action_needs_cookie_origin_and_json(page: Served, missing: str) -> None:
    headers = {name: value for name, value in origin(page).items() if name != missing}
    response, _ = page.ask("POST", "/act/pin", '{"plan": 1}', **headers)
    assert response.status == 403 and page.session.pinned == []


@pytest.mark.parametrize(
    "path", ["/../serve.py", "/%2e%2e/session.py", "/page.py", "/static/main.js", "/etc/passwd", "/plans/1/slices/../1"]
)
def test_no_other_file_is_served(page: Served, path: str) -> None:
    response, content = page.ask("GET", path, Cookie=page.cookie)
    assert response.status in (400, 404) and b"root:" not in content


@pytest.mark.parametrize(
    ("action", "body", "message"),
    [
        ("change", '{"settings": {"wishes": {"Rectum": 1e9}}}', "Rectum is 1000000000.0"),
        ("change", '{"settings": {"run": "/etc/passwd"}}', "setting run"),
        ("change", '{"settings": 3}', "expected an object"),
        ("change", "not JSON", "Expecting value"),
        ("change", '{"settings": {"planner": "os.system"}}', "os.system"),
        ("choose", '{"plan": 77}', "plan 77"),
        ("choose", '{"plan": "1"}', "expected a number"),
        ("pin", "{}", "expected a number"),
        ("undo", "{}", "no earlier step"),
        ("change", " " * 20_000, "more than 10000 bytes"),
    ],
)
def test_wrong_actions_are_answered_in_one_line(page: Served, action: str, body: str, message: str) -> None:
    response, content = page.ask("POST", f"/act/{action}", body, **origin(page))
    assert response.status == 400
    assert message in json.loads(content)["error"] and "\n" not in json.loads(content)["error"]
    assert page.ask("POST", "/act/shell", "{}", **origin(page))[0].status == 404


@pytest.mark.parametrize("path", ["/plans/9", "/plans/1/slices/axial/999", "/plans/1/slices/oblique/1", "/plans/9/dvh"])
def test_what_does_not_exist_is_said(page: Served, path: str) -> None:
    response, content = page.ask("GET", path, Cookie=page.cookie)
    assert response.status == 400 and json.loads(content)["error"]


@pytest.mark.parametrize("path", ["/plans/0/dvh", "/plans/0/slices/axial/1"])
def test_a_preview_that_is_gone_is_no_error(page: Served, path: str) -> None:
    response, content = page.ask("GET", path, Cookie=page.cookie)
    assert response.status == 200 and json.loads(content)["svg"] is None


def test_drawings_are_those_of_the_report(page: Served) -> None:
    _, content = page.ask("GET", "/page", Cookie=page.cookie)
    facts = json.loads(content)
    assert [plane["plane"] for plane in facts["planes"]] == ["axial", "coronal", "sagittal"]
    assert facts["protocol_goals"]["PTV"] == ["D99 % ≥ 54.00 Gy", "D2 % ≤ 64.20 Gy"]
    middle = facts["planes"][0]["central"]
    _, content = page.ask("GET", f"/plans/1/slices/axial/{middle}", Cookie=page.cookie)
    svg = json.loads(content)["svg"]
    assert svg.count("<image") == 2 and 'class="isodose"' in svg and "target" in svg
    _, content = page.ask("GET", "/plans/1/dvh?other=1", Cookie=page.cookie)
    both = json.loads(content)["svg"]
    _, content = page.ask("GET", "/plans/1/dvh", Cookie=page.cookie)
    assert "Dose (Gy)" in both and both.count("stroke-dasharray") > json.loads(content)["svg"].count("stroke-dasharray")
    _, content = page.ask("GET", "/plans/1/apertures", Cookie=page.cookie)
    frames = json.loads(content)["frames"]
    assert len(frames) == 12 and 'class="leaves"' in frames[0]


def test_nothing_is_written_before_the_export(page: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    response, content = page.ask("GET", "/plans/1/export", Cookie=page.cookie)
    assert response.status == 200 and "attachment" in str(response.getheader("Content-Disposition"))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {"RTPLAN.dcm", "RTDOSE.dcm", "report.html", "plan.safetensors"} <= set(archive.namelist())
    assert list(tmp_path.iterdir()) == []


def test_events_tell_the_state_to_every_page(page: Served) -> None:
    readers = []
    for _ in range(2):
        connection = HTTPConnection("127.0.0.1", page.port, timeout=60)
        connection.request("GET", "/events", headers={"Cookie": page.cookie})
        reader = connection.getresponse()
        assert json.loads(reader.readline().removeprefix(b"data: "))["pinned"] == []
        readers.append((connection, reader))
    page.ask("POST", "/act/pin", '{"plan": 1}', **origin(page))
    for connection, reader in readers:
        lines = (reader.readline() for _ in range(20))
        assert any(json.loads(line[6:])["pinned"] == [1] for line in lines if line.startswith(b"data: "))
        connection.close()
    page.ask("POST", "/act/unpin", '{"plan": 1}', **origin(page))
