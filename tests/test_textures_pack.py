"""The pack on disk, the one that is shipped, and the verb that writes it."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import tyro
from PIL import Image

import agedphoto.textures
from agedphoto.texture_pack import Textures
from agedphoto.textures import DARKENING, TextureBank, write_pack

SHIPPED = Path(agedphoto.textures.__file__).parent


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pack") / "made" / "here"
    write_pack(folder, count=16, size_px=96, seed=4)
    return folder


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written_is_what_is_synthesised(pack):
    made = TextureBank.synthesize(16, size_px=96, seed=4)
    assert TextureBank.load(pack).fingerprint == made.fingerprint
    assert TextureBank.load(str(pack)).names == made.names


def test_a_pack_of_few_is_read_like_a_bank_of_few(tmp_path):
    write_pack(tmp_path, count=2, size_px=64)
    few = TextureBank.synthesize(2, size_px=64)
    assert TextureBank.load(tmp_path).fingerprint == few.fingerprint


def test_the_same_arguments_write_the_same_bytes(pack, tmp_path):
    write_pack(tmp_path, count=16, size_px=96, seed=4)
    assert read(tmp_path) == read(pack)
    assert len(read(pack)) == 17


def test_the_manifest_tells_ground_seed_and_bytes(pack):
    manifest = json.loads((pack / "textures.json").read_text())
    assert (manifest["seed"], manifest["count"], manifest["size_px"]) == (4, 16, 96)
    for entry in manifest["textures"]:
        data = (pack / entry["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        assert entry["ground"] == ("light" if entry["family"] in DARKENING else "dark")
        with Image.open(pack / entry["file"]) as image:
            assert image.format == "WEBP"
            ground = np.asarray(image.convert("L"))
        # As it would look: marks on black, or on white.
        assert np.median(ground) == 0 if entry["ground"] == "dark" else np.median(ground) > 150


def test_an_earlier_pack_is_replaced_whole(tmp_path):
    write_pack(tmp_path, count=5, size_px=64, seed=1)
    write_pack(tmp_path, count=3, size_px=64, seed=2)
    assert len(read(tmp_path)) == 4
    assert len(TextureBank.load(tmp_path)) == 3


def test_an_interrupted_pack_is_no_pack_and_is_written_over(tmp_path, monkeypatch):
    write_pack(tmp_path, count=4, size_px=64, seed=1)
    drawn = agedphoto.textures.pack.draw  # pyright: ignore[reportAttributeAccessIssue]

    def fail(**options):
        if options["index"] == 2:
            raise KeyboardInterrupt
        return drawn(**options)

    with monkeypatch.context() as patch:
        patch.setattr("agedphoto.textures.pack.draw", fail)
        with pytest.raises(KeyboardInterrupt):
            write_pack(tmp_path, count=6, size_px=64, seed=2)
    (tmp_path / ".dust-0000.webp.tmp").write_bytes(b"cut short")
    with pytest.raises(ValueError, match="unfinished pack"):
        TextureBank.load(tmp_path)
    write_pack(tmp_path, count=1, size_px=64, seed=3)
    assert set(read(tmp_path)) == {"dust-0000.webp", "textures.json"}


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "dust-0000.webp").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"holds other files: dust-0000\.webp; choose an empty"):
        write_pack(tmp_path, count=1, size_px=64)
    assert read(tmp_path) == {"dust-0000.webp": b"mine"}
    with pytest.raises(ValueError, match="needs a folder, got the file"):
        write_pack(tmp_path / "dust-0000.webp", count=1, size_px=64)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"count": 0}, "count must be .* got 0"),
        ({"size_px": 32}, "size_px must be .* got 32"),
        ({"seed": -1}, "seed must be .* got -1"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, wrong, words):
    with pytest.raises(ValueError, match=words):
        write_pack(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


def test_damaged_and_missing_files_are_all_named(tmp_path):
    write_pack(tmp_path, count=4, size_px=64)
    (tmp_path / "dust-0000.webp").unlink()
    data = bytearray((tmp_path / "mixed-0003.webp").read_bytes())
    data[-1] ^= 1
    (tmp_path / "mixed-0003.webp").write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"2 textures .*dust-0000\.webp \(.*mixed-0003\.webp \("):
        TextureBank.load(tmp_path)


@pytest.mark.parametrize(
    "manifest",
    [
        "no json",
        "[]",
        '{"version": 2, "size_px": 64, "textures": []}',
        '{"version": 1, "size_px": 64, "textures": []}',
        '{"version": 1, "size_px": 64, "textures": [{"file": "a"}]}',
        '{"version": 1, "size_px": 64, "textures": [{"file": "../a.webp", "family": "dust", '
        '"number": 0, "ground": "dark", "sha256": "00"}]}',
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, manifest):
    (tmp_path / "textures.json").write_text(manifest)
    with pytest.raises(ValueError, match=r"textures\.json .*; write the pack anew"):
        TextureBank.load(tmp_path)


def test_a_folder_without_a_pack_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"no pack of textures: .*textures\.json; make one with"):
        TextureBank.load(tmp_path)


def test_the_shipped_pack_is_whole_and_small():
    bank = TextureBank.load()
    assert bank.textures.shape == (64, 1024, 1024)
    assert bank.names[:5] == tuple(
        f"{family}-{i:04d}"
        for i, family in enumerate(("dust", "hairs", "scratches", "mixed", "creases"))
    )
    assert len(bank.choose()) == 48
    files = list(SHIPPED.glob("*.webp"))
    assert len(files) == 64
    assert sum(path.stat().st_size for path in files) < 12e6


def test_the_shipped_pack_is_what_its_seed_draws():
    shipped = TextureBank.load()
    numbers = [0, 5, 7, 11, 14]
    drawn = TextureBank.synthesize(16).subset(numbers)
    # Another version of NumPy, or another processor, may round a pixel differently.
    off = (drawn.textures.int() - shipped.subset(numbers).textures.int()).abs()
    assert float((off > 2).float().mean()) < 1e-3


def test_the_verb_writes_a_pack_and_a_sheet(tmp_path, capsys):
    out = tmp_path / "pack"
    arguments = [str(out), "--count", "6", "--size-px", "300", "--seed", "7", "--sheet"]
    assert tyro.cli(Textures, args=arguments).run() == 0
    said = capsys.readouterr().out
    assert said.startswith("6 textures of 300 px, 6 families")
    assert f"sheet: {out / 'sheet.png'}" in said
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.size == (4 * 518 + 6, 2 * 284 + 6)
    bank = TextureBank.synthesize(6, size_px=300, seed=7)
    assert TextureBank.load(out).fingerprint == bank.fingerprint
    # Without --sheet: an old one would show another pack.
    assert tyro.cli(Textures, args=[str(out), "--count", "1", "--size-px", "64"]).run() == 0
    assert set(read(out)) == {"dust-0000.webp", "textures.json"}
