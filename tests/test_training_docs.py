"""The examples of docs/training.md do what they say, on tiny photographs and a CPU."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from contextlib import chdir
from dataclasses import fields
from pathlib import Path

import pytest

from agedphoto.cli import Train, main
from agedphoto.train import RunFolder, TrainConfig, load_model
from agedphoto.train.run_folder import FREE_SETTINGS
from agedphoto.training import DEFAULT_RECIPE

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "training.md").read_text()
BIN = Path(sys.executable).parent
TINY = {
    "--preset": "tiny", "--crop-px": "32", "--long-side-px": "32", "--batch-size": "4",
    "--num-pairs": "16", "--warmup-pairs": "0", "--crops-per-photo": "4", "--device": "cpu",
}  # fmt: skip


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def lines(block: str) -> list[str]:
    joined = block.replace("\\\n", " ")
    return [line.split("  #")[0] for line in joined.splitlines() if line.strip()]


def tiny(words: list[str]) -> list[str]:
    """The same training, small: options take the values of TINY, given or not."""
    if "train" not in words:
        return words
    words = list(words)
    for name, value in TINY.items():
        if name in words:
            words[words.index(name) + 1] = value
        else:
            words += [name, value]
    return words


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with the photos that the page takes for granted, and all that its commands make."""
    from conftest import photo_like
    from PIL import Image

    home = tmp_path_factory.mktemp("home")
    for folder, count in (("photos", 3), ("other-photos", 2), ("old-photos", 1)):
        (home / folder).mkdir()
        for number in range(count):
            picture = Image.fromarray(photo_like(70, 90, seed=number + 10 * count))
            picture.save(home / folder / f"{number}.png")
    for block in blocks("bash"):
        if "--nproc-per-node" in block:
            continue
        for line in lines(block):
            program, *words = tiny(shlex.split(line))
            assert program == "agedphoto"
            # In this process, which has imported all of it.
            with chdir(home):
                assert main(words) == 0, line
    return home


@pytest.mark.slow
def test_the_commands_run_in_the_order_they_stand(home):
    assert list((home / "restored").iterdir())
    for name in ("mine", "gray", "colour", "prints", "baseline", "fine"):
        assert RunFolder(home / "runs" / name).finished, name
    _, card = load_model(home / "runs" / "colour" / "model.safetensors")
    assert card.mode == "lab"
    assert card.net["luminance"]


@pytest.mark.slow
def test_a_run_folder_holds_what_the_table_says(home):
    run_folder = home / "runs" / "mine"
    named = re.findall(r"^\| `([^`]+)` \|", TEXT[: TEXT.index("## Stopping")], re.MULTILINE)
    named = {re.sub(r"\d{12}", "*", name).rstrip("/") for name in named}
    there = {
        str(path.relative_to(run_folder))
        for path in [*run_folder.iterdir(), *(run_folder / "checkpoints").iterdir()]
    } - {"checkpoints"}
    # Of so short a training no checkpoint is left.
    assert there == named - {"checkpoints/*.pt"}


@pytest.mark.slow
def test_every_field_of_the_log_is_in_the_table_and_no_other(home):
    section = TEXT[TEXT.index("### The log") : TEXT.index("## Speed")]
    named = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    logged = set[str]()
    for log in (home / "runs").glob("*/log.jsonl"):
        for line in log.read_text().splitlines():
            logged |= json.loads(line).keys()
    assert named - {"memory_gib"} == logged - {"memory_gib"}


@pytest.mark.slow
def test_the_same_command_has_nothing_to_do_and_another_setting_is_refused_as_printed(
    home, monkeypatch, capsys
):
    command = tiny(shlex.split(lines(blocks("bash")[0])[3])[1:])
    monkeypatch.chdir(home)
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([*command, "--lr", "0.01"]) == 2
    [message] = re.findall(r"^ {6}(agedphoto: .*?)\n\n", TEXT, re.DOTALL | re.MULTILINE)
    assert capsys.readouterr().err.strip().splitlines()[-1] == " ".join(message.split())


@pytest.mark.slow
def test_the_python_trains(home, monkeypatch, capsys):
    [block] = blocks("python")
    small, replaced = re.subn(
        r"num_pairs=200_000", "num_pairs=16, warmup_pairs=0, log_every=8, validate_every=8", block
    )
    assert replaced == 1
    small = small.replace("batch_size=32", "batch_size=4").replace('"auto"', '"cpu"')
    monkeypatch.chdir(home)
    exec(small, {})
    assert capsys.readouterr().out.startswith("all pairs seen 16 ")


def a_free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


@pytest.mark.slow
def test_two_launchers_train_together_by_the_command_for_several_machines(home):
    [block] = [block for block in blocks("bash") if "--nnodes 4" in block]
    [line] = lines(block)
    words = shlex.split(
        line.replace("--nnodes 4 --nproc-per-node 8", "--nnodes 2 --nproc-per-node 1")
        .replace("node0:29500", f"localhost:{a_free_port()}")
        .replace("s3://bucket/div2k", "data/mine")
        .replace("/tmp/photos", "cache")
        .replace("runs/large", "runs/nodes")
    )
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    nodes = [
        subprocess.Popen(
            tiny(words), cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": path},
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        said = [node.communicate(timeout=200)[0] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], said
    implied = json.loads((home / "runs" / "nodes" / "config.json").read_text())["implied"]
    assert (implied["ranks"], implied["global_batch"]) == (2, 8)


@pytest.mark.slow
@pytest.mark.parametrize("finishes", [True, False])
def test_the_slurm_script_trains_and_queues_what_is_unfinished_again(home, finishes, tmp_path):
    """With the environment that Slurm gives; srun and scontrol are stand-ins."""
    [script] = [block for block in blocks("bash") if block.startswith("#!")]
    script = (
        script.replace("--nproc-per-node 8", "--nproc-per-node 1")
        .replace("--max-restarts 3", "--max-restarts 0")
        .replace(":29500", f":{a_free_port()}")
        .replace("s3://bucket/div2k", "data/mine" if finishes else "data/missing")
        .replace("/tmp/photos", "cache")
        .replace("--preset large", " ".join(f"{name} {value}" for name, value in TINY.items()))
    )
    for name, body in (
        ("srun", 'exec "$@"'),
        ("scontrol", '[[ $1 == show ]] && echo localhost || echo "$@" >> queued'),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (home / "queued").unlink(missing_ok=True)
    path = f"{tmp_path}{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script, "job", tmp_path / "run"],
        cwd=home, capture_output=True, text=True, timeout=300, check=False,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PATH": path, "SLURM_JOB_ID": "4711", "SLURM_NNODES": "1",
           "SLURM_JOB_NODELIST": "localhost"},
    )  # fmt: skip
    assert (tmp_path / "run" / "model.safetensors").exists() is finishes, done.stderr
    assert (home / "queued").exists() is not finishes
    if not finishes:
        assert (home / "queued").read_text() == "requeue 4711\n"


def test_the_modes_have_the_recipes_of_the_table():
    rows = re.findall(r"^\| `(\w+)` \|.*\| `(\w+)` \|$", TEXT, re.MULTILINE)
    assert dict(rows) == DEFAULT_RECIPE


def test_every_option_that_the_page_names_exists():
    options = set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", TEXT))
    of_others = {
        "nproc-per-node", "max-restarts", "nnodes", "rdzv-backend", "rdzv-id", "rdzv-endpoint",
        "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "signal", "requeue",
        "open-mode", "logdir", "help", "split", "model",
    }  # fmt: skip
    of_ours = (field.name for field in (*fields(Train), *fields(TrainConfig)))
    known = {name.replace("_", "-") for name in of_ours}
    assert options - of_others <= known


def test_the_settings_that_may_change_are_named():
    section = TEXT[TEXT.index("## Stopping") : TEXT.index("## Several GPUs")]
    named = section[section.index("refused, with each") :]
    for name in FREE_SETTINGS:
        assert f"`--{name.replace('_', '-')}`" in named
