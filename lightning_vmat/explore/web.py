"""The web shell around a session: every answer is JSON or one of the page's own files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib import resources
from typing import Any, get_args

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from lightning_vmat.explore.drawings import PREVIEW, Drawings
from lightning_vmat.explore.export import exported_zip
from lightning_vmat.explore.guard import Guard
from lightning_vmat.explore.session import Session
from lightning_vmat.export.figures.dose_slices import Plane

ASSETS = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in ("main", "planes", "panels", "below", "server")},
}
"""Address -> file of the page and its type; nothing else is served."""

MOST_BYTES = 10_000  # of a request
BEAT_S, BEATS = 1.0, 15  # an idle stream looks every second whether the server ends, and says something every 15

Answer = Callable[[Request], Awaitable[Response]]


class Web:
    """Answers the requests of a page.

    Args:
        session: the session.
        ending: whether the server ends; open streams end with it.
    """

    def __init__(self, session: Session, ending: Callable[[], bool] = lambda: False) -> None:
        self.session, self.drawings, self.ending = session, Drawings(session), ending
        self.actions: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "change": lambda body: session.change(**body.get("settings", {})),
            "another": lambda body: session.another(),
            "undo": lambda body: session.undo(),
            "redo": lambda body: session.redo(),
            "choose": lambda body: session.choose(_number(body)),
            "pin": lambda body: session.pin(_number(body)),
            "unpin": lambda body: session.pin(_number(body), False),
        }

    def application(self, token: str, port: int) -> Guard:
        """Returns the ASGI application, behind its guard."""
        routes = [Route(path, _asset(*asset)) for path, asset in ASSETS.items()]
        routes += [
            Route("/css/report.css", _asset("report.css", "text/css", "lightning_vmat.export")),
            Route("/page", self._json(lambda request: self.drawings.page())),
            Route("/state", self._json(lambda request: self.session.state())),
            Route("/events", self.events),
            Route("/act/{action}", self.act, methods=["POST"]),
            Route("/plans/{number:int}", self._json(self._figures)),
            Route("/plans/{number:int}/dvh", self._json(self._dvh)),
            Route("/plans/{number:int}/apertures", self._json(self._frames)),
            Route("/plans/{number:int}/slices/{plane}/{index:int}", self._json(self._slice)),
            Route("/plans/{number:int}/export", self.export),
        ]
        return Guard(Starlette(routes=routes), token, port)

    async def act(self, request: Request) -> Response:
        """Carries out an action of the user; a ValueError becomes status 400 with its message."""
        action = self.actions.get(request.path_params["action"])
        if action is None:
            return JSONResponse({"error": "unknown action"}, status_code=404)
        try:
            content = b""
            async for chunk in request.stream():
                content += chunk
                if len(content) > MOST_BYTES:
                    raise ValueError(f"request of more than {MOST_BYTES} bytes")
            body = json.loads(content or b"{}")
            if not isinstance(body, dict) or not isinstance(body.get("settings", {}), dict):
                raise ValueError("expected an object")
            await run_in_threadpool(action, body)
        except (ValueError, TypeError) as error:
            return JSONResponse({"error": " ".join(str(error).split())}, status_code=400)
        return JSONResponse(await run_in_threadpool(self.session.state))

    async def events(self, request: Request) -> Response:
        """Streams the session's state after each change (server-sent events); slow readers get the latest only."""
        return StreamingResponse(self._states(), media_type="text/event-stream")

    async def export(self, request: Request) -> Response:
        """Returns the files of a plan as a zip archive, which the browser saves."""
        number = request.path_params["number"]
        try:
            content = await run_in_threadpool(exported_zip, self.session, number)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        named = f'attachment; filename="plan_{number}.zip"'
        return Response(content, media_type="application/zip", headers={"Content-Disposition": named})

    async def _states(self) -> AsyncIterator[str]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def listener(version: int) -> None:
            loop.call_soon_threadsafe(changed.set)

        end = self.session.listen(listener)
        try:
            while not self.ending():
                changed.clear()
                state = await run_in_threadpool(self.session.state)
                yield f"data: {json.dumps(state)}\n\n"
                idle = 0
                while not changed.is_set() and not self.ending():
                    try:
                        await asyncio.wait_for(changed.wait(), BEAT_S)
                    except TimeoutError:
                        idle += 1
                        if idle % BEATS == 0:
                            yield ": still here\n\n"
        finally:
            end()

    def _json(self, make: Callable[[Request], Any]) -> Answer:
        async def answer(request: Request) -> Response:
            try:
                return JSONResponse(await run_in_threadpool(make, request))
            except ValueError as error:
                return JSONResponse({"error": " ".join(str(error).split())}, status_code=400)

        return answer

    def _figures(self, request: Request) -> dict[str, Any]:
        against = _against(request)
        plan = self.session.plan
        return self.drawings.figures(plan(request.path_params["number"]), None if against is None else plan(against))

    def _dvh(self, request: Request) -> dict[str, Any]:
        number = request.path_params["number"]
        others = [
            self.session.plan(int(one)).measured for one in request.query_params.getlist("other") if one.isdecimal()
        ]
        if number != PREVIEW:
            return {"svg": self.drawings.dvh(self.session.plan(number).measured, others)}
        computation = self.session.computation
        measured = None
        if computation is not None:
            measured = computation.course or (computation.preview[1] if computation.preview else None)
        return {"svg": None if measured is None else self.drawings.dvh(measured, others)}

    def _frames(self, request: Request) -> dict[str, Any]:
        return self.drawings.frames(request.path_params["number"])

    def _slice(self, request: Request) -> dict[str, Any]:
        path = request.path_params
        if path["plane"] not in get_args(Plane):
            raise ValueError(f"plane {path['plane']!r}: expected one of {', '.join(get_args(Plane))}")
        return self.drawings.slice(path["number"], path["plane"], path["index"], _against(request))


def _asset(name: str, media_type: str, package: str = "lightning_vmat.explore.page") -> Answer:
    async def answer(request: Request) -> Response:
        return Response((resources.files(package) / name).read_bytes(), media_type=media_type)

    return answer


def _number(body: Mapping[str, Any]) -> int:
    number = body.get("plan")
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError(f"plan {number!r}: expected a number")
    return number


def _against(request: Request) -> int | None:
    value = request.query_params.get("against", "")
    return int(value) if value.isdecimal() else None
