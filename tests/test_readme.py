"""The README tells the truth: its commands run, its links lead somewhere, its figures are real."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent

TINY = ["--crop-px", "32", "--batch-size", "4", "--num-pairs", "16", "--warmup-pairs", "0"]


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = "\n".join(code_blocks("bash")).splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def at_tiny_size(command: str) -> list[str]:
    """The same command, small: fewer pairs, and a dry run for what needs several GPUs."""
    words = shlex.split(command)
    program, rest = words[0], words[1:]
    if program == "torchrun":
        rest[rest.index("--nproc-per-node") + 1] = "2"
        return [str(BIN / "torchrun"), "--standalone", *rest, *TINY, "--dry-run"]
    assert program == "agedphoto", f"the README has a command that no test runs: {command}"
    extra = TINY if rest[0] == "train" else []
    return [str(BIN / "agedphoto"), *rest, *extra]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with what the README takes for granted: photos, other photos, old photos."""
    home = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    for folder, count in (("photos", 4), ("other-photos", 2), ("old-photos", 1)):
        (home / folder).mkdir()
        for number in range(count):
            pixels = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            picture = Image.fromarray(pixels).resize((128, 96))
            picture.save(home / folder / ("portrait.jpg" if count == 1 else f"{number}.png"))
    return home


@pytest.mark.slow
def test_every_command_and_the_python_run_in_the_order_they_stand(home):
    ran = 0
    for command in commands():
        if command.startswith("make"):
            continue
        done = subprocess.run(
            at_tiny_size(command),
            cwd=home, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        ran += 1
    assert ran >= 6
    assert (home / "restored" / "portrait_restored.jpg").exists()

    (snippet,) = code_blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=home, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_every_make_target_of_the_readme_is_there():
    targets = {command.split()[1] for command in commands() if command.startswith("make")}
    targets |= set(re.findall(r"`make ([a-z-]+)`", README))
    assert {"demo", "test", "test-fast"} <= targets
    for target in targets:
        planned = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert planned.returncode == 0, planned.stderr


def test_make_lists_every_target_with_a_sentence():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    # Make tells its folder when it is called by make, as in `make test`.
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    sentences = {line.split()[1]: line.split(maxsplit=2)[2] for line in listed}
    assert set(sentences) == set(phony[1].split())
    assert all(sentence.endswith(".") for sentence in sentences.values())


def test_every_link_and_picture_leads_somewhere():
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert targets
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_pictures_are_small():
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert len(pictures) == 2
    for picture in pictures:
        assert (ROOT / picture).stat().st_size < 250_000
        with Image.open(ROOT / picture) as image:
            assert image.width >= 1.5 * image.height
