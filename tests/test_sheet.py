"""Contact sheets show what there is: originals, ageings, and every defect at five strengths."""

from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

from agedphoto.age import Age
from agedphoto.age_photos import AgeJob, photo_key
from agedphoto.age_sheets import (
    CELL_PX,
    ROWS_OF_PAGE,
    STRENGTHS,
    AgeingSheets,
    defect_rows,
    most_changed,
    sheet_paths,
)
from agedphoto.sheet import Cell, Row, draw_sheet, make_cell, shrink
from agedphoto.synth import DEFECTS, Ageing
from tests.conftest import photo_like

ALWAYS_THERE = {"grayscale"}
"""Defects that severity has no part in."""


@pytest.fixture(autouse=True)
def _few_textures(monkeypatch, textures):
    monkeypatch.setattr(Ageing, "textures_on", lambda self, device: textures.to(device))


def run(*arguments: object) -> int:
    return tyro.cli(Age, args=[str(argument) for argument in arguments]).run()


def load(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def plain(color: int, height: int = 40, width: int = 60) -> Image.Image:
    return Image.new("RGB", (width, height), (color, 255 - color, color // 2))


def place_of(part: Image.Image, sheet: Image.Image) -> tuple[int, int]:
    """Row and column at which a picture of one colour begins; it must be there as a whole."""
    wanted = np.asarray(part)[0, 0]
    found = (np.asarray(sheet) == wanted).all(2)
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    assert (len(rows), len(columns)) == (part.height, part.width)
    assert found.sum() == part.height * part.width
    return int(rows[0]), int(columns[0])


# ---------------------------------------------------------------- layout


def test_small_pictures_are_means_over_areas():
    picture = photo_like(60, 90, seed=0)
    small = np.asarray(shrink(picture, 30), float)
    expected = picture.reshape(20, 3, 30, 3, 3).mean((1, 3))
    assert small.shape == (20, 30, 3)
    assert np.abs(small - expected).max() <= 1


@pytest.mark.parametrize("size", [(2000, 37), (37, 2000), (1111, 1313), (1, 4000)])
def test_large_pictures_are_made_small_in_strips(size):
    picture = np.add.outer(np.arange(size[0]), np.arange(size[1])) % 256
    picture = np.repeat(picture.astype(np.uint8)[:, :, None], 3, 2)
    small = shrink(picture, 100)
    assert max(small.size) == 100
    assert small.width == max(1, round(size[1] * 100 / max(size)))
    assert np.asarray(small).mean() == pytest.approx(picture.mean(), abs=2.5)


def test_small_pictures_stay_as_they_are_and_need_no_detail():
    picture = photo_like(30, 40, seed=0)
    cell = make_cell(picture, cell_px=40)
    assert np.array_equal(np.asarray(cell.whole), picture)
    assert cell.detail is None
    assert make_cell(picture[:, :, 0], cell_px=40).whole.mode == "RGB"


@pytest.mark.parametrize("centre", [(0.5, 0.5), (0.0, 0.0), (1.0, 1.0), (0.3, 0.9)])
@pytest.mark.parametrize("size", [(200, 300), (300, 200), (20, 300), (300, 7)])
def test_a_detail_is_a_part_of_the_picture_pixel_by_pixel(centre, size):
    picture = photo_like(*size, seed=1)
    detail = make_cell(picture, cell_px=80, centre=centre).detail
    assert detail is not None
    assert detail.size == (min(size[1], 80), min(size[0], 40))
    top = round(min(max(centre[0] * size[0] - detail.height / 2, 0), size[0] - detail.height))
    left = round(min(max(centre[1] * size[1] - detail.width / 2, 0), size[1] - detail.width))
    expected = picture[top : top + detail.height, left : left + detail.width]
    assert np.array_equal(np.asarray(detail), expected)


@pytest.mark.parametrize("num_blocks", [1, 2, 3])
def test_every_picture_is_on_the_sheet_in_rows_and_columns(num_blocks):
    cells = [
        [Cell(plain(10 + 20 * row + 7 * column), None) for column in range(2)] for row in range(5)
    ]
    rows = [Row(f"row {number}", cells[number]) for number in range(5)]
    sheet = draw_sheet(rows, title="all", columns=["a", "b"], cell_px=70, num_blocks=num_blocks)
    places = [[place_of(cell.whole, sheet) for cell in row] for row in cells]
    tall = -(-5 // num_blocks)
    for number, (first, second) in enumerate(places):
        assert first[0] == second[0]
        assert second[1] - first[1] >= 70
        block, within = divmod(number, tall)
        assert first[1] == places[block * tall][0][1]
        assert first[0] == places[within][0][0]
        if within:
            assert first[0] >= places[number - 1][0][0] + 40
    assert sheet.width >= places[-1][1][1] + 60
    # Nothing but ground at the border.
    border = np.asarray(sheet)
    for side in (border[0], border[-1], border[:, 0], border[:, -1]):
        assert (side == border[0, 0]).all()


def test_details_lie_below_the_pictures():
    row = Row("x", [Cell(plain(10), plain(50, 20)), Cell(plain(90, 30), plain(130, 20))])
    sheet = draw_sheet([row], title="", columns=["", ""], cell_px=60)
    (top, left), (below, same) = place_of(plain(10), sheet), place_of(plain(50, 20), sheet)
    assert (same, below >= top + 40) == (left, True)
    assert place_of(plain(130, 20), sheet)[0] == below


def test_long_and_odd_names_fit():
    row = Row("x" * 5000 + "\n\x07", [Cell(plain(10), None)])
    sheet = draw_sheet([row], title="\n" * 9 + "y" * 5000, columns=["z" * 99], cell_px=60)
    assert sheet.width < 200
    assert place_of(plain(10), sheet)[0] < 150
    assert np.unique(np.asarray(sheet)[:, -20:]).tolist() == [24]


# ---------------------------------------------------------------- ageings


def fill(sheets: AgeingSheets, tmp_path, names: list[str]) -> None:
    for name in names:
        job = AgeJob(source=tmp_path / name, name=name, target=tmp_path / f"{name}.png")
        for number in range(len(sheets.seeds) + 1):
            sheets.show(job, number, np.full((20, 30, 3), 40 * number, np.uint8))
    sheets.flush()


@pytest.mark.parametrize("num_photos", [1, ROWS_OF_PAGE, ROWS_OF_PAGE + 1, 2 * ROWS_OF_PAGE])
def test_many_photos_take_several_sheets(tmp_path, num_photos):
    paths = sheet_paths(tmp_path, num_photos)
    sheets = AgeingSheets(paths, "t", [0, 1])
    fill(sheets, tmp_path, [f"{number}" for number in range(num_photos)])
    assert sheets.written == paths == sorted(tmp_path.iterdir())
    assert len(paths) == -(-num_photos // ROWS_OF_PAGE)
    assert (paths[0].name == "contact_sheet.jpg") == (num_photos <= ROWS_OF_PAGE)


def test_without_a_photo_there_is_no_sheet(tmp_path):
    sheets = AgeingSheets(sheet_paths(tmp_path, 1), "t", [0])
    sheets.flush()
    assert sheets.written == list(tmp_path.iterdir()) == []


def test_a_photo_that_failed_half_way_is_not_on_the_sheet(tmp_path):
    sheets = AgeingSheets(sheet_paths(tmp_path, 2), "t", [0, 1])
    job = AgeJob(source=tmp_path / "a", name="a", target=tmp_path / "a.png")
    sheets.show(job, 0, np.zeros((20, 30, 3), np.uint8))
    sheets.show(job, 1, np.zeros((20, 30, 3), np.uint8))
    fill(sheets, tmp_path, ["b"])
    one = load(sheets.written[0])
    fill(other := AgeingSheets([tmp_path / "other.jpg"], "t", [0, 1]), tmp_path, ["b"])
    assert one.size == load(other.written[0]).size


def test_a_sheet_shows_each_photo_beside_what_other_seeds_make_of_it(make_photos, tmp_path, capsys):
    photos = make_photos([(40, 50), (60, 44)])
    out, sheet = tmp_path / "out", tmp_path / "out" / "contact_sheet.jpg"
    assert run(photos, "--out", out, "--seed", 5, "--num-ageings", 2, "--sheet") == 0
    assert f"contact sheet: {sheet}" in capsys.readouterr().out
    assert run(photos, "--out", tmp_path / "six", "--seed", 6) == 0
    shown = np.asarray(load(sheet), float)
    # Small photos are shown pixel by pixel; JPEG of quality 92 is off by a few levels.
    y = x = 0
    for column, source in enumerate((photos, out, tmp_path / "six")):
        name = "0000.png" if column == 0 else "0000_aged.png"
        wanted = np.asarray(load(source / name).convert("RGB"), float)
        if column == 0:
            distance = [
                (np.abs(shown[a : a + 40, b : b + 50] - wanted).mean(), a, b)
                for a in range(60, 130) for b in range(20, 40)
            ]  # fmt: skip
            best, y, x = min(distance)
            assert best < 6
        left = x + column * (CELL_PX + 6)
        assert np.abs(shown[y : y + 40, left : left + 50] - wanted).mean() < 10
    # What was not written has no files.
    assert {path.name for path in out.iterdir()} == {
        "0000_aged.png", "0001_aged.png", "contact_sheet.jpg",
    }  # fmt: skip


def test_a_bad_photo_is_left_out_of_the_sheet(make_photos, tmp_path):
    photos = make_photos([(40, 50)] * 2)
    (photos / "0000.png").write_bytes(b"none")
    assert run(photos, "--out", tmp_path / "a", "--sheet") == 1
    assert run(photos / "0001.png", "--out", tmp_path / "b", "--sheet") == 0
    both = [(tmp_path / name / "contact_sheet.jpg").read_bytes() for name in "ab"]
    assert both[0] == both[1]


# ---------------------------------------------------------------- defects


def test_every_defect_is_shown_at_five_strengths_from_none_on(textures):
    photo = photo_like(60, 90, seed=0)
    rows = list(defect_rows(photo, keys=photo_key(0, "a"), textures=textures))
    assert [row.label for row in rows] == [name.replace("_", " ") for name in DEFECTS]
    for name, row in zip(DEFECTS, rows, strict=True):
        assert len(row.cells) == len(STRENGTHS)
        untouched = np.array_equal(np.asarray(row.cells[0].whole), photo)
        assert untouched == (name not in ALWAYS_THERE), name


def test_a_detail_shows_where_most_has_changed():
    before = np.full((200, 300, 3), 90, np.uint8)
    after = before.copy()
    after[150:170, 30:60] = 200
    y, x = most_changed(before, after, 80)
    assert 0.7 < y < 0.9
    assert 0.05 < x < 0.25
    assert most_changed(before, before, 80) == pytest.approx((0.5, 0.5), abs=0.1)
    assert most_changed(before[:1, :1], after[:1, :1], 80) == (0.5, 0.5)


def test_a_sheet_of_defects_for_each_photo_and_nothing_else(make_photos, tmp_path, capsys):
    photos = make_photos([(40, 50)])
    make_photos([(300, 260)], folder="photos/1950")
    (photos / "bad.jpg").write_text("none")
    out = tmp_path / "out"
    assert run(photos, "--out", out, "--sheet", "defects") == 1
    said = capsys.readouterr()
    assert "agedphoto: not shown: " in said.err
    assert "bad.jpg" in said.err
    made = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert made == {"0000_defects.jpg", "1950/0000_defects.jpg"}
    assert load(out / "1950" / "0000_defects.jpg").width > 5 * 240


def test_sheets_of_two_photos_of_one_name_are_refused(make_photos, tmp_path):
    photos = make_photos([(40, 50)])
    load(photos / "0000.png").save(photos / "0000.jpg")
    with pytest.raises(ValueError, match=r"would both be written to .*0000_defects\.jpg"):
        run(photos, "--out", tmp_path / "out", "--sheet", "defects")
    assert not (tmp_path / "out").exists()


def test_a_sheet_is_the_same_on_every_device(device, textures):
    photo = photo_like(60, 90, seed=0)

    def wholes(place: torch.device) -> list[np.ndarray]:
        rows = defect_rows(photo, keys=photo_key(0, "a").to(place), textures=textures.to(place))
        return [np.asarray(cell.whole, int) for row in rows for cell in row.cells]

    for one, other in zip(wholes(torch.device("cpu")), wholes(device), strict=True):
        assert (np.abs(one - other).max(2) <= 2).mean() > 0.999
