"""A web server on loopback that can be told to misbehave: what networks do on bad days."""

import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

Kind = Literal["status", "drop", "stall", "lie", "no_range", "flip"]


@dataclass(frozen=True)
class Fault:
    """One misbehaviour, of one answer."""

    kind: Kind
    """status: answer with the status `value`; drop: close the connection after `value` bytes of the
    body; stall: send `value` bytes, then nothing for `seconds`; lie: announce `value` bytes more
    than there are (fewer if negative) and send them all the same; no_range: answer 200 with the
    whole file to a ranged request; flip: change the byte at `value` of the body."""
    value: int = 0
    seconds: float = 5.0


@dataclass
class FaultyServer:
    """Serves files by path; `faults[path]` is used up from the front, one a request."""

    files: dict[str, bytes | Path] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, Range header) of every request so far."""
    url: str = ""
    stopped: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(files: dict[str, bytes | Path] | None = None) -> Iterator[FaultyServer]:
    """Serve for as long as the block runs."""
    state = FaultyServer(files=dict(files or {}))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None: ...

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path, wanted = self.path, self.headers.get("Range")
            state.requests.append((self.command, path, wanted))
            waiting = state.faults[path] if body else []
            fault = waiting.pop(0) if waiting else None
            if fault and fault.kind == "status":
                return self.refuse(fault.value)
            if path not in state.files:
                return self.refuse(404)
            content = state.files[path]
            data = content if isinstance(content, bytes) else content.read_bytes()
            total = len(data)
            status, extra = 200, {}
            ranged = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted or "")
            if ranged and not (fault and fault.kind == "no_range"):
                first, last = ranged.groups()
                if not first:
                    begin, end = max(0, total - int(last)), total
                else:
                    begin, end = int(first), min(total, int(last) + 1 if last else total)
                if begin >= total or begin >= end:
                    return self.refuse(416)
                status, data = 206, data[begin:end]
                extra = {"Content-Range": f"bytes {begin}-{end - 1}/{total}"}
            announced = len(data)
            if fault and fault.kind == "lie":
                announced += fault.value
            if fault and fault.kind == "flip":
                data = bytearray(data)
                data[fault.value] ^= 0xFF
            self.send_response(status)
            self.send_header("Content-Length", str(announced))
            self.send_header("Accept-Ranges", "bytes")
            for name, value in extra.items():
                self.send_header(name, value)
            self.end_headers()
            if not body:
                return None
            try:
                if fault and fault.kind in ("drop", "stall"):
                    self.wfile.write(data[: fault.value])
                    self.wfile.flush()
                    if fault.kind == "stall":
                        state.stopped.wait(fault.seconds)
                    self.close_connection = True
                    return None
                self.wfile.write(data[:announced])
                if announced > len(data):
                    self.close_connection = True
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            return None

        def refuse(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None: ...

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        state.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()


def wait_until(condition, seconds: float = 5.0) -> bool:
    """Wait until something is true; say whether it came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
