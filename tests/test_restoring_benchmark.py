"""The benchmark of restoring runs, at tiny size; what it measures is not tested."""

import pytest
import torch
from test_benchmarks import missing, run

from agedphoto.benchmarks.restore import hard_cut_tiles


@pytest.mark.slow
def test_restoring_is_measured_beside_hard_cut_tiles_and_one_piece(tmp_path):
    record, _ = run(tmp_path, "restore")
    small, large = 0.1, 0.2
    rows = [row for row in record.rows if row.table == "restoring"]
    assert [(row.name, row.by["megapixels"]) for row in rows] == [
        ("agedphoto", small), ("hard-cut tiles", small), ("whole", small),
        ("agedphoto", large), ("hard-cut tiles", large),
    ]  # fmt: skip
    for row in rows:
        assert row.more["seconds"] > 0
        assert "gpu_gib" not in row.more
    seams = {row.name: row for row in record.rows if row.table == "seams"}
    assert 0 <= seams["agedphoto"].more["seam_mean"] <= seams["agedphoto"].median
    assert seams["hard-cut tiles"].median > 0
    assert missing(record, "restoring")["a GPU"] == "it needs a CUDA device"
    assert record.settings["weights"] == "random"


def test_hard_cut_tiles_of_a_network_that_sees_no_farther_than_their_margin_are_exact():
    picture = torch.rand(1, 70, 53, generator=torch.Generator().manual_seed(0))
    cpu = torch.device("cpu")

    def net(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.max_pool2d(x, 5, stride=1, padding=2)

    assert torch.equal(hard_cut_tiles(net, picture, tile_px=32, device=cpu), net(picture[None])[0])
