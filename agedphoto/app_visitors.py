"""Visitors of the page are kept apart: a file is served to the browser that it belongs to, only.

Every browser gets a cookie with a random name. It owns the files that answers to it have named, its
uploads among them; what it asks for, or hands to a handler, must be one of these. All routes but
those that the page needs are closed, and so is the page to other host names when it is served to
this machine alone: a web site cannot reach it through a name that it has pointed here.
"""

import asyncio
import json
import re
import secrets
from collections.abc import Collection, Iterator
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

COOKIE = "agedphoto_visitor"
API = "/gradio_api"
FILE = re.compile(rf"(?:{API})?/file=(.*)", re.DOTALL)
OPEN_ROUTES = re.compile(
    rf"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(?:assets|static|svelte)/.*"
    rf"|{API}/(?:config|info|startup-events|theme\.css|upload|upload_progress|cancel|reset"
    rf"|heartbeat/[^/]*|queue/(?:join|data))"
)
ASKING = re.compile(rf"{API}/(?:queue/join|cancel|reset)")
HEARTBEAT = re.compile(rf"{API}/heartbeat/(.*)", re.DOTALL)
MAX_REQUEST_BYTES = 1 << 20
"""Of requests that name files; the files themselves come by another route."""
MAX_SESSION_CHARS = 64
MAX_FORM_BYTES = 64 << 10
"""What an upload has beside the file."""


class Visitors:
    """ASGI middleware that knows what belongs to whom.

    Args:
        app: What it guards.
        folder: Where all files of visitors lie.
        public: Files there that everybody may see.
        hosts: Names by which the page may be asked for; empty for any.
        max_upload_bytes: Of the files that come with one request, together.
    """

    def __init__(
        self,
        app: Any,
        *,
        folder: Path,
        public: Collection[str],
        hosts: Collection[str],
        max_upload_bytes: int,
    ) -> None:
        self._max_upload_bytes = max_upload_bytes
        self._app, self._public, self._hosts = app, frozenset(public), frozenset(hosts)
        self._named = re.compile((re.escape(json.dumps(str(folder))[1:-1]) + r'/[^"\\]*').encode())
        self._folder = folder
        self._owned: set[tuple[str, str]] = set()
        self._sessions: dict[str, str] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return None  # There are no web sockets.
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        path = scope["path"].rstrip("/") or "/"
        if self._hosts and _host(headers.get("host", "")) not in self._hosts:
            return await _refuse(send, 403, "this page is for the machine that it runs on")
        file = FILE.fullmatch(path)
        if not file and not OPEN_ROUTES.fullmatch(path):
            return await _refuse(send, 404, "there is nothing here")
        visitor, is_new = _visitor(headers.get("cookie", ""))
        if file and not self._may_see(visitor, unquote(file[1])):
            return await _refuse(send, 403, "this file is not yours")
        sessions = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [])
        if beats := HEARTBEAT.fullmatch(path):
            sessions = [*sessions, beats[1]]
        if not all(self._is_session_of(visitor, name) for name in sessions):
            return await _refuse(send, 403, "this session is not yours")
        if path == f"{API}/upload":
            length = headers.get("content-length", "")
            if not length.isdecimal():
                return await _refuse(send, 411, "tell how long it is")
            if int(length) > self._max_upload_bytes + MAX_FORM_BYTES:
                return await _refuse(send, 413, "this is more than the page takes")
        if ASKING.fullmatch(path):
            body = await _read(receive)
            if body is None or not self._may_ask(visitor, body):
                return await _refuse(send, 403, "this request names what is not yours")
            receive = _replay(body, receive)

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start" and is_new:
                cookie = f"{COOKIE}={visitor}; Path=/; HttpOnly; SameSite=Lax"
                message["headers"] = [*message["headers"], (b"set-cookie", cookie.encode())]
            elif message["type"] == "http.response.body" and not file:
                # What an answer names, its reader may fetch.
                for name in self._named.findall(message.get("body", b"")):
                    self._owned.add((visitor, _plain(unquote(name.decode()))))
            await send(message)

        return await self._app(scope, receive, answer)

    def forget(self) -> None:
        """Forget the files that are no more."""
        self._owned = {(who, name) for who, name in tuple(self._owned) if Path(name).exists()}

    def _may_see(self, visitor: str, name: str) -> bool:
        name = _plain(name)
        return name in self._public or (visitor, name) in self._owned

    def _is_session_of(self, visitor: str, name: str) -> bool:
        fits = len(name) <= MAX_SESSION_CHARS
        return fits and self._sessions.setdefault(name, visitor) == visitor

    def _may_ask(self, visitor: str, body: bytes) -> bool:
        try:
            asked = json.loads(body)
            session = asked.get("session_hash")
        except (ValueError, AttributeError):
            return False
        return (session is None or self._is_session_of(visitor, str(session))) and all(
            self._may_see(visitor, name) for name in _named_files(asked)
        )


def _visitor(cookie: str) -> tuple[str, bool]:
    """Return the visitor's name, and whether it is a new one."""
    try:
        morsel = SimpleCookie(cookie).get(COOKIE)
    except CookieError:
        morsel = None
    if morsel is not None and re.fullmatch(r"[0-9a-f]{32}", morsel.value):
        return morsel.value, False
    return secrets.token_hex(16), True


def _host(header: str) -> str:
    return re.sub(r":\d+$", "", header).lower()


def _plain(name: str) -> str:
    """A path without `..` and links, for it to have one name only."""
    try:
        return str(Path(name).resolve())
    except (OSError, ValueError):
        return ""


def _named_files(value: Any) -> Iterator[str]:
    """All that stands under `path` in what came as JSON; a handler would open it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "path" and inner is not None:
                yield inner if isinstance(inner, str) else ""
            else:
                yield from _named_files(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named_files(inner)


async def _read(receive: Any) -> bytes | None:
    """Return the body of a request, or None if it is too long or breaks off."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_REQUEST_BYTES:
            return None
        if not message.get("more_body"):
            return body


def _replay(body: bytes, receive: Any) -> Any:
    """Return a `receive` that gives a body that was read already."""
    given = asyncio.Event()

    async def again() -> Any:
        if given.is_set():
            return await receive()
        given.set()
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(send: Any, status: int, reason: str) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": reason}).encode()})
