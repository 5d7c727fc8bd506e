"""The tables and plots of benchmarks/README.md, made from the JSON in benchmarks/results, and the
top tables in the README.md above it.

Between a pair of markers everything is made; the text around it is written by hand:

    <!-- bench: synth -->
    <!-- /bench -->

For each benchmark all records are shown that are not `quick`, the newest of each machine. Where
there is none, that is said, with the command that measures it.
"""

import re
from pathlib import Path

from agedphoto.datasets.files import write_bytes

from .peers import why_absent
from .record import Record, read_records
from .suite import BENCHMARKS
from .table import markdown, pivot, place

FOLDER = Path(__file__).resolve().parent
TOP = "top"
"""Section of what matters most, of all benchmarks."""
_SECTION = re.compile(r"(<!-- bench: (\w+) -->\n)(.*?)(<!-- /bench -->)", re.DOTALL)


def update_readme(folder: Path = FOLDER) -> list[Path]:
    """Make tables and missing plots anew; return the files that were written.

    Raises:
        ValueError: If there is no README.md: this is not a checkout of the sources.
    """
    readme = folder / "README.md"
    if not readme.is_file():
        raise ValueError(
            f"no {readme}: reports are made in a checkout of the sources, of what lies in its "
            "benchmarks/results; clone the repository"
        )
    written = []
    if not why_absent("matplotlib"):
        from .plots import draw

        for path, record in shown(folder):
            if not path.with_suffix(".svg").exists():
                written += draw_as(draw(record, path.parent), path)
    for path in (readme, folder.parent / "README.md"):
        text = path.read_text()
        made = render(text, folder)
        if made != text:
            write_bytes(path, made.encode())
            written.append(path)
    return written


def draw_as(plots: list[Path], path: Path) -> list[Path]:
    """Give plots the name of the file that they are of."""
    return [plot.rename(path.with_suffix(plot.suffix)) for plot in plots]


def render(text: str, folder: Path = FOLDER) -> str:
    """Return the text of a README with every section made anew.

    Raises:
        ValueError: If a marker names no benchmark.
    """
    records = shown(folder)

    def section(match: re.Match[str]) -> str:
        what = match[2]
        if what == TOP:
            return match[1] + "\n\n".join(["", *_top(records), ""]).lstrip("\n") + match[4]
        names = [name for name, module in BENCHMARKS.items() if module == what]
        if not names:
            raise ValueError(
                f"unknown benchmark {what!r} in a marker of README.md; there are: "
                f"{', '.join([TOP, *BENCHMARKS.values()])}"
            )
        parts = [_one(path, record) for path, record in records if record.what == what]
        if not any(record.device != "cpu" for _, record in records if record.what == what):
            where = "on a GPU" if parts else "yet"
            parts.append(
                f"Not measured {where}: `agedphoto bench {names[0]} --out benchmarks/results`"
            )
        return match[1] + "\n\n".join(["", *parts, ""]).lstrip("\n") + match[4]

    return _SECTION.sub(section, text)


def results(folder: Path = FOLDER) -> list[Path]:
    """Return the files of the suite's records; those of MODEL_ZOO.md lie beside them."""
    found = sorted((folder / "results").glob("*.json"))
    return [path for path in found if not path.name.startswith("quality_")]


def shown(folder: Path) -> list[tuple[Path, Record]]:
    """Return the newest record of each benchmark and machine, with its file, in order of names."""
    newest: dict[tuple[str, str], tuple[Path, Record]] = {}
    for path in results(folder):
        for record in read_records(path):
            key = record.what, record.hardware["name"]
            if record.quick or (key in newest and newest[key][1].date > record.date):
                continue
            newest[key] = path, record
    return list(newest.values())


def _top(records: list[tuple[Path, Record]]) -> list[str]:
    """Return the ladder of loaders and who ages how fast, of every machine."""
    parts = []
    for what, table, title, column, head in (
        ("loader", "ladder", "From shards to aged pairs, pairs/s", "K", "K = {}"),
        ("synth", "same work", "Ageing alone, the same work, pairs/s", "", ""),
    ):
        for _, record in records:
            if record.what == what:
                parts.append(f"{title} ({place(record)}):")
                parts.append(pivot(record, table, column, head))
    return parts


def _one(path: Path, record: Record) -> str:
    name = f"results/{path.name}"
    parts = [f"{place(record)} ([{path.name}]({name})):"]
    if path.with_suffix(".svg").exists():
        parts.append(f"![{record.what}]({Path(name).with_suffix('.svg').as_posix()})")
    return "\n\n".join([*parts, markdown(record)])
