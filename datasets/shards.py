"""Writing shards: photographs into WebDataset tars with an index beside them.

Nothing under its final name is ever incomplete: a shard is written under a temporary name and
renamed, and the index comes last. What is finished stays when a run fails or is killed; a journal
lets the same call go on from there, to the same bytes. The same photographs in the same order give
the same bytes in any case.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from tqdm import tqdm

from .ahead import MemoryBudget, map_ahead
from .codecs import StoredFormat
from .encoding import EncodedPhoto, PhotoEncoder, ShardOptions
from .files import check_writable, replacing, write_bytes
from .index import Sample, Shard, ShardIndex
from .inputs import PhotoInput, as_inputs
from .journal import Finished, Journal, open_journal
from .memory import available_bytes
from .merge import add_splits, locked, read_index, rejected_lines, sweep
from .parts import Part, find_parts, is_part_shard
from .photos import PIXEL_LIMIT, name_keys
from .tar_file import TarFileWriter, dali_index, idx_name
from .workers import num_cores

AHEAD_BYTES = 512_000_000
"""Encoded photographs that may wait for their turn to be written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardingResult:
    """What became of the photographs of a split."""

    index: ShardIndex
    """Of everything in the folder, other splits included; of a part: of this part."""
    written: int
    """Photographs in the shards of the split, or of this part."""
    rejected: tuple[tuple[Path, str], ...]
    """Photographs that could not be read, and why; the reason begins with the place."""
    resumed: int
    """How many of those written were there already, from a run that did not come to its end."""


def write_shards(
    photos: Sequence[Path] | Sequence[PhotoInput],
    out: Path,
    *,
    split: str = "train",
    root: Path | None = None,
    format: StoredFormat = "htj2k",
    quality: int = 95,
    shard_bytes: int = 256_000_000,
    part: tuple[int, int] = (1, 1),
    pixel_limit: int = PIXEL_LIMIT,
    num_threads: int | None = None,
    progress: bool = False,
) -> ShardingResult:
    """Write photographs into `out` as one split, or as one part of a split.

    A run that failed or was killed has left a journal: the same call goes on after its last
    finished shard. Of the same split in the same folder, one run at a time.

    Args:
        photos: Files, see `find_photos`, or inputs, see `find_inputs`. All parts are given the
            same list.
        out: Folder; made if needed. Splits already in it stay.
        split: Its name, of lower-case letters, digits and `_`.
        root: Folder that keys and source names are relative to; None takes file names.
        format: See `ShardOptions`, as for the following three.
        quality: Of `jpeg`.
        shard_bytes: Size at which a shard is closed.
        part: (I, N) makes the I-th of N parts, each of which may be made anywhere at any time;
            `join_parts` puts them together.
        pixel_limit: Larger photographs are rejected.
        num_threads: Encoders at work; None is one a core.
        progress: Show a progress bar.

    Raises:
        ValueError: If an argument is out of range, the split or tars of its name are there
            already, another run writes it, a run of another plan has left its journal, no
            photograph can be read, or `out` cannot be written. Then nothing new is left behind.
        OSError: If writing fails half-way, as on a full disk. Finished shards and the journal stay.
    """
    options = ShardOptions(
        format=format, quality=quality, shard_bytes=shard_bytes, pixel_limit=pixel_limit
    )
    named = {split: as_inputs(photos, root)}
    return write_splits(
        named, out, options=options, part=part, num_threads=num_threads, progress=progress
    )[split]


def write_splits(
    splits: Mapping[str, Sequence[PhotoInput]],
    out: Path,
    *,
    options: ShardOptions,
    part: tuple[int, int] = (1, 1),
    num_threads: int | None = None,
    progress: bool = False,
) -> dict[str, ShardingResult]:
    """Write several splits, one after the other, as one run that can be taken up again.

    See `write_shards` for arguments and errors.
    """
    if num_threads is not None and num_threads < 1:
        raise ValueError(f"num_threads must be at least 1, got {num_threads}")
    runs = [_Run(Part(split=split, number=part[0], count=part[1]), photos, out, options)
            for split, photos in splits.items()]  # fmt: skip
    for run in runs:
        if not run.all_photos:
            raise ValueError(f"photos is empty: there is nothing to write for {run.part}")
    is_new = not out.exists()
    check_writable(out)
    results: dict[str, ShardingResult] = {}
    try:
        with open_journal(
            out / runs[0].part.journal_name, [out / run.part.lock_name for run in runs]
        ) as journal:
            _begin_or_go_on(runs, journal)
            for run in runs:
                results[run.part.split] = run.write(journal, num_threads, progress)
            journal.is_done = True
    finally:
        if is_new:
            with suppress(OSError):
                out.rmdir()
    return results


def _begin_or_go_on(runs: Sequence["_Run"], journal: Journal) -> None:
    """Write the plan into the journal, or find what is finished of it; refuse another plan."""
    first, out = runs[0].part, runs[0].out
    plan = {run.part.split: run.plan() for run in runs}
    if journal.plan is None:
        for run in runs:
            run.check_untouched()
        journal.begin(plan)
    elif differing := list(_differences(journal.plan, plan)):
        raise ValueError(
            f"{first} was begun otherwise in {out}: {'; '.join(differing)}; go on as it was begun, "
            f"or delete {first.journal_name} and "
            f"{' and '.join(f'{run.part.prefix}*' for run in runs)} there to begin anew"
        )
    for run in runs[1:]:
        # Of another command, that has been given since the journal was left.
        if not journal.of_split(run.part.split):
            run.check_not_listed()
    for number, finished in enumerate(journal.finished):
        path = out / finished.shard.name
        if not path.exists() or path.stat().st_size != finished.shard.bytes:
            journal.keep_first(number)
            break
    for run in runs:
        run.sweep(journal)


def _differences(before: dict[str, dict], now: dict[str, dict]) -> Iterator[str]:
    if before.keys() != now.keys():
        yield f"splits were {', '.join(before)}, are {', '.join(now)}"
        return
    for split, plan in now.items():
        where = f" (split {split!r})" if len(now) > 1 else ""
        for name in dict.fromkeys([*before[split], *plan]):
            old, new = before[split].get(name), plan.get(name)
            if old != new:
                yield _PLAIN.get(name, f"{name} was {old!r}, is {new!r}") + where


_PLAIN = {
    "names": "the photographs have other names",
    "contents": "a photograph has changed, by its size or time",
}


class _Run:
    """One part of one split on its way into a folder."""

    def __init__(
        self, part: Part, photos: Sequence[PhotoInput], out: Path, options: ShardOptions
    ) -> None:
        self.part, self.out, self.options = part, out, options
        self.all_photos = photos
        numbers = part.of(len(photos))
        self.photos = photos[numbers.start : numbers.stop]
        # Named before they are parted: a key is unique in the whole split.
        self.keys = name_keys(photo.name for photo in photos)[numbers.start : numbers.stop]

    def sweep(self, journal: Journal) -> None:
        """Delete what a run that was killed has left half-done."""
        sweep(
            path
            for path in self.out.glob(f".{self.part.prefix}*.part")
            if self.part.owns(path.name[1:].rsplit(".", 2)[0].replace(".idx", ".tar"))
        )
        self._delete_unlisted(journal)

    def write(self, journal: Journal, num_threads: int | None, progress: bool) -> ShardingResult:
        """Write what is not finished yet, and the index."""
        done = journal.of_split(self.part.split)
        num_before = sum(len(finished.samples) for finished in done)
        rejected = [each for finished in done for each in finished.rejected]
        next_photo = done[-1].next_photo if done else 0
        num_threads = num_threads or num_cores()
        # What a decoder and an encoder need besides the pixels is of the order of the pixels.
        decoding = MemoryBudget(available_bytes(torch.device("cpu")) // 8)
        encode = PhotoEncoder(self.options, decoding)
        todo = list(zip(self.photos, self.keys, strict=True))[next_photo:]
        try:
            with (
                ThreadPoolExecutor(num_threads, "encode") as threads,
                closing(
                    map_ahead(
                        threads,
                        encode,
                        todo,
                        ahead=2 * num_threads,
                        weigh=lambda outcome: 0 if isinstance(outcome, str) else len(outcome.data),
                        ahead_bytes=AHEAD_BYTES,
                    )
                ) as outcomes,
                tqdm(
                    desc=f"shard {self.part.split}", total=len(self.photos), initial=next_photo,
                    unit="photo", disable=not progress,
                ) as bar,
            ):  # fmt: skip
                good = _Good(enumerate(outcomes, next_photo), bar)
                while (first := next(good, None)) is not None:
                    shard, rows = self._write_shard(len(done), chain([first], good))
                    done.append(
                        Finished(
                            shard=shard,
                            samples=rows,
                            rejected=good.take_rejected(),
                            next_photo=good.next_photo,
                        )
                    )
                    journal.append(done[-1])
                    rejected.extend(done[-1].rejected)
                rejected.extend(good.take_rejected())
            if not done and self.part.is_whole:
                number, reason = rejected[0]
                raise ValueError(
                    f"none of {len(self.photos)} photographs could be read; the first: "
                    f"{self.photos[number].place}: {reason}"
                )
            index = self._finish(done, rejected)
        except BaseException as error:
            if journal.finished:
                error.add_note(
                    f"{len(journal.finished)} finished shards stay in {self.out}; the same command "
                    "goes on after them"
                )
            self._delete_unlisted(journal)
            raise
        return ShardingResult(
            index=index,
            written=sum(len(finished.samples) for finished in done),
            rejected=tuple(
                (self.photos[number].place, f"{self.photos[number].place}: {reason}")
                for number, reason in rejected
            ),
            resumed=num_before,
        )

    def plan(self) -> dict[str, object]:
        """Return what a run that goes on has to agree with."""
        stamps = hashlib.sha256()
        for photo in self.photos:
            stamps.update(f"{photo.name}\0{photo.stamp()}\n".encode(errors="backslashreplace"))
        return {**self._shared_plan(), "contents": stamps.hexdigest()}

    def _shared_plan(self) -> dict[str, object]:
        """What all parts have to agree on."""
        names = hashlib.sha256()
        for photo in self.all_photos:
            names.update(photo.name.encode(errors="backslashreplace") + b"\n")
        return {
            **self.options.as_plan(),
            "photos": len(self.all_photos),
            "names": names.hexdigest(),
        }

    def check_untouched(self) -> None:
        """Raise ValueError if there is anything of this split that would be mixed up with it."""
        part, out = self.part, self.out
        before = self.check_not_listed()
        if (out / part.index_name).exists() and not part.is_whole:
            raise ValueError(f"{out} already holds {part}; choose another folder or split")
        others = {**find_parts(out, ".index.json"), **find_parts(out, ".journal")}
        for other in others:
            if other.split == part.split and other.count != part.count:
                raise ValueError(
                    f"{out} holds {other}; make the rest of that, or choose another folder or split"
                )
        listed = {shard.name for shard in before.shards} if before else set()
        for path in sorted(out.glob(f"{part.split}-*.tar")):
            of_another_part = is_part_shard(path.name, part.split) and not part.owns(path.name)
            if path.name not in listed and (part.is_whole or not of_another_part):
                raise ValueError(
                    f"{path} is there already and in no index; delete it or choose another folder "
                    "or split"
                )

    def check_not_listed(self) -> ShardIndex | None:
        """Raise ValueError if the index of the folder has this split; return that index."""
        before = read_index(self.out)
        if before and self.part.split in before.splits:
            raise ValueError(
                f"{self.out} already holds the split {self.part.split!r}; choose another folder or "
                "split"
            )
        return before

    def _delete_unlisted(self, journal: Journal) -> None:
        """Delete shards that were finished and not noted any more."""
        listed = {finished.shard.name for finished in journal.finished}
        for path in list(self.out.glob(f"{self.part.prefix}*.tar")):
            if self.part.owns(path.name) and path.name not in listed:
                path.unlink()
                (self.out / idx_name(path.name)).unlink(missing_ok=True)

    def _write_shard(
        self, number: int, photos: Iterator[EncodedPhoto]
    ) -> tuple[Shard, list[Sample]]:
        """Write one tar of the photographs that come next, and its .idx."""
        path = self.out / self.part.shard_name(number)
        rows: list[Sample] = []
        total = 0
        with replacing(path) as file:
            tar = TarFileWriter(file)
            while total < self.options.shard_bytes and (photo := next(photos, None)) is not None:
                member = tar.add(f"{photo.key}.{photo.extension}", photo.data)
                tar.add(f"{photo.key}.json", photo.facts)
                total += member.size
                rows.append(
                    Sample(
                        key=photo.key,
                        extension=photo.extension,
                        shard=number,
                        offset=member.offset,
                        size=member.size,
                        crc32=photo.crc32,
                        height=photo.height,
                        width=photo.width,
                    )
                )
            tar.finish()
        write_bytes(self.out / idx_name(path.name), dali_index(tar.members))
        shard = Shard(name=path.name, split=self.part.split, bytes=tar.bytes, sha256=tar.sha256)
        return shard, rows

    def _finish(self, done: list[Finished], rejected: list[tuple[int, str]]) -> ShardIndex:
        index = ShardIndex.from_samples(
            str(self.out),
            [finished.shard for finished in done],
            [sample for finished in done for sample in finished.samples],
        )
        lines = [(self.part.split, self.photos[number].name, reason) for number, reason in rejected]
        if self.part.is_whole:
            with locked(self.out):
                return add_splits(self.out, index, lines)
        if lines:
            write_bytes(self.out / self.part.rejected_name, rejected_lines(lines))
        content = json.loads(index.to_json()) | {"plan": self._shared_plan()}
        write_bytes(self.out / self.part.index_name, (json.dumps(content) + "\n").encode())
        return index


class _Good(Iterator[EncodedPhoto]):
    """Those that could be read; it keeps count of the others, and of how far it has come."""

    def __init__(self, outcomes: Iterator[tuple[int, "EncodedPhoto | str"]], bar: tqdm) -> None:
        self._outcomes, self._bar = outcomes, bar
        self._rejected: list[tuple[int, str]] = []
        self._bytes = 0
        self.next_photo = 0

    def __next__(self) -> EncodedPhoto:
        for number, outcome in self._outcomes:
            self.next_photo = number + 1
            self._bar.update()
            if not isinstance(outcome, str):
                self._bytes += len(outcome.data)
                rate = self._bytes / max(self._bar.format_dict["elapsed"], 1e-9)
                self._bar.set_postfix_str(f"{rate / 1e6:.1f} MB/s", refresh=False)
                return outcome
            self._rejected.append((number, outcome))
        raise StopIteration

    def take_rejected(self) -> list[tuple[int, str]]:
        """Return the number and the reason of each that was passed over since the last time."""
        taken, self._rejected = self._rejected, []
        return taken
