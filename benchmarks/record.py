"""What was measured, as data: one row a figure, one line for each thing that was not measured.

A figure is a median with its quartiles, and says whether more is better, so that two records can be
compared without knowing what they are about. A row is told from others by its table, its name and
`by` (format, K, preset ...); what else was found about the same thing stands in `more`.
"""

import datetime
import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agedphoto.datasets.files import write_json
from agedphoto.machine import hardware, versions

from .older import upgrade
from .peers import load, peer_versions, why_absent

SCHEMA = 4
"""Counts up when something in the JSON changes its meaning. Older ones: see `older`."""

BUSY_LOAD = 0.2
"""Share of the cores that others may keep busy; rates of a busy machine vary tenfold."""

WATCHED_S = 0.5
"""How long the cores are watched for that, by a process that does nothing else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A figure and how it varies."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the median and the quartiles of at least one value."""
        lower, median, upper = np.percentile(values, [25, 50, 75]).tolist()
        return cls(median=median, lower=lower, upper=upper)

    @classmethod
    def of_rates(cls, count: float, seconds: Sequence[float]) -> "Spread":
        """Return those of count / seconds."""
        return cls.of([count / max(taken, 1e-12) for taken in seconds])


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One thing measured."""

    table: str
    """Rows of one table stand beside each other."""
    name: str
    """Who or what."""
    unit: str
    """Of the figure: pairs/s."""
    median: float
    lower: float
    upper: float
    by: dict[str, str | int | float] = field(default_factory=dict)
    """What else tells it from others: {"format": "png", "K": 16}."""
    higher_is_better: bool = True
    more: dict[str, Any] = field(default_factory=dict)
    """What else was found about it; table.COLUMNS knows how it is shown."""

    @property
    def place(self) -> tuple[str, str, tuple[tuple[str, Any], ...]]:
        """What tells it from the other rows of a record."""
        return self.table, self.name, tuple(sorted(self.by.items()))

    @property
    def title(self) -> str:
        """Its name with what else tells it from others."""
        return ", ".join([self.name, *(f"{key} {value}" for key, value in self.by.items())])


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """One thing that was not measured."""

    table: str
    name: str
    why: str
    command: str | None = None
    """What measures it, where that can be done."""
    failed: bool = False
    """Whether it should have worked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What one benchmark found."""

    what: str
    date: str
    commit: str | None
    device: str
    quick: bool
    """Small sizes, to see that it works; not for figures."""
    settings: dict[str, Any]
    """Sizes, counts and sources."""
    rows: list[Row]
    not_measured: list[Missing]
    hardware: dict[str, Any]
    versions: dict[str, str]
    peers: dict[str, str | None]
    """Version of each peer, None where it is absent."""
    seed: int = 0
    threads: int | None = None
    busy_share: float | None = None
    """Share of the cores that others kept busy when it began."""
    seconds: float | None = None
    """How long it took."""
    schema: int = SCHEMA

    @property
    def failed(self) -> bool:
        """Whether something that should have worked did not."""
        return any(missing.failed for missing in self.not_measured)

    @property
    def stem(self) -> str:
        """Name of its file: what, where, when."""
        return file_stem(self.what, self.hardware, self.date, self.quick)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Record":
        """Make a record of plain data, of this schema or an older one.

        Raises:
            ValueError: If it is neither.
        """
        data = upgrade(data)
        if data.get("schema") != SCHEMA:
            raise ValueError(
                f"{data.get('what')!r} of schema {data.get('schema')!r} is no record that this "
                "`agedphoto bench` knows; give one that it wrote, or use a newer agedphoto"
            )
        try:
            rows = [Row(**row) for row in data["rows"]]
            missing = [Missing(**one) for one in data["not_measured"]]
            return cls(**{**data, "rows": rows, "not_measured": missing})
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no record of `agedphoto bench`: {error}") from error


class Recorder:
    """Gathers rows while a benchmark runs, and tells of each."""

    def __init__(self, what: str, device: torch.device, *, quick: bool, tell: Any = None) -> None:
        """Begin; `tell` is called with a line for each row."""
        self.what, self.device, self.quick = what, device, quick
        self.settings: dict[str, Any] = {}
        self.rows: list[Row] = []
        self.not_measured: list[Missing] = []
        self._tell = tell or (lambda _: None)
        self._begun = time.perf_counter()
        self._busy = busy_share()
        if self._busy is not None and self._busy > BUSY_LOAD:
            self.miss(
                "all",
                "an idle machine",
                f"others keep {self._busy:.0%} of the cores busy; figures are of what is left",
            )

    def add(
        self,
        table: str,
        name: str,
        unit: str,
        spread: Spread,
        *,
        higher_is_better: bool = True,
        more: dict[str, Any] | None = None,
        **by: str | int | float,
    ) -> Row:
        """Note a row."""
        row = Row(
            table=table, name=name, unit=unit, by=by, higher_is_better=higher_is_better,
            more={key: value for key, value in (more or {}).items() if value is not None},
            **asdict(spread),
        )  # fmt: skip
        self.rows.append(row)
        self._tell(f"{self.what}: {table}: {row.title}: {row.median:,.4g} {unit}")
        return row

    def miss(
        self, table: str, name: str, why: str, *, command: str | None = None, failed: bool = False
    ) -> None:
        """Note what is not measured, and why."""
        self.not_measured.append(
            Missing(table=table, name=name, why=why, command=command, failed=failed)
        )
        self._tell(f"{self.what}: {table}: {name}: not measured: {why}")

    def fail(self, table: str, name: str, error: BaseException) -> None:
        """Note what should have worked."""
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        self.miss(table, name, f"it failed: {type(error).__name__}: {reason}", failed=True)

    def finish(self) -> Record:
        """Return the record."""
        return Record(
            what=self.what,
            date=today(),
            commit=commit(),
            device=str(self.device),
            quick=self.quick,
            settings=self.settings,
            rows=self.rows,
            not_measured=self.not_measured,
            hardware=hardware(self.device),
            versions=versions(),
            peers=peer_versions(),
            threads=torch.get_num_threads(),
            busy_share=None if self._busy is None else round(self._busy, 2),
            seconds=round(time.perf_counter() - self._begun, 1),
        )


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write records as JSON, whole or not at all: one as itself, several in a list."""
    plain = [json.loads(json.dumps(asdict(record))) for record in records]
    write_json(path, plain[0] if len(plain) == 1 else plain)


def read_records(path: Path) -> list[Record]:
    """Read what `write_records` wrote, now or in older versions.

    Raises:
        ValueError: If it is something else.
    """
    try:
        data = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}; give a file of `bench --json`") from error
    except IsADirectoryError as error:
        raise ValueError(f"{path} is a folder; give one of the .json files in it") from error
    try:
        return [Record.from_dict(one) for one in (data if isinstance(data, list) else [data])]
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def file_stem(what: str, hardware: dict[str, Any], date: str, quick: bool) -> str:
    """Return the name of a record's file, without its ending: what, where, when."""
    letters = "".join(c if c.isalnum() else " " for c in hardware["name"].lower())
    return f"{what}_{'-'.join(letters.split()[:3])}_{date}" + ("_quick" if quick else "")


def today() -> str:
    """Return the date in UTC, YYYY-MM-DD."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def busy_share() -> float | None:
    """Return which share of the cores others keep busy; None where psutil is not there to ask.

    Takes half a second: a load average would still count what ran a minute ago, as the benchmark
    before this one.
    """
    if why_absent("psutil"):
        return None
    return load("psutil").cpu_percent(interval=WATCHED_S) / 100


def commit() -> str | None:
    """Return the commit of the sources, marked if they were changed; None outside a checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True,
            check=False,
        ).stdout.strip()  # fmt: skip

    try:
        found = git("rev-parse", "--short", "HEAD") if git("ls-files", __file__) else ""
    except OSError:
        return None
    if not found:
        return None
    return f"{found}-changed" if git("status", "--porcelain", "-uno") else found
