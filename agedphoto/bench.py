"""`agedphoto bench`: how fast it all is here, beside what others use."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from agedphoto.complaints import complain

What = Literal["synth", "decode", "loader", "train", "restore", "quality", "all", "report"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """Measure ageing, decoding, loading, training and restoring, beside what others use.

    A table on the screen; with --json or --out all of it as data, with plots. What cannot be
    measured here is said. Keep the machine idle meanwhile.
    """

    what: Annotated[What | None, tyro.conf.Positional] = None
    """What to measure; quality is how soon a network reaches a PSNR; report renews the tables of
    benchmarks/README.md, and the top ones of README.md, from benchmarks/results."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Small sizes, to see that it works: all of it in two minutes on two cores. Not for figures."""
    photos: Path | None = None
    """Folder of photos for decode and loader; some are made up if not given."""
    shards: str | None = None
    """Shards for train and quality; some are made up if not given."""
    held_out: Path | None = None
    """Folder of photos that quality is measured on; the shards must hold none of them."""
    budgets_s: tuple[float, ...] = ()
    """Seconds of training after which quality looks: 15 75 300."""
    model: str | None = None
    """Model for restore: a name, a .safetensors file, or a folder of a training."""
    json: Path | None = None
    """Write what was found into this file."""
    out: Path | None = None
    """Write it into this folder, a file for each benchmark named for machine and date, with plots
    beside it as SVG and PNG."""
    compare: tuple[Path, Path] | None = None
    """Two files of --json: how the second does beside the first."""

    def run(self) -> int:
        """Measure, compare or report."""
        if (self.what is None) == (self.compare is None):
            raise ValueError(
                "bench takes one thing to do, such as synth or all, or --compare A.json B.json; "
                "got " + ("neither" if self.what is None else "both")
            )
        if self.compare is not None:
            return self._compare(*self.compare)
        if self.what == "report":
            from agedphoto.benchmarks.report import update_readme

            for path in update_readme():
                print(path)
            return 0
        return self._measure()

    def _measure(self) -> int:
        from agedphoto.benchmarks.record import write_records
        from agedphoto.benchmarks.settings import Settings, check_sources
        from agedphoto.benchmarks.suite import BENCHMARKS, run_suite
        from agedphoto.benchmarks.table import screen
        from agedphoto.datasets.files import check_writable
        from agedphoto.synth import find_device

        settings = Settings(
            device=find_device(self.device),
            quick=self.quick,
            photos=self.photos,
            shards=self.shards,
            model=self.model,
            held_out=self.held_out,
            budgets_s=self.budgets_s,
        )
        # First what may be a mistake, then the minutes.
        check_sources(settings)
        for folder in (self.out, self.json.parent if self.json else None):
            if folder is not None:
                check_writable(folder)
        names = list(BENCHMARKS) if self.what == "all" else [str(self.what)]
        records = []
        for record in run_suite(names, settings, tell=_tell):
            records.append(record)
            print(f"\n{screen(record)}", flush=True)
            if self.out:
                # Each as it ends: a long suite that is broken off has not been in vain.
                path = self.out / f"{record.stem}.json"
                write_records(path, [record])
                print(path)
                self._draw(path)
        if self.json:
            write_records(self.json, records)
        return 1 if any(record.failed for record in records) else 0

    def _draw(self, path: Path) -> None:
        from agedphoto.benchmarks.peers import why_absent

        if problem := why_absent("matplotlib"):
            complain(f"no plots: {problem}, or agedphoto[bench]")
            return
        from agedphoto.benchmarks.plots import draw
        from agedphoto.benchmarks.record import read_records

        for plot in draw(read_records(path)[0], path.parent):
            print(plot)

    @staticmethod
    def _compare(first: Path, second: Path) -> int:
        from agedphoto.benchmarks.compare import compare
        from agedphoto.benchmarks.record import read_records

        done = compare(read_records(first), read_records(second))
        for warning in done.warnings:
            complain(warning)
        for line in done.lines:
            print(line)
        return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
