"""Serves the page of a session on this machine until it is interrupted."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from lightning_vmat.explore.session import Session
from lightning_vmat.explore.web import Web

ADDRESS = "127.0.0.1"
LINGER_S = 2  # for open connections when the server ends


@contextmanager
def page_server(session: Session, port: int = 0) -> Iterator[tuple[uvicorn.Server, socket.socket, str]]:
    """Yields the server of a session's page, its bound socket, and the link with the token.

    Args:
        session: the session.
        port: port; 0 for a free one.

    Raises:
        OSError: a port that is taken.
    """
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((ADDRESS, port))
        bound.listen()  # whoever opens the link before the server runs waits
        token, port = secrets.token_urlsafe(24), bound.getsockname()[1]
        config = uvicorn.Config(
            Web(session, lambda: server.should_exit).application(token, port),
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=LINGER_S,
        )
        server = uvicorn.Server(config)
        yield server, bound, f"http://{ADDRESS}:{port}/?token={token}"


def serve(session: Session, port: int, opened: Callable[[str], None]) -> None:
    """Serves until the process is interrupted.

    Args:
        session: the session.
        port: port; 0 for a free one.
        opened: called with the link once the port is bound.
    """
    with page_server(session, port) as (server, bound, link):
        opened(link)
        server.run(sockets=[bound])
