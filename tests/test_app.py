"""The page restores what it is given, keeps to its limits, and keeps visitors apart."""

import asyncio
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from skimage.data import astronaut

import agedphoto.app as app_module
from agedphoto.app import App, sweep
from agedphoto.app_photos import EXAMPLES, Limits, make_examples, open_scan, restore_scan
from agedphoto.app_visitors import COOKIE, Visitors
from agedphoto.restore import Restorer
from agedphoto.restore.scans import Page, encode_pages, read_pages
from agedphoto.train import (
    ColorNet,
    ColorNetConfig,
    LabNet,
    ModelCard,
    UNet,
    UNetConfig,
    net_shape,
    save_model,
)

LIMITS = Limits(max_megapixels=1, max_mb=1)
RGB = astronaut()[::4, ::4].copy()
CAMERA = "Camera of 1936"


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


# ---------------------------------------------------------------- photographs


def test_a_restored_photo_keeps_format_size_and_metadata(tmp_path):
    path = write_photo(tmp_path / "a.jpg", dpi=(300, 300))
    restorer = make_restorer()
    done = restore_scan(path, tmp_path / "out", limits=LIMITS, restorer=restorer)
    with Image.open(done.file) as image:
        assert (image.format, image.size, image.info["dpi"]) == ("JPEG", (128, 128), (300, 300))
        assert image.getexif()[0x0110] == CAMERA
        after = np.asarray(image).astype(int)
    # JPEG adds its own error to what the network answers.
    expected = restorer(read_pages(path)[0].pixels).astype(int)
    assert np.abs(after - expected).mean() < np.abs(after - read_pages(path)[0].pixels).mean() / 2


def test_names_of_results_cannot_be_guessed(tmp_path):
    path = write_photo(tmp_path / "a.png")
    files = {
        restore_scan(path, tmp_path / "out", limits=LIMITS, restorer=make_restorer()).file
        for _ in range(2)
    }
    assert len({file.parent.name for file in files}) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}", file.parent.name) for file in files)


def test_16_bits_and_all_pages_come_back(tmp_path):
    deep = RGB.astype(np.uint16) * 257
    pages = [Page(pixels=deep), Page(pixels=deep[:50, :, 0])]
    (tmp_path / "a.tif").write_bytes(encode_pages(pages, "TIFF"))
    done = restore_scan(
        tmp_path / "a.tif", tmp_path / "out", limits=LIMITS, restorer=make_restorer()
    )
    after = read_pages(done.file)
    assert [page.pixels.shape for page in after] == [deep.shape, (50, 128)]
    assert all(page.pixels.dtype == np.uint16 for page in after)


def test_what_was_painted_at_any_size_is_filled_in_on_the_photo(tmp_path):
    path = write_photo(tmp_path / "a.png")
    painted = np.zeros((64, 64), np.uint8)
    painted[10:20, 30:40] = 255
    restorer = make_restorer()
    kept: dict[str, Any] = {"limits": LIMITS, "restorer": restorer, "strength": 0.5}
    plain = read_pages(restore_scan(path, tmp_path, **kept).file)[0].pixels
    filled = read_pages(restore_scan(path, tmp_path, **kept, painted=painted).file)[0].pixels
    changed = (plain != filled).any(2)
    assert changed[20:40, 60:80].mean() > 0.5
    assert not changed[80:].any()


@pytest.mark.parametrize("mask_head", [False, True])
def test_the_mask_is_there_if_the_network_has_one(tmp_path, mask_head):
    path = write_photo(tmp_path / "a.png")
    restorer = make_restorer(mask_head=mask_head)
    done = restore_scan(path, tmp_path, limits=LIMITS, restorer=restorer)
    assert (done.mask is not None) == mask_head
    assert done.mask is None or done.mask.size == (128, 128)


def test_the_switch_gives_colours_to_gray_photos_and_leaves_others_theirs(tmp_path):
    config = ColorNetConfig(widths=(4, 8, 8, 8), blocks=(0, 0, 0, 0), attention_blocks=1, heads=2)
    net = LabNet(ColorNet(config).eval(), make_net())
    coloring = Restorer(net, ModelCard(mode="lab", net=net_shape(net), training={}), device="cpu")
    restorers: dict[str, Any] = {
        "limits": LIMITS,
        "restorer": make_restorer(),
        "coloring": coloring,
    }
    gray = write_photo(tmp_path / "gray.pgm", RGB[:, :, 1])
    done = restore_scan(gray, tmp_path, **restorers)
    assert done.changed_mode
    assert done.file.name == "gray_restored.ppm", "PGM has no place for colours"
    assert read_pages(done.file)[0].pixels.shape == RGB.shape
    color = write_photo(tmp_path / "color.png")
    with_switch = restore_scan(color, tmp_path, **restorers)
    without = restore_scan(color, tmp_path, **{**restorers, "coloring": None})
    assert with_switch.file.read_bytes() == without.file.read_bytes()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.exe", b"MZ", r"^a\.exe: files of this type are not taken; these are: avif"),
        ("a.jpg", bytes(1_100_000), r"^a\.jpg: has 1\.1 MB, the limit is 1 MB"),
        ("a.png", b"nothing", r"^a\.png: "),
        ("a.bmp", (1100, 1000), r"^a\.bmp: has more pixels than this page takes, 1 megapixels"),
    ],
)
def test_what_breaks_a_limit_is_refused_by_its_name_alone(tmp_path, name, data, message):
    path = tmp_path / name
    if isinstance(data, tuple):
        # Few bytes, many pixels.
        path = path.with_suffix(".png")
        message = message.replace("bmp", "png")
        Image.new("L", data).save(path)
    else:
        path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        open_scan(path, LIMITS)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.slow
def test_examples_are_aged_by_us_and_always_the_same(tmp_path):
    made = [make_examples(tmp_path / name) for name in "ab"]
    assert [path.stem for path in made[0]] == [Path(name).stem for name in EXAMPLES]
    for one, other in zip(*made, strict=True):
        assert one.read_bytes() == other.read_bytes()
        open_scan(one, LIMITS)


# ---------------------------------------------------------------- files go


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


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_megapixels": 0}, "max_megapixels must be finite and above 0, got 0"),
        ({"max_mb": float("nan")}, "max_mb must be finite"),
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


# ---------------------------------------------------------------- visitors


@dataclass
class Answer:
    status: int
    body: bytes
    cookie: str


def ask(
    guard: Visitors, path: str, *, cookie: str = "", body: bytes = b"", host: str = ""
) -> Answer:
    """One request, without a server."""
    path, _, query = path.partition("?")
    headers = [(b"cookie", cookie.encode()), (b"host", host.encode())]
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
    return Visitors(app, folder=tmp_path, public={public}, hosts={"127.0.0.1", "localhost", ""})


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
    assert ask(guard, "/gradio_api/queue/join", cookie=other, body=body).status == 403


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=http://example.org/", "/gradio_api/run/restore", "/monitoring",
        "/gradio_api/vibe-edit", "/gradio_api/mcp", "/docs", "/gradio_api/runs", "/login",
        "/gradio_api/stream/a/b/0/playlist.m3u8",
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


# ---------------------------------------------------------------- served


@dataclass
class Served:
    url: str
    folder: Path
    """Where it may put temporary files."""
    log: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    """The page, in a process of its own."""
    if find_spec("gradio") is None:
        # Not one of dev's: it goes with older releases of Pillow than the pinned one.
        pytest.skip("needs gradio; pip install 'agedphoto[app]'")
    root = tmp_path_factory.mktemp("app")
    (root / "temporary").mkdir()
    net = make_net(mask_head=True)
    save_model(root / "gray.safetensors", net, mode="grayscale", training={})
    code = (
        "from agedphoto.app import App; raise SystemExit(App("
        f"model={str(root / 'gray.safetensors')!r}, device='cpu', max_megapixels=1, max_mb=2,"
        "max_queue=3"
        ").run())"
    )
    # Settings of others that would let visitors read all, or tell of them.
    hostile = {
        "GRADIO_ALLOWED_PATHS": "/", "GRADIO_SHARE": "True", "GRADIO_ANALYTICS_ENABLED": "True",
        "GRADIO_SERVER_NAME": "0.0.0.0",
    }  # fmt: skip
    log = root / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=root, stdout=file, stderr=subprocess.STDOUT,
            env=os.environ | hostile | {"TMPDIR": str(root / "temporary")},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 180
        while not (match := re.search(r"serving on (http://127\.0\.0\.1:\d+/)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield Served(match[1], root / "temporary", log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
        assert not list((root / "temporary").glob("agedphoto-app-*")), "all files are gone"
        assert "was not restored" not in log.read_text(), log.read_text()
    finally:
        process.kill()
        process.wait()


class Client:
    """A visitor without a browser."""

    def __init__(self, served: Served, session: str) -> None:
        self.url, self.session, self.web = served.url, session, requests.Session()
        config = self.web.get(f"{self.url}config", timeout=30).json()
        self.functions = {one["api_name"]: one["id"] for one in config["dependencies"]}

    def upload(self, name: str, data: bytes) -> requests.Response:
        return self.web.post(
            f"{self.url}gradio_api/upload", files={"files": (name, data)}, timeout=60
        )

    def join(self, name: str, data: list[Any]) -> requests.Response:
        body = {"data": data, "fn_index": self.functions[name], "session_hash": self.session}
        return self.web.post(f"{self.url}gradio_api/queue/join", json=body, timeout=60)

    def call(self, name: str, data: list[Any]) -> dict[str, Any]:
        assert self.join(name, data).status_code == 200
        listen = f"{self.url}gradio_api/queue/data"
        with self.web.get(
            listen, params={"session_hash": self.session}, stream=True, timeout=60
        ) as answer:
            for line in answer.iter_lines():
                message = json.loads(line[5:]) if line.startswith(b"data:") else {}
                if message.get("msg") == "process_completed":
                    return message
        raise AssertionError("no answer")

    def file(self, path: str) -> requests.Response:
        return self.web.get(f"{self.url}gradio_api/file={path}", timeout=30)


def as_file(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": Path(path).name}


@pytest.mark.slow
def test_one_visitor_never_sees_the_files_of_another(served, tmp_path):
    owner, other = Client(served, "owner00"), Client(served, "other00")
    data = write_photo(tmp_path / "secret.png").read_bytes()
    [uploaded] = owner.upload("secret.png", data).json()
    answer = owner.call("restore", [as_file(uploaded), 1, False, None])
    assert answer["success"], answer
    named = re.findall(r'"path": "([^"]+)"', json.dumps(answer))
    assert len(named) >= 4, "before, after, mask and the download"
    for path in {uploaded, *named}:
        assert owner.file(path).status_code == 200
        assert other.file(path).status_code == 403
        assert other.join("restore", [as_file(path), 1, False, None]).status_code == 403
    result = next(path for path in named if path.endswith("secret_restored.png"))
    with Image.open(io.BytesIO(owner.file(result).content)) as image:
        assert (image.format, image.size) == ("PNG", (128, 128))
    # The same photograph, handed in by another, is theirs too; what was made of it is not.
    assert other.upload("secret.png", data).ok
    assert other.file(result).status_code == 403


@pytest.mark.slow
def test_nothing_else_of_this_machine_is_served(served, tmp_path):
    client = Client(served, "client0")
    (tmp_path / "diary.txt").write_text("1936")
    root = next(served.folder.glob("agedphoto-app-*"))
    assert root.stat().st_mode & 0o077 == 0
    for path in (
        "/etc/passwd", str(tmp_path / "diary.txt"), str(root), f"{root}/../../log", __file__,
        "http://127.0.0.1:1/", "//etc/passwd", "%2Fetc%2Fpasswd",
    ):  # fmt: skip
        assert client.file(path).status_code == 403, path
        assert client.join("restore", [as_file(path), 1, False, None]).status_code == 403, path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("a.png", (1300, 1000), "a.png: has more pixels than this page takes, 1 megapixels"),
        ("a.txt", None, "file type"),
        ("a.jpg", None, "a.jpg: "),
    ],
)
def test_a_visitor_reads_why_a_photo_is_refused(served, name, size, message):
    client = Client(served, f"refused-{name}")
    buffer = io.BytesIO(b"no photograph")
    if size:
        Image.new("L", size).save(buffer, "PNG")
    [path] = client.upload(name, buffer.getvalue()).json()
    for function, data in (("show", []), ("restore", [1, False, None])):
        answer = client.call(function, [as_file(path), *data])
        assert not answer["success"]
        assert message in answer["output"]["error"]
        assert str(served.folder) not in answer["output"]["error"]


@pytest.mark.slow
def test_a_file_that_is_too_large_is_not_even_stored(served):
    answer = Client(served, "large00").upload("a.png", bytes(2_100_000))
    assert answer.status_code == 413
    assert not [path for path in served.folder.rglob("a.png") if path.stat().st_size > 2_000_000]


@pytest.mark.slow
def test_more_visitors_than_may_wait_are_asked_to_come_back(served, tmp_path):
    client = Client(served, "waiting")
    data = write_photo(tmp_path / "a.png", np.tile(RGB, (7, 7, 1))).read_bytes()
    [path] = client.upload("a.png", data).json()
    answers = [client.join("restore", [as_file(path), 1, False, None]) for _ in range(12)]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(refused) >= 6
    assert "Queue is full" in refused[0].text
    # Those that were taken are done, then there is room again.
    deadline = time.monotonic() + 60
    while not client.join("show", [as_file(path)]).ok:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    time.sleep(2)


@pytest.mark.slow
def test_no_photo_is_a_sentence_and_strength_is_checked(served, tmp_path):
    client = Client(served, "nothing")
    answer = client.call("restore", [None, 1, False, None])
    assert answer["output"]["error"] == "Choose a photograph first."
    [path] = client.upload("a.png", write_photo(tmp_path / "a.png").read_bytes()).json()
    assert not client.call("restore", [as_file(path), 7, False, None])["success"]


@pytest.mark.slow
def test_it_listens_on_this_machine_alone(served):
    port = int(served.url.rsplit(":", 1)[1].strip("/"))
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("needs /proc/net/tcp")
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    listening = {row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    assert listening == {f"0100007F:{port:04X}"}


@pytest.mark.slow
def test_the_page_refers_to_no_other_host(served):
    page = requests.get(served.url, timeout=30).text
    fetched = re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(https?://[^"]+)"', page)
    assert [url for url in fetched if not url.startswith(served.url)] == []
    theme = requests.get(f"{served.url}theme.css", timeout=30).text
    assert not re.search(r"url\(\W*https?:|@import|src:", theme)


def find(chrome: Chrome, selector: str) -> Any:
    return WebDriverWait(chrome, 30).until(
        lambda it: it.find_elements(By.CSS_SELECTOR, selector)
    )[0]  # fmt: skip


def seen(element: Any) -> np.ndarray:
    """What is on the screen: (H, W, 3)."""
    with Image.open(io.BytesIO(element.screenshot_as_png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def is_red(pixels: np.ndarray) -> np.ndarray:
    return (pixels[:, :, 0] > 230) & (pixels[:, :, 1:] < 90).all(2)


def shown_pictures(chrome: Chrome) -> set[str]:
    return set(
        chrome.execute_script(
            "return [...document.querySelectorAll('#result img')].map(one => one.src)"
        )
    )


def restore_and_download(chrome: Chrome, folder: Path) -> bytes:
    folder.mkdir()
    allowed = {"behavior": "allow", "downloadPath": str(folder)}
    chrome.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
    before = shown_pictures(chrome)
    find(chrome, "#restore").click()
    # Other pictures have other addresses; until then the button gives the result before.
    WebDriverWait(chrome, 60).until(lambda it: shown_pictures(it) - before)
    WebDriverWait(chrome, 30).until(lambda it: "256 x 256 px" in find(it, "#download").text)
    find(chrome, "#download").click()
    WebDriverWait(chrome, 30).until(lambda _: list(folder.glob("portrait_restored.jpg")))
    return (folder / "portrait_restored.jpg").read_bytes()


@pytest.mark.slow
@pytest.mark.browser
def test_a_photo_is_restored_and_downloaded_in_a_browser(served, browser, tmp_path):
    photo = write_photo(tmp_path / "portrait.jpg", astronaut()[::2, ::2].copy(), quality=95)
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["https://*"]})
    browser.get(served.url)
    find(browser, "#source input[type=file]").send_keys(str(photo))
    find(browser, "#result img")
    plain = restore_and_download(browser, tmp_path / "plain")
    with Image.open(io.BytesIO(plain)) as image:
        assert (image.format, image.size) == ("JPEG", (256, 256))
        assert image.getexif()[0x0110] == CAMERA
    expected = make_restorer(mask_head=True)(read_pages(photo)[0].pixels)
    restored = read_pages(plain)[0].pixels.astype(int)
    assert (
        np.abs(restored - expected).mean() < np.abs(restored - read_pages(photo)[0].pixels).mean()
    )

    # Paint over the middle: only that changes.
    tabs = browser.find_elements(By.CSS_SELECTOR, "[role=tab]")
    next(tab for tab in tabs if tab.text == "Mark damage").click()
    canvas = find(browser, "#damage canvas")
    WebDriverWait(browser, 30).until(lambda _: seen(canvas).mean() < 200)
    ActionChains(browser).move_to_element(canvas).click_and_hold().move_by_offset(
        30, 0
    ).release().perform()
    WebDriverWait(browser, 30).until(lambda _: is_red(seen(canvas)).mean() > 1e-4)
    marked = read_pages(restore_and_download(browser, tmp_path / "marked"))[0].pixels.astype(int)
    changed = np.abs(marked - restored).max(2) > 24
    assert changed[96:160, 96:192].any()
    assert changed[:64].mean() < 0.01

    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map(one => one.name)"
    )
    assert len(fetched) > 10
    assert [url for url in fetched if not url.startswith((served.url, "blob:", "data:"))] == []
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_an_example_is_shown_large_at_any_width(served, browser, width):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get(served.url)
    find(browser, "#examples button img").click()
    shown = find(browser, "#result img")
    WebDriverWait(browser, 30).until(lambda _: shown.size["width"] > 0)
    assert shown.size["width"] > width * 0.6
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
