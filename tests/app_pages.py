"""The page in a process of its own, visitors to it without a browser, and a network to restore."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
from PIL import Image
from skimage.data import astronaut

from agedphoto.restore import Restorer
from agedphoto.train import ModelCard, UNet, UNetConfig, net_shape, save_model

RGB = astronaut()[::4, ::4].copy()
CAMERA = "Camera of 1936"
PATIENCE_S = 240
"""Where tests share their cores with others, all takes long."""

_SERVE = """
import sys, time
from pathlib import Path
import agedphoto.app_photos as photos
from agedphoto.app import App

restore_scan = photos.restore_scan

def restore_when_let(path, *args, on_tile, **options):
    # Tests hold photographs back, or break them, by a file of this name.
    while Path("hold").exists():
        on_tile()
        time.sleep(0.05)
    if "broken" in path.name:
        raise RuntimeError("broken on purpose")
    return restore_scan(path, *args, on_tile=on_tile, **options)

photos.restore_scan = restore_when_let
sys.exit(App(
    model="gray.safetensors", device="cpu", max_megapixels=1, max_mb=2, max_queue=3, max_pages=9
).run())
"""


def make_net(*, mask_head: bool = False, seed: int = 0) -> UNet:
    """A small network for luminance that changes pictures."""
    net = UNet(
        UNetConfig(
            widths=(4, 6), blocks=1, middle_blocks=1, in_channels=1, out_channels=1,
            residual_channels=1, mask_head=mask_head,
        )
    )  # fmt: skip
    drawn = np.random.default_rng(seed)
    for name, weight in net.named_parameters():
        scale = 0.1 if name.startswith("tail") else 1.0
        values = drawn.normal(0, scale / weight[0].numel() ** 0.5, tuple(weight.shape))
        weight.data.copy_(weight.new_tensor(values))
    return net


def make_restorer(**options: Any) -> Restorer:
    net = make_net(**options)
    card = ModelCard(mode="grayscale", net=net_shape(net), training={})
    return Restorer(net, card, device="cpu")


def write_photo(path: Path, pixels: np.ndarray = RGB, **options: Any) -> Path:
    exif = Image.Exif()
    exif[0x0110] = CAMERA
    Image.fromarray(pixels).save(path, exif=exif, **options)
    return path


def wait_until(holds: Callable[[], Any], what: Callable[[], str] = lambda: "") -> Any:
    """Return what is true in the end, or fail."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)
    return found


@dataclass
class Served:
    """A page that is running."""

    url: str
    root: Path
    process: subprocess.Popen

    @property
    def log(self) -> str:
        return (self.root / "log").read_text()

    @property
    def temporary(self) -> Path:
        """Where it may put files."""
        return self.root / "temporary"

    @property
    def folder(self) -> Path:
        """Where it does put them."""
        return next(self.temporary.glob("agedphoto-app-*"))

    def files(self) -> set[Path]:
        return set(self.folder.rglob("*"))

    @contextmanager
    def holding(self) -> Iterator[None]:
        """No photograph is restored meanwhile."""
        (self.root / "hold").touch()
        try:
            yield
        finally:
            (self.root / "hold").unlink()

    def wait_for_end(self) -> None:
        """It must leave nothing behind."""
        assert self.process.wait(PATIENCE_S) == 0, self.log
        assert not list(self.temporary.glob("agedphoto-app-*")), "all files are gone"


@contextmanager
def serving(root: Path, *, end: int = signal.SIGTERM) -> Iterator[Served]:
    """Serve the page below a folder, and end it by a signal if it has not ended yet."""
    (root / "temporary").mkdir()
    save_model(root / "gray.safetensors", make_net(mask_head=True), mode="grayscale", training={})
    # Settings of others that would let visitors read all, or tell of them.
    hostile = {
        "GRADIO_ALLOWED_PATHS": "/", "GRADIO_SHARE": "True", "GRADIO_ANALYTICS_ENABLED": "True",
        "GRADIO_SERVER_NAME": "0.0.0.0",
    }  # fmt: skip
    with (root / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE], cwd=root, stdout=log, stderr=subprocess.STDOUT,
            env=os.environ | hostile | {"TMPDIR": str(root / "temporary")},
        )  # fmt: skip
    served = Served("", root, process)

    def find_url() -> re.Match[str] | None:
        assert process.poll() is None, served.log
        return re.search(r"serving on (http://127\.0\.0\.1:\d+/)", served.log)

    try:
        served.url = wait_until(find_url, lambda: served.log)[1]
        yield served
        if process.poll() is None:
            process.send_signal(end)
        served.wait_for_end()
        broken = served.log.count("RuntimeError: broken on purpose")
        assert served.log.count("a photograph was not restored") == broken, served.log
    finally:
        process.kill()
        process.wait()


class Client:
    """A visitor without a browser."""

    def __init__(self, served: Served, session: str) -> None:
        self.url, self.session, self.web = served.url, session, requests.Session()
        config = self.web.get(f"{self.url}config", timeout=PATIENCE_S).json()
        self.functions = {one["api_name"]: one["id"] for one in config["dependencies"]}

    def upload(self, name: str, data: bytes) -> requests.Response:
        return self.web.post(
            f"{self.url}gradio_api/upload", files={"files": (name, data)}, timeout=PATIENCE_S
        )

    def join(self, name: str, data: list[Any]) -> requests.Response:
        body = {"data": data, "fn_index": self.functions[name], "session_hash": self.session}
        return self.web.post(f"{self.url}gradio_api/queue/join", json=body, timeout=PATIENCE_S)

    def call(self, name: str, data: list[Any]) -> dict[str, Any]:
        """Return the answer; under `told` what a visitor would read."""
        assert self.join(name, data).status_code == 200
        told = ""
        for message in self.listen():
            told += message["log"] if message["msg"] == "log" else ""
            if message["msg"] == "process_completed":
                return message | {"told": told}
        raise AssertionError("no answer")

    def listen(self) -> Iterator[dict[str, Any]]:
        with self.web.get(
            f"{self.url}gradio_api/queue/data", params={"session_hash": self.session},
            stream=True, timeout=PATIENCE_S,
        ) as answer:  # fmt: skip
            for line in answer.iter_lines():
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])

    def show(self, file: dict[str, Any] | None) -> dict[str, Any]:
        return self.call("show", [file])

    def restore(self, file: dict[str, Any] | None, **given: Any) -> dict[str, Any]:
        return self.call("restore", restoring(file, **given))

    def file(self, path: str) -> requests.Response:
        return self.web.get(f"{self.url}gradio_api/file={path}", timeout=PATIENCE_S)


def restoring(
    file: dict[str, Any] | None, *, strength: Any = 1, colors: Any = False, marks: Any = None
) -> list[Any]:
    """What the page hands over to have a photograph restored."""
    return [file, strength, colors, marks, None]


def as_file(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": Path(path).name}


def paths_in(answer: Any) -> list[str]:
    return re.findall(r'"path": "([^"]+)"', json.dumps(answer))
