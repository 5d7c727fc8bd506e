"""The page, asked without a browser: visitors are kept apart, limits hold, nothing stays behind."""

import io
import re
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from app_pages import (
    Client,
    Served,
    as_file,
    paths_in,
    restoring,
    serving,
    wait_until,
    write_photo,
)
from PIL import Image

from agedphoto.restore.scans import Page, encode_pages

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("app")) as page:
        yield page


@pytest.fixture
def photo(tmp_path) -> bytes:
    return write_photo(tmp_path / "photo.png").read_bytes()


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_one_visitor_never_sees_the_files_of_another(served, photo):
    owner, other = Client(served, "owner00"), Client(served, "other00")
    [uploaded] = owner.upload("secret.png", photo).json()
    shown = owner.show(as_file(uploaded))
    answer = owner.restore(as_file(uploaded))
    assert answer["success"], answer
    named = paths_in(answer)
    assert len(named) >= 4, "before, after, mask and the download"
    for path in {uploaded, *named, *paths_in(shown)}:
        assert owner.file(path).status_code == 200
        assert other.file(path).status_code == 403
        assert other.join("restore", restoring(as_file(path))).status_code == 403
        assert other.join("show", [as_file(path)]).status_code == 403
        marks = {"background": None, "layers": [as_file(path)], "composite": None}
        assert other.join("restore", restoring(None, marks=marks)).status_code == 403
    result = next(path for path in named if path.endswith("secret_restored.png"))
    with Image.open(io.BytesIO(owner.file(result).content)) as image:
        assert (image.format, image.size) == ("PNG", (128, 128))
    # The same photograph, handed in by another, is theirs too; what was made of it is not.
    assert other.upload("secret.png", photo).ok
    assert other.file(result).status_code == 403


def test_one_visitor_never_hears_or_stops_what_is_done_for_another(served, photo):
    owner, other = Client(served, "owner01"), Client(served, "owner01")
    [path] = owner.upload("photo.png", photo).json()
    api = f"{served.url}gradio_api"
    with served.holding():
        event = owner.join("restore", restoring(as_file(path))).json()["event_id"]
        heard = other.web.get(f"{api}/queue/data", params={"session_hash": "owner01"}, timeout=60)
        assert heard.status_code == 403
        body = {"session_hash": "owner01", "fn_index": owner.functions["restore"]}
        stopped = other.web.post(f"{api}/cancel", json={**body, "event_id": event}, timeout=60)
        assert stopped.status_code == 403
    done = next(one for one in owner.listen() if one["msg"] == "process_completed")
    assert any(path.endswith("photo_restored.png") for path in paths_in(done))


def test_nothing_else_of_this_machine_is_served(served, tmp_path):
    client = Client(served, "client0")
    (tmp_path / "diary.txt").write_text("1936")
    root = served.folder
    assert root.stat().st_mode & 0o077 == 0
    for path in (
        "/etc/passwd", str(tmp_path / "diary.txt"), str(root), f"{root}/../../log", __file__,
        "http://127.0.0.1:1/", "//etc/passwd", "%2Fetc%2Fpasswd",
    ):  # fmt: skip
        assert client.file(path).status_code == 403, path
        assert client.join("restore", restoring(as_file(path))).status_code == 403, path


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.png", png(1300, 1000), "a.png: has more pixels than this page takes, 1 megapixels"),
        (
            "a.tif",
            encode_pages([Page(pixels=np.zeros((4, 4), np.uint8))] * 500, "TIFF"),
            "a.tif: has more pages than this page takes, 9",
        ),
        (
            # 60,000 x 60,000 in its header.
            "bomb.png",
            png(8, 8)[:16] + struct.pack(">II", 60_000, 60_000) + png(8, 8)[24:],
            "bomb.png: ",
        ),
        ("a.txt", b"no photograph", "a.txt: files of this type are not taken"),
        ("a.jpg", b"no photograph", "a.jpg: not a picture that can be read here."),
        ("a.png", b"", "a.png: "),
        ("../../../evil.jpg", b"no photograph", "evil.jpg: not a picture"),
        ("<img src=x onerror=alert(1)>.jpg", b"no photograph", ".jpg: not a picture"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_visitor_reads_why_a_photo_is_refused_and_nothing_stays(served, name, data, message):
    client = Client(served, f"refused-{len(data)}-{abs(hash(name))}")
    before = served.files()
    [path] = client.upload(name, data).json()
    assert Path(path).resolve().is_relative_to(served.folder)
    restored = client.restore(as_file(path))
    shown = client.show(as_file(path))
    for answer in (restored, shown):
        assert message in answer["told"]
        assert str(served.folder) not in answer["told"]
        assert "<" not in answer["told"]
    assert shown["output"]["data"][1] is None, "it is chosen no more"
    assert served.files() == before
    assert not list(served.root.rglob("evil.jpg"))


def test_a_photo_that_was_swept_away_is_a_sentence(served, photo):
    client = Client(served, "swept00")
    [path] = client.upload("swept.png", photo).json()
    Path(path).unlink()
    assert client.show(as_file(path))["told"].startswith("This photograph was removed")


def test_a_file_that_is_too_large_is_not_even_stored(served):
    before = served.files()
    answer = Client(served, "large00").upload("a.png", bytes(2_100_000))
    assert answer.status_code == 413
    assert served.files() == before


def test_paint_that_is_a_bomb_is_refused(served, photo):
    client = Client(served, "paint00")
    [path] = client.upload("photo.png", photo).json()
    [layer] = client.upload("layer.png", png(3000, 3000)).json()
    marks = {"background": None, "layers": [as_file(layer)], "composite": None}
    # Those count that were made on this photograph: it must be in the editor.
    assert client.call("open_editor", [as_file(path), None])["success"]
    told = client.restore(as_file(path), marks=marks)["told"]
    assert told == "What you have marked cannot be read; choose the photograph again."


def test_more_visitors_than_may_wait_are_asked_to_come_back(served, photo):
    client = Client(served, "waiting")
    [path] = client.upload("a.png", photo).json()
    with served.holding():
        answers = [client.join("restore", restoring(as_file(path))) for _ in range(12)]
        taken = [answer for answer in answers if answer.ok]
        refused = [answer for answer in answers if not answer.ok]
        # One is in the network, three wait.
        assert 3 <= len(taken) <= 4
        assert {answer.status_code for answer in refused} == {503}
        assert "Queue is full" in refused[0].text
    done = [one for one in client.listen() if one["msg"] == "process_completed"]
    assert len(done) == len(taken), "those that were taken are done"
    assert client.show(as_file(path))["success"], "then there is room again"


def test_a_photo_is_shown_while_another_is_restored(served, photo):
    busy, quick = Client(served, "busy000"), Client(served, "quick00")
    [path] = busy.upload("a.png", photo).json()
    with served.holding():
        assert busy.join("restore", restoring(as_file(path))).ok
        [chosen] = quick.upload("b.png", photo).json()
        assert paths_in(quick.show(as_file(chosen)))
    assert any(one["msg"] == "process_completed" for one in busy.listen())


def test_no_photo_is_a_sentence_and_strength_is_checked(served, photo):
    client = Client(served, "nothing")
    answer = client.restore(None)
    assert answer["told"] == "Choose a photograph first."
    [path] = client.upload("a.png", photo).json()
    assert client.restore(as_file(path), strength=7)["told"] == "strength must be 0 to 1, got 7."


def test_what_goes_wrong_with_us_is_told_without_details(served, photo):
    client = Client(served, "broken0")
    [path] = client.upload("broken.png", photo).json()
    told = client.restore(as_file(path))["told"]
    assert told.startswith("Something went wrong here")
    assert "on purpose" not in told
    assert "RuntimeError: broken on purpose" in served.log


def test_it_listens_on_this_machine_alone(served):
    port = int(served.url.rsplit(":", 1)[1].strip("/"))
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("needs /proc/net/tcp")
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    listening = {row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    assert listening == {f"0100007F:{port:04X}"}


def test_the_page_refers_to_no_other_host(served):
    page = requests.get(served.url, timeout=60).text
    fetched = re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(https?://[^"]+)"', page)
    assert [url for url in fetched if not url.startswith(served.url)] == []
    theme = requests.get(f"{served.url}theme.css", timeout=60).text
    assert not re.search(r"url\(\W*https?:|@import|src:", theme)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_no_file_outlives_a_page_that_is_ended_while_it_restores(tmp_path, photo, number):
    with serving(tmp_path) as page:
        client = Client(page, "ending0")
        [path] = client.upload("a.png", photo).json()
        with page.holding():
            assert client.join("restore", restoring(as_file(path))).ok
            messages = client.listen()
            next(one for one in messages if one["msg"] == "process_starts")
            before = page.files()
            page.process.send_signal(number)
            wait_until(lambda: not before & set(page.temporary.rglob("*")))
        page.wait_for_end()
