"""Admits only the browser that opened the printed link, on this machine.

A page of another site can make a browser send requests to 127.0.0.1. It cannot know the token; its requests carry its
own Origin; and a name of its own that resolves to 127.0.0.1 shows in the Host header. All three are checked.
"""

from __future__ import annotations

import secrets
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware that refuses requests without the token, from another Origin or to another Host.

    The first request carries the token in its address. The answer puts it into a cookie that scripts cannot read, and
    leads to the address without it.

    Args:
        app: the application behind.
        token: secret of this process.
        port: port of this process.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self.app, self.token = app, token
        self.cookie = f"vmat_explore_{port}"
        self.hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers or passes on one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        if refusal is not None:
            await PlainTextResponse(refusal, status_code=403)(scope, receive, send_safely)
        elif scope["path"] == "/" and self._same(given):
            response = RedirectResponse("/", status_code=303)
            response.set_cookie(self.cookie, self.token, httponly=True, samesite="strict", path="/")
            await response(scope, receive, send_safely)
        elif not self._same(cookie_parser(headers.get("cookie", "")).get(self.cookie, "")):
            message = "Open the link that vmat explore printed: it holds the token of this session."
            await PlainTextResponse(message, status_code=403)(scope, receive, send_safely)
        else:
            await self.app(scope, receive, send_safely)

    def _refusal(self, scope: Scope, headers: Headers) -> str | None:
        """Returns why a request is refused, whatever its token; None if it is not."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self.hosts:
            return "Host: expected 127.0.0.1"
        if origin is not None and origin != f"http://{host}":
            return "Origin: expected this page"
        if scope["method"] not in ("GET", "HEAD"):
            if origin is None:
                return "Origin: missing"
            if headers.get("content-type", "").partition(";")[0] != "application/json":
                return "Content-Type: expected application/json"
        return None

    def _same(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self.token.encode())
