"""`agedphoto app`: a page to restore photographs in a browser, on this machine.

All files of visitors lie in one private folder that is gone when the page is closed; what is older
than `keep_minutes` goes earlier.
"""

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

if TYPE_CHECKING:
    from agedphoto.restore import Restorer

FIRST_PORT = 7860
_PORTS_TRIED = 100
_SWEEP_S = 20.0
_PATIENCE_S = 30.0
"""For the tile that is in the network when the page ends."""
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


@dataclass(frozen=True, kw_only=True, slots=True)
class App:
    """Serve a page to restore photos in a browser; it needs no network and tells nobody."""

    host: str = "127.0.0.1"
    """Address to serve on; the default is this machine alone, 0.0.0.0 lets others in."""
    port: int | None = None
    """Port to serve on; if not given, the first that is free from 7860 on."""
    model: str = "grayscale"
    """Name of a model that comes with agedphoto, a .safetensors file, or a folder of a training."""
    color_model: str | None = None
    """The same, for the switch that gives colours; lab if that comes with agedphoto."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    max_megapixels: float = 50
    """Larger photos are refused; all pages of a file are counted."""
    max_mb: float = 200
    """Larger files are refused."""
    max_pages: int = 50
    """Files with more pages are refused."""
    max_queue: int = 20
    """How many visitors may wait; photos are restored one at a time."""
    keep_minutes: float = 60
    """After how long the files of visitors are removed."""
    examples: bool = True
    """Whether there are examples to try, made when the page starts."""
    open_browser: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also open the page in a browser."""

    def run(self) -> int:
        """Serve the page until interrupted."""
        self._check()
        if find_spec("gradio") is None:
            raise ValueError("the page needs gradio; get it with: pip install 'agedphoto[app]'")
        from agedphoto.restore.loading import load_restorers

        port = self._find_port()
        restorer, coloring = load_restorers(self.model, self.color_model, device=self.device)
        with _ending_on_signals(), _private_folder() as folder:
            _be_quiet(folder)
            self._serve(folder, port, restorer, coloring)
        return 0

    def _check(self) -> None:
        """Refuse what means nothing."""
        for name in ("max_megapixels", "max_mb", "max_pages", "max_queue", "keep_minutes"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be finite and above 0, got {value}")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise ValueError(f"port must be from 1 to 65535, got {self.port}")

    def _promise(self) -> str:
        """What becomes of photographs, for visitors to read."""
        if self.host in _LOOPBACK:
            return "It stays on this machine."
        return f"Only you see it, and it is removed after {self.keep_minutes:g} minutes."

    def _find_port(self) -> int:
        """Return a port that is free now."""
        tried = range(FIRST_PORT, FIRST_PORT + _PORTS_TRIED) if self.port is None else [self.port]
        for port in tried:
            if _is_free(self.host, port):
                return port
        raise ValueError(
            f"port {self.port} of {self.host} is taken; choose another, or leave out --port"
            if self.port is not None
            else f"ports {tried[0]} to {tried[-1]} of {self.host} are taken; choose another"
        )

    def _serve(
        self, folder: Path, port: int, restorer: "Restorer", coloring: "Restorer | None"
    ) -> None:
        # Only now: what they do on import is settled by what `_be_quiet` has set.
        from starlette.middleware import Middleware

        from agedphoto.app_page import CSS, build_page, make_theme, make_words
        from agedphoto.app_photos import Limits, Turns, make_examples
        from agedphoto.app_visitors import Visitors

        examples = make_examples(folder / "examples") if self.examples else []
        turns = Turns()
        page = build_page(
            restorer,
            coloring,
            folder=folder / "results",
            examples=examples,
            limits=Limits(
                max_megapixels=self.max_megapixels, max_mb=self.max_mb, max_pages=self.max_pages
            ),
            turns=turns,
            max_queue=self.max_queue,
            promise=self._promise(),
        )
        # What lies here before the first visitor comes is for all of them.
        public = frozenset(str(path.resolve()) for path in folder.rglob("*") if path.is_file())
        guards: list[Visitors] = []

        def guard(app: Any, **options: Any) -> Visitors:
            guards.append(Visitors(app, **options))
            return guards[-1]

        hosts = _LOOPBACK | {self.host} if self.host in _LOOPBACK else frozenset()
        max_upload_bytes = int(self.max_mb * 1e6)
        middleware = Middleware(
            guard,
            folder=folder,
            public=public,
            hosts=hosts,
            max_upload_bytes=max_upload_bytes,
        )
        _, url, _ = page.launch(
            server_name=self.host,
            server_port=port,
            inbrowser=self.open_browser,
            share=False,
            prevent_thread_lock=True,
            show_error=False,
            quiet=True,
            footer_links=[],
            run_history=False,
            allowed_paths=[],
            root_path="",
            max_file_size=max_upload_bytes,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            num_workers=0,
            theme=make_theme(),
            i18n=make_words(),
            css=CSS,
            app_kwargs={
                "middleware": [middleware], "docs_url": None, "redoc_url": None,
                "openapi_url": None,
            },
        )  # fmt: skip
        print(f"serving on {url} (Ctrl-C ends it)", flush=True)
        try:
            while True:
                time.sleep(min(_SWEEP_S, self.keep_minutes * 30))
                sweep(folder, older_than_s=self.keep_minutes * 60, but=public)
                for one in guards:
                    one.forget()
        finally:
            turns.end(patience_s=_PATIENCE_S)
            page.close(verbose=False)


def sweep(folder: Path, *, older_than_s: float, but: Collection[str] = ()) -> int:
    """Remove the files below a folder that were not touched for so long; return how many."""
    removed, limit = 0, time.time() - older_than_s
    for path in sorted(folder.rglob("*"), reverse=True):
        # Another may remove it at the same time, or put something in.
        with suppress(OSError):
            if path.is_dir():
                if path.stat().st_mtime < limit:
                    path.rmdir()
            elif str(path.resolve()) not in but and path.stat().st_ctime < limit:
                path.unlink()
                removed += 1
    return removed


def _be_quiet(folder: Path) -> None:
    """Settle what Gradio reads from the environment: nothing is told, files go into our folder."""
    for name in tuple(os.environ):
        if name.startswith("GRADIO_"):
            del os.environ[name]
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(folder),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
    }
    # A line for every request is of no use to anybody here.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _is_free(host: str, port: int) -> bool:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise ValueError(f"host {host!r} is no address of this machine: {error}") from error
    with socket.socket(family, socket.SOCK_STREAM) as one:
        # As the server does: a port that was closed a moment ago is free.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
        except OSError:
            return False
    return True


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder that only this user can read, gone in the end."""
    folder = Path(tempfile.mkdtemp(prefix="agedphoto-app-")).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM are how a page ends: no error. One is enough: files must be removed."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    # Who starts us in the background of a shell may want no Ctrl-C to get here.
    numbers = [one for one in numbers if signal.getsignal(one) != signal.SIG_IGN]
    ending = threading.Event()

    def end(*_: object) -> None:
        if not ending.is_set():
            ending.set()
            raise KeyboardInterrupt

    before = {one: signal.signal(one, end) for one in numbers}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
