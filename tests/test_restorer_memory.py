"""Memory runs out, and the work goes on; and of a large picture little is in memory at a time."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from agedphoto.restore import Restorer
from agedphoto.restore import memory as module
from agedphoto.restore.memory import bytes_per_pixel, is_out_of_memory, tile_px_for
from agedphoto.restore.restorer import AT_ONCE_PX
from agedphoto.train import PRESETS, ModelCard, UNet, UNetConfig, net_shape

CPU = torch.device("cpu")
PHOTO = np.random.default_rng(0).random((600, 400), np.float32)


class Greedy(UNet):
    """Has memory for tiles of up to so many pixels, and turns the tone around."""

    most_px = 1 << 40
    most_together = 1 << 40
    error: Exception = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate a lot")
    fails_after = 0
    """Memory may also go half way through a picture."""

    def forward(self, aged, *, with_mask=False):  # type: ignore[override]
        if aged.shape[-2] * aged.shape[-1] > self.most_px or len(aged) > self.most_together:
            if not self.fails_after:
                raise self.error
            self.fails_after -= 1
        return 1 - aged


def greedy(**facts) -> Restorer:
    net = Greedy(UNetConfig(widths=(4, 6), blocks=1, middle_blocks=1))
    for name, value in facts.items():
        setattr(net, name, value)
    return Restorer(net, ModelCard(mode="grayscale", net=net_shape(net), training={}), device="cpu")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
@pytest.mark.parametrize("fails_after", [0, 3])
def test_out_of_memory_halves_the_tiles_and_goes_on(error, fails_after):
    restorer = greedy(most_px=104 * 104, error=error, fails_after=fails_after)
    with pytest.warns(UserWarning, match=r"not enough memory on cpu for tiles of 208 px; going on"):
        restored = restorer(PHOTO, tile=208)
    np.testing.assert_allclose(restored, 1 - PHOTO, atol=1e-6)
    # Known from then on.
    assert restorer.check() == 104


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_where_several_tiles_are_too_many_they_go_one_by_one(error, monkeypatch):
    monkeypatch.setitem(AT_ONCE_PX, "cpu", 3 * 104 * 104)
    restorer = greedy(most_together=1, error=error)
    message = "^not enough memory on cpu for 3 tiles of 104 px; going on with one at a time$"
    with pytest.warns(UserWarning, match=message):
        restored = restorer(PHOTO, tile=104)
    np.testing.assert_allclose(restored, 1 - PHOTO, atol=1e-6)
    # Known from then on, and no smaller tiles than asked for.
    np.testing.assert_allclose(restorer(PHOTO, tile=104), 1 - PHOTO, atol=1e-6)


def test_where_memory_is_short_fewer_tiles_go_together(monkeypatch):
    monkeypatch.setitem(AT_ONCE_PX, "cpu", 1 << 40)
    restorer = greedy()
    assert isinstance(restorer.net, UNet)
    config = restorer.net.config
    monkeypatch.setattr(
        module, "free_bytes", lambda device: int(2 * bytes_per_pixel(config) * 5.5 * 64**2)
    )
    assert restorer._count_at_once(64) == 5
    assert restorer._count_at_once(128) == 1


def test_what_never_fits_is_an_error_with_a_remedy():
    restorer = greedy(most_px=0)
    with (
        pytest.warns(UserWarning, match="going on with tiles of"),
        pytest.raises(ValueError, match=r"not enough memory on cpu for tiles of \d+ px, the small"),
    ):
        restorer(PHOTO, tile=256)


def test_a_device_without_memory_is_left_for_the_cpu(monkeypatch):
    restorer = greedy()
    restorer.device = torch.device("meta")
    monkeypatch.setattr(restorer.net, "to", lambda device: restorer.net)
    real, calls = Greedy.forward, []

    def forward(self, aged, *, with_mask=False):
        calls.append(aged.device.type)
        if aged.device.type == "meta":
            raise torch.OutOfMemoryError("no memory there at all")
        return real(self, aged, with_mask=with_mask)

    monkeypatch.setattr(Greedy, "forward", forward)
    with pytest.warns(UserWarning, match="not enough memory on meta .* going on on the CPU"):
        restored = restorer(PHOTO, tile=104)
    np.testing.assert_allclose(restored, 1 - PHOTO, atol=1e-6)
    assert restorer.device == CPU
    assert calls[0] == "meta"
    assert set(calls[1:]) == {"cpu"}


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        greedy(most_px=0, error=RuntimeError("a mistake of ours"))(PHOTO)
    assert not is_out_of_memory(ValueError("can't allocate memory"))


@pytest.mark.parametrize("preset", PRESETS)
def test_less_free_memory_means_smaller_tiles(preset, monkeypatch):
    sides = []
    for free in (1 << 26, 1 << 28, 1 << 30):
        monkeypatch.setattr(module, "free_bytes", lambda device, free=free: free)
        sides.append(tile_px_for(PRESETS[preset], CPU))
        assert sides[-1] ** 2 * bytes_per_pixel(PRESETS[preset]) <= free / 2
    assert sides == sorted(set(sides))


def test_free_memory_is_what_the_system_says():
    psutil = pytest.importorskip("psutil")
    assert module.free_bytes(CPU) == pytest.approx(psutil.virtual_memory().available, rel=0.2)


RESTORE = """
import json, resource, sys
import numpy as np
from agedphoto.restore import Restorer
from agedphoto.train import ModelCard, UNet, UNetConfig, net_shape

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

net = UNet(UNetConfig(widths=(4, 6), blocks=1, middle_blocks=1))
card = ModelCard(mode="grayscale", net=net_shape(net), training={})
restorer = Restorer(net, card, device="cpu")
restorer(np.zeros((1024, 1024, 3), np.uint8), tile=1024)
height, width = json.loads(sys.argv[1])
picture = np.full((height, width, 3), 7, np.uint8)
before = peak()
restored = restorer(picture, tile=1024)
assert (restored == 7).all()
print(json.dumps({"bytes": picture.nbytes, "more": peak() - before}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
@pytest.mark.parametrize("size", [(7000, 7150), (1500, 33_400)])
def test_50_megapixels_take_the_result_and_a_row_of_tiles(size):
    done = subprocess.run(
        [sys.executable, "-c", RESTORE, json.dumps(size)], capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    facts = json.loads(done.stdout)
    # A row of tiles as floats: luma, its continuation to the grid, the answer, what is shared.
    row = 1024 * size[1] * 4 * 5
    assert facts["more"] < facts["bytes"] + row + (200 << 20)
