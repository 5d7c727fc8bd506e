"""A web server on loopback that can be told to misbehave: what networks do on bad days."""

import email.utils
import re
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

Kind = Literal[
    "none", "status", "drop", "stall", "lie", "no_range", "flip", "trickle", "slow_headers",
    "chunked", "no_if_range",
]  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One misbehaviour, of one answer."""

    kind: Kind
    """status: answer with the status `value`; drop: close the connection after `value` bytes of the
    body; stall: send `value` bytes, then nothing for `seconds`; lie: announce `value` bytes more
    than there are (fewer if negative) and send them all the same; no_range: answer 200 with the
    whole file to a ranged request; flip: change the byte at `value` of the body; trickle: send a
    byte, wait `seconds`, and so on; slow_headers: the same with the headers; chunked: send no
    length, and break off before the end if `value` is not 0; no_if_range: pay no heed to If-Range;
    none: answer as one should."""
    value: int = 0
    seconds: float = 5.0
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent in addition."""
    after: Callable[[], None] | None = None
    """Called when the answer has been sent."""


@dataclass
class FaultyServer:
    """Serves files by path; `faults[path]` is used up from the front, one a request."""

    files: dict[str, bytes | Path] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, Range header) of every request so far."""
    url: str = ""
    validator: Literal["etag", "weak_etag", "date", ""] = "etag"
    """What tells the versions of a file apart: an ETag, Last-Modified, or nothing."""
    dates: dict[str, float] = field(default_factory=dict)
    """When files were last modified, in seconds since 1970; a fixed date for others."""
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
                return self.refuse(fault.value, fault)
            if path not in state.files:
                return self.refuse(404)
            content = state.files[path]
            data = content if isinstance(content, bytes) else content.read_bytes()
            total = len(data)
            status, extra = 200, validators(path, data)
            condition = self.headers.get("If-Range")
            heeds = not (fault and fault.kind == "no_if_range")
            if condition and heeds and condition not in extra.values():
                wanted = None
            ranged = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted or "")
            if ranged and not (fault and fault.kind == "no_range"):
                first, last = ranged.groups()
                if not first:
                    begin, end = max(0, total - int(last)), total
                else:
                    begin, end = int(first), min(total, int(last) + 1 if last else total)
                if begin >= total or begin >= end:
                    return self.refuse(
                        416, Fault("none", headers={"Content-Range": f"bytes */{total}"})
                    )
                status, data = 206, data[begin:end]
                extra["Content-Range"] = f"bytes {begin}-{end - 1}/{total}"
            announced = len(data)
            if fault and fault.kind == "lie":
                announced += fault.value
            if fault and fault.kind == "flip":
                data = bytearray(data)
                data[fault.value] ^= 0xFF
            self.send_response(status)
            if fault and fault.kind == "chunked":
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(announced))
            self.send_header("Accept-Ranges", "bytes")
            for name, value in (extra | dict(fault.headers if fault else {})).items():
                self.send_header(name, value)
            try:
                if fault and fault.kind == "slow_headers":
                    while not state.stopped.wait(fault.seconds):
                        self.wfile.write(b"x")
                self.end_headers()
                if not body:
                    return None
                if fault and fault.kind == "trickle":
                    for byte in data:
                        self.wfile.write(bytes([byte]))
                        if state.stopped.wait(fault.seconds):
                            break
                    self.close_connection = True
                    return None
                if fault and fault.kind == "chunked":
                    sent = data[: fault.value or None]
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(sent), sent))
                    if fault.value:
                        self.close_connection = True
                    else:
                        self.wfile.write(b"0\r\n\r\n")
                    return None
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
            finally:
                if fault and fault.after:
                    fault.after()
            return None

        def refuse(self, status: int, fault: Fault | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            for name, value in (fault.headers if fault else {}).items():
                self.send_header(name, value)
            self.end_headers()
            if fault and fault.after:
                fault.after()

    def validators(path: str, data: bytes) -> dict[str, str]:
        if state.validator == "date":
            changed = email.utils.formatdate(state.dates.get(path, 1e9), usegmt=True)
            return {"Last-Modified": changed}
        if state.validator:
            weak = "W/" if state.validator == "weak_etag" else ""
            return {"ETag": f'{weak}"{len(data)}-{zlib.crc32(data):08x}"'}
        return {}

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
