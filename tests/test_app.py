"""The page's options, and who may ask it for what."""

import asyncio
import json
import os
import shutil
import signal
import socket
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import pytest

import agedphoto.app as app_module
from agedphoto.app import App, sweep
from agedphoto.app_visitors import COOKIE, MAX_FORM_BYTES, Visitors


def test_old_files_are_removed_and_public_ones_stay(tmp_path):
    for name in ("a/old.png", "b/public.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x")
    time.sleep(0.3)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "new.png").write_text("x")
    public = str((tmp_path / "b" / "public.png").resolve())
    assert sweep(tmp_path, older_than_s=0.2, but={public}) == 1
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"public.png", "new.png"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_impatience_does_not_keep_files_from_being_removed(tmp_path, monkeypatch, number):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    removed = shutil.rmtree

    def remove(*args, **options):
        os.kill(os.getpid(), number)
        removed(*args, **options)

    monkeypatch.setattr(shutil, "rmtree", remove)
    with app_module._ending_on_signals(), app_module._private_folder() as folder:
        (folder / "photo.png").touch()
        assert folder.parent == tmp_path
        os.kill(os.getpid(), number)
        time.sleep(60)
    assert not list(tmp_path.iterdir())
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == handlers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_megapixels": 0}, "max_megapixels must be finite and above 0, got 0"),
        ({"max_mb": float("nan")}, "max_mb must be finite"),
        ({"max_pages": 0}, "max_pages must be finite and above 0, got 0"),
        ({"max_queue": -1}, "max_queue must be finite and above 0, got -1"),
        ({"keep_minutes": float("inf")}, "keep_minutes must be finite"),
        ({"port": 70000}, "port must be from 1 to 65535, got 70000"),
    ],
)
def test_a_bad_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        App(**options).run()


def test_without_gradio_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr(app_module, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs gradio; .* pip install 'agedphoto\[app\]'"):
        App().run()


def test_a_port_that_is_taken_is_refused_or_passed_over(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of 127.0.0.1 is taken; choose another"):
            App(port=port)._find_port()
        monkeypatch.setattr(app_module, "FIRST_PORT", port)
        assert App()._find_port() > port


def test_a_host_that_is_none_of_this_machine_is_refused():
    with pytest.raises(ValueError, match="is no address of this machine"):
        App(host="no such host")._find_port()


@dataclass
class Answer:
    status: int
    body: bytes
    cookie: str


def ask(
    guard: Visitors,
    path: str,
    *,
    cookie: str = "",
    body: bytes = b"",
    host: str = "",
    length: str | None = None,
) -> Answer:
    """One request, without a server."""
    path, _, query = path.partition("?")
    headers = [(b"cookie", cookie.encode()), (b"host", host.encode())]
    headers += [] if length is None else [(b"content-length", length.encode())]
    scope = {"type": "http", "path": path, "query_string": query.encode(), "headers": headers}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    cookies = [value.decode() for name, value in sent[0]["headers"] if name == b"set-cookie"]
    return Answer(sent[0]["status"], sent[1]["body"], cookies[0].split(";")[0] if cookies else "")


@pytest.fixture
def guard(tmp_path) -> Visitors:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Tells of a file to whom asks for the page, and repeats what it is asked."""
        heard = (await receive()).get("body", b"")
        body = (
            json.dumps({"path": str(tmp_path / "mine.png")}).encode()
            if scope["path"] == "/"
            else heard
        )
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    public = str(tmp_path / "public.png")
    return Visitors(
        app,
        folder=tmp_path,
        public={public},
        hosts={"127.0.0.1", "localhost", ""},
        max_upload_bytes=1000,
    )


def test_a_file_is_for_whom_it_was_named_to(guard, tmp_path):
    mine, public = (f"/gradio_api/file={tmp_path}/{name}.png" for name in ("mine", "public"))
    first = ask(guard, "/").cookie
    assert first.startswith(f"{COOKIE}=")
    other = ask(guard, "/config").cookie
    assert other != first
    assert ask(guard, mine, cookie=first).status == 200
    assert ask(guard, f"/gradio_api/file={tmp_path}/x/../mine.png", cookie=first).status == 200
    for cookie in (other, "", f"{COOKIE}=guess", f"{COOKIE}={'0' * 32}"):
        assert ask(guard, mine, cookie=cookie).status == 403
        assert ask(guard, public, cookie=cookie).status == 200


def test_a_handler_gets_the_paths_of_its_visitor_only(guard, tmp_path):
    first, other = ask(guard, "/").cookie, ask(guard, "/config").cookie
    body = json.dumps(
        {"data": [[{"inner": {"path": f"{tmp_path}/mine.png"}}]], "session_hash": None}
    ).encode()
    answer = ask(guard, "/gradio_api/queue/join", cookie=first, body=body)
    assert (answer.status, answer.body) == (200, body)
    assert ask(guard, "/gradio_api/queue/join", cookie=other, body=body).status == 403
    for path in ("/etc/passwd", "http://169.254.169.254/", str(tmp_path), 5, ["/etc/passwd"]):
        body = json.dumps({"data": [{"path": path}]}).encode()
        assert ask(guard, "/gradio_api/queue/join", cookie=first, body=body).status == 403
    for body in (b"", b"[]", b"{", b" " * (2 << 20)):
        assert ask(guard, "/gradio_api/queue/join", cookie=first, body=body).status == 403


def test_a_session_belongs_to_whom_began_it(guard):
    first, other = ask(guard, "/").cookie, ask(guard, "/config").cookie
    body = json.dumps({"data": [], "session_hash": "abc"}).encode()
    assert ask(guard, "/gradio_api/queue/join", cookie=first, body=body).status == 200
    listen = "/gradio_api/queue/data?session_hash=abc"
    assert ask(guard, listen, cookie=first).status == 200
    assert ask(guard, listen, cookie=other).status == 403
    for route in ("queue/join", "cancel", "reset"):
        assert ask(guard, f"/gradio_api/{route}", cookie=other, body=body).status == 403
        assert ask(guard, f"/gradio_api/{route}/", cookie=other, body=body).status == 403
    assert ask(guard, "/gradio_api/heartbeat/abc", cookie=other).status == 403
    assert ask(guard, "/gradio_api/heartbeat/abc", cookie=first).status == 200


def test_the_name_of_a_session_has_a_limit(guard):
    assert ask(guard, f"/gradio_api/heartbeat/{'a' * 64}").status == 200
    assert ask(guard, f"/gradio_api/heartbeat/{'a' * 65}").status == 403


def test_an_upload_tells_its_length_and_keeps_to_the_limit(guard):
    most = 1000 + MAX_FORM_BYTES
    statuses = {None: 411, "": 411, "-1": 411, str(most): 200, str(most + 1): 413}
    for length, status in statuses.items():
        for path in ("/gradio_api/upload", "/gradio_api/upload/"):
            assert ask(guard, path, length=length).status == status, length


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=http://example.org/", "/gradio_api/run/restore", "/monitoring",
        "/gradio_api/vibe-edit", "/gradio_api/mcp", "/docs", "/gradio_api/runs", "/login",
        "/gradio_api/stream/a/b/0/playlist.m3u8", "/gradio_api/component_server",
        "/gradio_api/component_server/", "/gradio_api/call/restore", "/gradio_api/file/etc/passwd",
    ],
)  # fmt: skip
def test_routes_that_the_page_does_not_need_are_closed(guard, path):
    assert ask(guard, path).status == 404


def test_a_local_page_answers_to_no_foreign_name(guard):
    assert ask(guard, "/", host="127.0.0.1:7860").status == 200
    assert ask(guard, "/", host="evil.example:7860").status == 403


def test_what_is_gone_is_forgotten(guard, tmp_path):
    cookie = ask(guard, "/").cookie
    guard.forget()
    assert ask(guard, f"/gradio_api/file={tmp_path}/mine.png", cookie=cookie).status == 403
