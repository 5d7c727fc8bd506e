"""The curves of a training as a picture of their own."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from agedphoto.curve import write_curve

SVG = "{http://www.w3.org/2000/svg}"


def record(seen: int, **figures: float | None) -> dict[str, Any]:
    return {"seen": seen, "seconds": seen / 100, "loss": 0.5 / seen, "psnr_db": None} | figures


def drawn(log: list[dict[str, Any]], folder: Path) -> ElementTree.Element:
    write_curve(log, folder / "curve.svg")
    assert [path.name for path in folder.iterdir()] == ["curve.svg"]
    return ElementTree.parse(folder / "curve.svg").getroot()


def titles(root: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text") if text.get("class") == "title"]


def lines(root: ElementTree.Element) -> list[list[tuple[float, float]]]:
    return [
        [
            (float(x), float(y))
            for x, y in (point.split(",") for point in line.get("points", "").split())
        ]
        for line in root.iter(f"{SVG}polyline")
    ]


@pytest.mark.parametrize(
    ("figure", "title"),
    [
        ("psnr_db", "PSNR on validation pairs (dB)"),
        ("cross_entropy", "Cross-entropy of colours on validation pairs (nats)"),
    ],
)
def test_loss_and_validation_stand_side_by_side(tmp_path, figure, title):
    log = [record(10 * n, **{figure: 20.0 + n if n % 2 else None}) for n in range(1, 9)]
    root = drawn(log, tmp_path)
    assert root.tag == f"{SVG}svg"
    assert titles(root) == ["Training loss (log scale)", title]
    loss, validation = lines(root)
    assert (len(loss), len(validation)) == (8, 4)
    # Up is down: the loss falls, so y grows; PSNR rises.
    assert [y for _, y in loss] == sorted(y for _, y in loss)
    assert [y for _, y in validation] == sorted((y for _, y in validation), reverse=True)
    panels = [group for group in root.iter(f"{SVG}g") if "translate" in group.get("transform", "")]
    left = [float(panel.get("transform", "").split("(")[1].split()[0]) for panel in panels]
    width = float(root.get("viewBox", "").split()[2])
    assert left[0] + 420 <= left[1]
    assert left[1] + 420 <= width


def test_without_validation_there_is_the_loss_alone(tmp_path):
    root = drawn([record(10), record(20)], tmp_path)
    assert titles(root) == ["Training loss (log scale)"]


def test_one_line_of_the_log_is_a_curve_already(tmp_path):
    assert len(lines(drawn([record(10, psnr_db=20.0)], tmp_path))) == 2


def test_what_is_not_known_is_left_out(tmp_path):
    root = drawn([record(10), record(20, loss=None), record(30)], tmp_path)
    assert [len(line) for line in lines(root)] == [2]
    assert lines(drawn([record(10, loss=None)], tmp_path)) == []
