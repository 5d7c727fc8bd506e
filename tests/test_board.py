"""What TensorBoard is shown, read back with TensorBoard's own reader."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from nano import QUICK, make_batch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agedphoto.train import TrainConfig, train
from agedphoto.train.board import FOLDER, Board

GRID = "clean, aged, restored"


def shown(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run / FOLDER))
    events.Reload()
    return events


def curve(run: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in shown(run).Scalars(name)]


def test_the_numbers_of_a_record_are_curves_over_pairs_seen(tmp_path):
    board = Board(tmp_path, seen=0)
    board.scalars({"seen": 8, "loss": 0.5, "psnr_db": None, "skipped_steps": 1})
    board.scalars({"seen": 16, "loss": 0.25, "psnr_db": 30.0, "skipped_steps": 1})
    board.close()
    assert curve(tmp_path, "loss") == [(8, 0.5), (16, 0.25)]
    assert curve(tmp_path, "psnr_db") == [(16, 30.0)]
    assert set(shown(tmp_path).Tags()["scalars"]) == {"loss", "psnr_db", "skipped_steps"}


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_stand_side_by_side_one_pair_a_row(tmp_path, channels):
    clean = torch.linspace(0, 1, 6)[:, None, None, None].expand(-1, channels, 8, 12)
    board = Board(tmp_path, seen=0)
    # What a network answers may lie beyond black and white.
    board.pictures(clean, clean[:, :1] * 0.5, clean * 3 - 1, seen=16)
    board.close()
    (event,) = shown(tmp_path).Images(GRID)
    assert event.step == 16
    grid = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)), float) / 255
    # Four rows of three, 4 px around each.
    assert grid.shape == (4 * 12 + 4, 3 * 16 + 4, 3)
    for row in range(4):
        light = row / 5
        for column, expected in enumerate((light, light / 2, min(max(3 * light - 1, 0), 1))):
            part = grid[4 + 12 * row : 12 + 12 * row, 4 + 16 * column : 16 + 16 * column]
            assert np.abs(part - expected).max() < 0.005


def test_what_was_shown_after_a_checkpoint_is_taken_back(tmp_path):
    board = Board(tmp_path, seen=0)
    for seen in (8, 16, 24):
        board.scalars({"seen": seen, "loss": 1.0})
    board.close()
    board = Board(tmp_path, seen=16)
    for seen in (24, 32):
        board.scalars({"seen": seen, "loss": 0.5})
    board.close()
    assert curve(tmp_path, "loss") == [(8, 1.0), (16, 1.0), (24, 0.5), (32, 0.5)]


def test_a_training_shows_what_it_logs_and_pictures_at_each_validation(nano, open_pairs, tmp_path):
    config = TrainConfig(
        **QUICK | {"tensorboard": True, "num_pairs": 32, "validate_every": 16, "mask_weight": 0.01}
    )
    done = train(open_pairs(), tmp_path, config, validation=[make_batch(side_px=16)])
    for name in ("loss", "lr", "psnr_db", "ssim", "mask_iou", "identity_psnr_db", "pairs_per_s"):
        expected = [(r["seen"], r[name]) for r in done.log if r.get(name) is not None]
        assert len(expected) in (2, 4)
        assert curve(tmp_path, name) == [(seen, pytest.approx(v)) for seen, v in expected]
    assert [event.step for event in shown(tmp_path).Images(GRID)] == [16, 32]


def test_without_it_nothing_is_written(nano, open_pairs, tmp_path):
    train(open_pairs(), tmp_path, TrainConfig(**QUICK, num_pairs=8))
    assert not (tmp_path / FOLDER).exists()
