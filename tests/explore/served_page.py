"""A session's page, served in this process for a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import parse_qs, urlsplit

import lightning_vmat as vmat
from lightning_vmat.cases.patient import OpenedPatient
from lightning_vmat.explore.serve import page_server
from lightning_vmat.explore.session import Session


@dataclass
class Served:
    """A running server.

    Args:
        session: the session behind it.
        link: the link that is printed.
    """

    session: Session
    link: str

    @property
    def port(self) -> int:
        """Port on 127.0.0.1."""
        return int(urlsplit(self.link).port or 0)

    @property
    def cookie(self) -> str:
        """The cookie that the link sets."""
        return f"vmat_explore_{self.port}={parse_qs(urlsplit(self.link).query)['token'][0]}"

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[HTTPResponse, bytes]:
        """Sends one request with exactly these headers (`_` stands for `-`) and Host, if none is given."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_host="Host" in named, skip_accept_encoding=True)
        for name, value in named.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body.encode())))
        connection.endheaders(None if body is None else body.encode())
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response, content


@contextmanager
def served(size: str = "tiny", planner: str = "conventional@5", voxels: int = 500) -> Iterator[Served]:
    """Serves the page of a phantom."""
    session = Session(OpenedPatient(vmat.phantom(0, size=size), None, None, None), planner, voxels=voxels)
    with page_server(session) as (server, bound, link):
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        try:
            yield Served(session, link)
        finally:
            session.close()
            server.should_exit = True
            thread.join(timeout=20)
