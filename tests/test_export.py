"""Exported networks answer as the networks do, at any size, without any code of agedphoto's."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nano import NANO_COLORS, drawn, nano_objective
from PIL import Image

from agedphoto.exporting import Export
from agedphoto.restore import export
from agedphoto.restore.export import AnySize, export_onnx, export_program
from agedphoto.restore.tiles import overlap_px_for
from agedphoto.train import ColorNet, LabNet, UNet, load_model, save_model

onnxruntime = pytest.importorskip("onnxruntime")

DOCS = Path(__file__).resolve().parents[1] / "docs" / "exporting.md"
SIZES = [(1, 1, 1), (2, 3, 3), (1, 2, 50), (2, 37, 41), (3, 64, 32)]


@pytest.fixture
def saved(nano, tmp_path):
    """A network that tells damage, as a file."""
    path = tmp_path / "net.safetensors"
    save_model(path, drawn(nano_objective()), mode="grayscale", training={})  # type: ignore[arg-type]
    return path


@pytest.fixture
def saved_lab(nano, tmp_path):
    """Both networks of mode lab, as a file."""
    path = tmp_path / "lab.safetensors"
    luminance = drawn(nano_objective(mask_weight=0))
    assert isinstance(luminance, UNet)
    torch.manual_seed(0)
    color = ColorNet(NANO_COLORS)
    with torch.no_grad():
        for weight in color.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    save_model(path, LabNet(color, luminance), mode="lab", training={})
    return path


def pictures(seed: int = 3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(b, 1, h, w, generator=generator) for b, h, w in SIZES]


def session_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@torch.no_grad()
def test_onnx_answers_as_the_network_at_any_size(saved, tmp_path):
    assert Export(model=str(saved), onnx=tmp_path / "net.onnx").run() == 0
    session = session_of(tmp_path / "net.onnx")
    assert [one.name for one in session.get_inputs()] == ["picture"]
    assert session.get_inputs()[0].shape == ["batch", 1, "height", "width"]
    assert [one.name for one in session.get_outputs()] == ["restored", "damage"]
    assert session.get_outputs()[0].shape == ["batch", 1, "height", "width"]
    net, card = load_model(saved)
    assert isinstance(net, UNet)
    for picture in pictures():
        restored, damage = session.run(None, {"picture": picture.numpy()})
        answer, logits = net(picture, with_mask=True)
        np.testing.assert_allclose(restored, answer.clamp(0, 1), atol=1e-3)
        np.testing.assert_allclose(damage, logits.sigmoid(), atol=1e-3)
    said = session.get_modelmeta().custom_metadata_map
    assert said["agedphoto.mode"] == "grayscale"
    assert said["agedphoto.part"] == "picture"
    assert said["agedphoto.stride"] == str(net.config.stride)
    assert said["agedphoto.overlap_px"] == str(overlap_px_for(net.config))
    assert said["agedphoto.sha256"] == card.sha256 != ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net.safetensors"]


@torch.no_grad()
def test_a_program_answers_as_the_network_at_any_size(saved, tmp_path):
    assert Export(model=str(saved), program=tmp_path / "net.pt2").run() == 0
    said = {"agedphoto.json": ""}
    with (tmp_path / "net.pt2").open("rb") as file:
        module = torch.export.load(file, extra_files=said).module()
    net, card = load_model(saved)
    for picture in pictures():
        restored, _ = module(picture)
        torch.testing.assert_close(restored, net(picture).clamp(0, 1), atol=1e-3, rtol=0)
    assert json.loads(said["agedphoto.json"])["sha256"] == card.sha256


@torch.no_grad()
def test_mode_lab_becomes_a_file_for_each_network(saved_lab, tmp_path):
    net, card = load_model(saved_lab)
    done = export_onnx(net, card, tmp_path / "lab.onnx")
    names = {one.part: one.path.name for one in done}
    assert names == {"luminance": "lab-luminance.onnx", "color": "lab-color.onnx"}
    assert not (tmp_path / "lab.onnx").exists()
    session = session_of(tmp_path / "lab-color.onnx")
    for picture in pictures():
        (ab,) = session.run(None, {"picture": picture.numpy()})
        B, _, H, W = picture.shape
        assert ab.shape == (B, 2, -(-H // 4), -(-W // 4))
    assert session.get_outputs()[0].shape == ["batch", 2, "quarter_height", "quarter_width"]
    assert session.get_modelmeta().custom_metadata_map["agedphoto.stride"] == "16"


@torch.no_grad()
def test_padding_by_places_is_the_padding_of_the_network(saved):
    net, _ = load_model(saved)
    assert isinstance(net, UNet)
    for picture in pictures():
        assert torch.equal(AnySize(net)(picture)[0], net(picture).clamp(0, 1))


@pytest.mark.parametrize("write", [export_onnx, export_program])
def test_a_file_that_answers_otherwise_is_not_written(saved_lab, tmp_path, monkeypatch, write):
    right = export._reference

    def wrong(net, picture):
        answers = right(net, picture)
        # The first part is good already when the second turns out bad.
        return tuple(one + 1 for one in answers) if isinstance(net, ColorNet) else answers

    monkeypatch.setattr(export, "_reference", wrong)
    net, card = load_model(saved_lab)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"-color\S* is not written: .* differ .* by 0\.01 "):
        write(net, card, tmp_path / "lab.onnx")
    assert sorted(tmp_path.iterdir()) == before


def test_missing_packages_are_one_clear_error(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else sys)
    with pytest.raises(ValueError, match=r"needs onnxscript; .*agedphoto\[export\]"):
        Export(model=str(saved), onnx=tmp_path / "net.onnx").run()
    assert not (tmp_path / "net.onnx").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to write"),
        ({"onnx": "net.pt2"}, r"onnx must end in \.onnx"),
        ({"program": "net.onnx"}, r"program must end in \.pt2"),
        ({"onnx": "folder.onnx"}, "must be a file"),
        ({"onnx": "file/net.onnx"}, "cannot write into"),
    ],
)
def test_wrong_options_are_refused(saved, tmp_path, options, message):
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").touch()
    paths = {name: tmp_path / value for name, value in options.items()}
    with pytest.raises(ValueError, match=message):
        Export(model=str(saved), **paths).run()


def test_the_examples_of_the_documentation_run(saved, tmp_path, make_photos, monkeypatch, capsys):
    (photo,) = make_photos([(37, 53)]).iterdir()
    photo.rename(tmp_path / "old.png")
    monkeypatch.chdir(tmp_path)
    assert Export(model=str(saved), onnx=Path("mine.onnx"), program=Path("mine.pt2")).run() == 0
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    capsys.readouterr()
    for block in blocks:
        exec(block, {})
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "grayscale"
    assert json.loads(printed.splitlines()[1])["mode"] == "grayscale"
    with Image.open("restored.png") as image:
        assert image.size == (53, 37)
