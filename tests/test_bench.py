"""`agedphoto bench`: the verb, records, comparing, reporting; what is measured is not tested."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from agedphoto.benchmarks import report
from agedphoto.benchmarks.compare import compare
from agedphoto.benchmarks.peers import PEERS, peer_versions, why_absent
from agedphoto.benchmarks.plots import draw
from agedphoto.benchmarks.record import Record, Recorder, Spread, read_records, write_records
from agedphoto.benchmarks.settings import Settings
from agedphoto.benchmarks.suite import BENCHMARKS, run_suite
from agedphoto.benchmarks.table import markdown, number, percent, pivot, screen
from agedphoto.benchmarks.verdict import losses, wins
from agedphoto.cli import main

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def idle(monkeypatch):
    """Spare every record the half second in which the cores are watched."""
    monkeypatch.setattr("agedphoto.benchmarks.record.busy_share", lambda: 0.0)


def make_record(rates: dict[str, float], *, what: str = "synth", **changes: Any) -> Record:
    """Return a record of rows of `same work`."""
    recorder = Recorder(what, CPU, quick=False)
    recorder.not_measured.clear()
    for name, rate in rates.items():
        spread = Spread(median=rate, lower=0.9 * rate, upper=1.1 * rate)
        recorder.add("same work", name, "pairs/s", spread, more={"share_of_floor": 0.5})
    recorder.miss("kernel", "the fused kernel", "it needs a CUDA device", command="agedphoto bench")
    return replace(recorder.finish(), busy_share=0.0, date="2026-01-02", **changes)


def test_a_record_comes_back_from_its_file_as_it_was(tmp_path):
    one, two = make_record({"a": 2.0}), make_record({"b": 3.0}, what="decode")
    write_records(tmp_path / "one.json", [one])
    write_records(tmp_path / "both.json", [one, two])
    assert read_records(tmp_path / "one.json") == [one]
    assert read_records(tmp_path / "both.json") == [one, two]
    plain = json.loads((tmp_path / "one.json").read_text())
    assert plain["schema"] == 4
    assert {"versions", "hardware", "commit", "seed", "threads", "peers", "date"} <= set(plain)


def test_a_record_of_schema_3_keeps_its_figures_but_not_the_load(tmp_path):
    plain = json.loads(json.dumps(asdict(make_record({"a": 2.0})))) | {"schema": 3}
    del plain["busy_share"]
    (tmp_path / "old.json").write_text(json.dumps(plain | {"load_a_core": 0.75}))
    [old] = read_records(tmp_path / "old.json")
    assert old.rows[0].median == 2.0
    assert old.busy_share is None


def test_quartiles_hold_the_median_between_them():
    spread = Spread.of_rates(10, [1.0, 2.0, 4.0, 5.0])
    assert spread.lower <= spread.median <= spread.upper
    assert Spread.of([3.0]) == Spread(median=3.0, lower=3.0, upper=3.0)


@pytest.mark.parametrize("path", report.results(), ids=lambda path: path.stem)
def test_every_result_that_is_kept_can_be_read_and_has_its_plot(path):
    for record in read_records(path):
        assert record.rows
        assert not record.quick
        assert record.what in BENCHMARKS.values()
        for row in record.rows:
            assert row.lower <= row.median <= row.upper
    for suffix in (".svg", ".png"):
        assert path.with_suffix(suffix).is_file(), "agedphoto bench report draws it"


def test_results_of_older_schemas_keep_their_figures():
    [old] = read_records(RESULTS / "ageing_amd-epyc_2026-11-25.json")
    plain = json.loads((RESULTS / "ageing_amd-epyc_2026-11-25.json").read_text())
    rows = {row.name: row for row in old.rows if row.table == "same work"}
    for name, found in plain["results"].items():
        assert rows[name].median == found["pairs_per_s"]
        assert rows[name].more["median_ms"] == found["median_ms"]
    [loading] = read_records(RESULTS / "loading_amd-epyc_2026-11-25.json")
    crops = [row for row in loading.rows if row.table == "crops on one core"]
    assert [row.by["K"] for row in crops] == [1, 1, 4, 16, 16, 1, 4, 16]


def test_the_readme_of_the_benchmarks_is_made_from_the_results():
    text = (ROOT / "benchmarks" / "README.md").read_text()
    assert report.render(text) == text, "run `agedphoto bench report`"
    for what in BENCHMARKS.values():
        assert f"<!-- bench: {what} -->" in text
    top = (ROOT / "README.md").read_text()
    assert "<!-- bench: top -->" in top
    assert report.render(top) == top, "run `agedphoto bench report`"


def test_a_section_shows_the_newest_record_of_each_machine_and_none_that_is_quick(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    other = {"name": "Another GPU", "cores": 8, "device": "cuda", "memory_gib": 1.0}
    for name, record in {
        "old": make_record({"old one": 1.0}),
        "new": replace(make_record({"new one": 2.0}), date="2026-05-05"),
        "quick": replace(make_record({"quick one": 3.0}), quick=True, date="2026-06-06"),
        "gpu": replace(make_record({"other one": 4.0}), hardware=other, device="cuda"),
    }.items():
        write_records(results / f"{name}.json", [record])
    text = "before\n<!-- bench: synth -->\nstale\n<!-- /bench -->\nafter\n"
    made = report.render(text, tmp_path)
    assert made.startswith("before\n")
    assert made.endswith("after\n")
    assert "new one" in made
    assert "other one" in made
    for gone in ("stale", "old one", "quick one", "Not measured on a GPU"):
        assert gone not in made
    assert report.render(made, tmp_path) == made
    assert "`agedphoto bench decode" in report.render(text.replace("synth", "decode"), tmp_path)
    with pytest.raises(ValueError, match="unknown benchmark 'dancing'"):
        report.render(text.replace("synth", "dancing"), tmp_path)


def test_comparing_gives_the_second_over_the_first_and_less_time_is_better():
    first, second = make_record({"a": 2.0, "gone": 1.0}), make_record({"a": 5.0, "new": 1.0})
    done = compare([first], [second])
    assert done.ratios == {("synth", "same work", "a"): 2.5}
    assert any("gone is in the first only" in warning for warning in done.warnings)
    assert any("new is in the second only" in warning for warning in done.warnings)
    slower = replace(first.rows[0], unit="s", higher_is_better=False)
    times = replace(first, rows=[slower])
    done = compare([times], [replace(times, rows=[replace(slower, median=4.0)])])
    assert list(done.ratios.values()) == [0.5]


def test_comparing_warns_of_what_makes_figures_hard_to_compare():
    first = make_record({"a": 2.0})
    other = {"name": "Another GPU", "cores": 8, "device": "cuda", "memory_gib": 1.0}
    second = replace(make_record({"a": 2.0}), hardware=other, quick=True, busy_share=3.0)
    warnings = " ".join(compare([first], [second]).warnings)
    assert "hardware differs" in warnings
    assert "quick differs: False and True" in warnings
    assert "busy" in warnings
    with pytest.raises(ValueError, match="nothing is in both files"):
        compare([first], [make_record({"a": 1.0}, what="decode")])


def test_the_verb_compares_two_files(tmp_path, capsys):
    for name, rate in (("a", 10.0), ("b", 30.0)):
        write_records(tmp_path / f"{name}.json", [make_record({"one": rate})])
    assert main(["bench", "--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    assert "10.0 -> 30.0 pairs/s, 3.00x as good" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "bench takes one thing to do"),
        (["synth", "--compare", "a.json", "b.json"], "got both"),
        (["--compare", "none.json", "none.json"], "No such file"),
        (["--compare", "{results}", "{results}"], "is a folder"),
        (["--compare", "{readme}", "{readme}"], "is not JSON"),
        (["synth", "--device", "abacus"], "abacus"),
        (["synth", "--json", "{readme}/x.json"], "it is a file"),
        (["decode", "--photos", "{results}/none"], "none"),
        (["loader", "--photos", "{tests}"], "no photographs"),
        (["train", "--shards", "{results}"], "results"),
        (["restore", "--model", "nobody"], "nobody"),
        (["quality", "--budgets-s", "10", "-3"], "budgets_s must be seconds above 0, got -3"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_measured(arguments, complaint, capsys):
    places = {
        "tests": str(ROOT / "tests"),
        "results": str(RESULTS),
        "readme": str(ROOT / "benchmarks" / "README.md"),
    }
    assert main(["bench", *(word.format(**places) for word in arguments)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert complaint in said.err


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"schema": 5}, "use a newer agedphoto"),
        ({"schema": 4}, "this is no record"),
        ([3], "attribute"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, data, complaint):
    (tmp_path / "x.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=complaint):
        read_records(tmp_path / "x.json")


def test_tables_show_every_row_and_all_that_was_not_measured():
    record = make_record({"agedphoto, eager": 1234.0, "others": 0.5})
    shown, marked = screen(record), markdown(record)
    for text in (shown, marked):
        for word in (
            "agedphoto, eager",
            "1,234",
            "others",
            "0.50",
            "50.0%",
            "fused kernel",
            "CUDA",
        ):
            assert word in text
    assert "| agedphoto, eager | 1,234 |" in marked


@pytest.mark.parametrize(
    ("value", "said"),
    [(1234.5, "1,234"), (99.95, "100.0"), (12.34, "12.3"), (0.1234, "0.12"), (0.00123, "0.0012")],
)
def test_figures_have_as_many_digits_as_count(value, said):
    assert number(value) == said
    assert percent(0.000123) == "0.012%"


def test_every_peer_that_is_faster_is_named():
    record = make_record({"agedphoto, a": 2.0, "agedphoto, b": 10.0, "x": 20.0, "y": 5.0})
    assert losses(record) == ["x is 2.0 times as fast as agedphoto, b"]
    assert wins(record) == ["agedphoto, b is 2.0 times as fast as y"]
    assert "x is 2.0 times as fast" in markdown(record)


def test_loaders_are_compared_with_such_that_have_as_much_to_do():
    recorder = Recorder("loader", CPU, quick=False)
    for name, format, rate in (
        ("theirs", "png", 3.0),
        ("theirs", "jpeg", 9.0),
        ("agedphoto, CPU threads", "htj2k", 2.0),
        ("agedphoto, DALI", "jpeg", 6.0),
        ("agedphoto, all in the pool", "htj2k", 100.0),
    ):
        recorder.add("ladder", name, "pairs/s", Spread.of([rate]), format=format, K=16)
    # Neither JPEG nor photos that are decoded already win against lossless ones that are not.
    assert losses(recorder.finish()) == [
        "theirs, format png, K 16 is 1.5 times as fast as agedphoto, CPU threads, format htj2k, "
        "K 16",
        "theirs, format jpeg, K 16 is 1.5 times as fast as agedphoto, DALI, format jpeg, K 16",
    ]
    assert wins(recorder.finish()) == []


def test_a_table_can_be_turned_so_that_a_number_of_crops_is_a_column():
    recorder = Recorder("loader", CPU, quick=False)
    for name, format, K in (("a", "png", 16), ("a", "png", 1), ("b", "jpeg", 16)):
        recorder.add("ladder", name, "pairs/s", Spread.of([float(K)]), format=format, K=K)
    recorder.add("same work", "c", "pairs/s", Spread.of([5.0]))
    record = recorder.finish()
    assert pivot(record, "ladder", "K", "K {}").splitlines() == [
        "|  | K 1 | K 16 |",
        "| --- | --- | --- |",
        "| a, png | 1.00 | 16.0 |",
        "| b, jpeg |  | 16.0 |",
    ]
    assert pivot(record, "same work", "K", "").splitlines()[::2] == [
        "|  | pairs/s |",
        "| c | 5.00 |",
    ]


def test_absent_peers_are_named_with_what_to_do(monkeypatch):
    monkeypatch.setitem(PEERS, "absent_peer", "absent-peer")
    assert peer_versions()["absent_peer"] is None
    assert why_absent("absent_peer") == "absent-peer is not installed; pip install absent-peer"
    assert why_absent("kornia") is None


def test_a_benchmark_that_fails_leaves_a_record_and_the_others_go_on(monkeypatch):
    def fail(settings: Settings, recorder: Recorder) -> Record:
        recorder.add("table", "before", "1/s", Spread.of([1.0]))
        raise RuntimeError("broken\nin many words")

    def work(settings: Settings, recorder: Recorder) -> Record:
        return recorder.finish()

    monkeypatch.setattr("agedphoto.benchmarks.synth.run", fail)
    monkeypatch.setattr("agedphoto.benchmarks.decode.run", work)
    settings = Settings(device=CPU, quick=True)
    failed, worked = run_suite(["synth", "decode"], settings)
    assert failed.failed
    assert [row.name for row in failed.rows] == ["before"]
    assert failed.not_measured[-1].why == "it failed: RuntimeError: broken"
    assert not worked.failed


def test_a_busy_machine_is_said(monkeypatch):
    monkeypatch.setattr("agedphoto.benchmarks.record.busy_share", lambda: 0.75)
    found = Recorder("synth", CPU, quick=False).finish()
    assert found.busy_share == 0.75
    assert "others keep 75% of the cores busy" in found.not_measured[0].why


def test_processes_end_with_the_one_that_started_them(tmp_path):
    code = "\n".join(
        [
            "import time",
            "from agedphoto.benchmarks.apart import run_apart",
            "if __name__ == '__main__': run_apart(time.sleep, 600)",
        ]
    )
    (tmp_path / "measure.py").write_text(code)
    parent = psutil.Popen([sys.executable, str(tmp_path / "measure.py")])
    try:
        children = wait_for(parent.children)
        # The child first has to be where it watches its parent.
        wait_for(lambda: [c for c in children if c.num_threads() > 1 and c.cpu_times().user > 0.1])
    finally:
        parent.kill()
        parent.wait()
    gone, alive = psutil.wait_procs(children, timeout=60)
    assert gone
    assert not alive


def wait_for(look: Callable[[], Any]) -> Any:
    """Return what is found as soon as there is something."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.05)
    raise TimeoutError("nothing was found in two minutes")


def test_plots_are_drawn_of_what_there_is(tmp_path):
    for path in report.results():
        for record in read_records(path):
            svg, png = draw(record, tmp_path)
            # Letters, not outlines of letters: for readers, and for those who cannot see.
            assert record.hardware["name"] in svg.read_text()
            assert png.read_bytes().startswith(b"\x89PNG")
    assert draw(replace(make_record({}), rows=[]), tmp_path) == []


def test_a_plot_of_the_same_record_has_the_same_bytes(tmp_path):
    record = make_record({"agedphoto, eager": 3.0, "others": 200.0})
    first, second = (draw(record, tmp_path / name)[0].read_bytes() for name in "ab")
    assert first == second


def test_the_command_line_imports_neither_plots_nor_peers():
    check = (
        "import sys, agedphoto.cli; "
        "print([m for m in ('matplotlib', 'albumentations', 'cv2', 'webdataset', 'torchcodec', "
        "'nvidia.dali', 'agedphoto.benchmarks') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
