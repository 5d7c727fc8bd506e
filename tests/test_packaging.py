"""What is installed: our folders under `agedphoto`, and nothing called `datasets` or `train`."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("textures", "synth", "datasets", "train", "restore", "benchmarks")

CHECK = """
import importlib.util, pathlib, sys
import agedphoto, agedphoto.textures, agedphoto.synth, agedphoto.datasets, agedphoto.train
import agedphoto.restore, agedphoto.benchmarks
for name in ("textures", "synth", "datasets", "train", "restore", "benchmarks"):
    spec = importlib.util.find_spec(name)
    # Another library may be called so; ours must not be found.
    assert spec is None or pathlib.Path(spec.origin or "/").parent != pathlib.Path(
        getattr(agedphoto, name).__file__).parent, f"bare {name} is ours: {spec.origin}"
print(agedphoto.datasets.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source") / "agedphoto"
    # From a copy, so that no build folder appears among the sources.
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in files:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source],
        check=True, capture_output=True,
    )  # fmt: skip
    return next(out.glob("*.whl"))


def test_the_wheel_holds_every_module_and_no_other_name(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"agedphoto"}
    assert "agedphoto/py.typed" in names
    expected = {f"agedphoto/{path.name}" for path in (ROOT / "agedphoto").glob("*.py")}
    for package in PACKAGES:
        expected |= {f"agedphoto/{package}/{path.name}" for path in (ROOT / package).glob("*.py")}
    assert {name for name in names if name.endswith(".py")} == expected
    shipped = {f"agedphoto/restore/{p.name}" for p in (ROOT / "restore").glob("*.safetensors")}
    assert {name for name in names if name.endswith(".safetensors")} == shipped
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_bare_names_stay_free_after_a_wheel(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    found = subprocess.run(
        [sys.executable, "-c", CHECK],
        cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert Path(found.stdout.strip()).is_relative_to(tmp_path / "site")


def test_bare_names_stay_free_in_an_editable_install(tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", CHECK], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert Path(found.stdout.strip()).is_relative_to(ROOT)


def test_bare_names_stay_free_among_the_sources_with_a_safe_path():
    found = subprocess.run(
        [sys.executable, "-c", CHECK],
        cwd=ROOT, env={"PYTHONSAFEPATH": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr


def test_imports_point_only_leftwards():
    for place, package in enumerate(PACKAGES):
        for path in (ROOT / package).glob("*.py"):
            text = path.read_text()
            for other in (*PACKAGES[place + 1 :], "cli", "demo", "report"):
                assert f"from ..{other}" not in text, f"{path} imports {other}"
                assert f"agedphoto.{other} import" not in text, f"{path} imports {other}"
