"""Writing shards: photographs into WebDataset tars with an index beside them.

Nothing under its final name is ever incomplete: a shard is written under a temporary name and
renamed, and the index comes last. What is finished stays when a run fails or is killed; a journal
lets the same call go on from there, to the same bytes. The same photographs in the same order give
the same bytes in any case.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

import torch
from tqdm import tqdm

from .ahead import MemoryBudget, map_ahead
from .codecs import CODECS, EXTENSIONS, StoredFormat, check_stored_format, encode_photo
from .files import check_writable, replacing, write_bytes
from .index import Sample, Shard, ShardIndex
from .inputs import PhotoInput, as_inputs
from .journal import Finished, Journal, open_journal
from .memory import available_bytes
from .merge import add_splits, locked, read_index, rejected_lines, sweep
from .parts import Part, find_parts, is_part_shard
from .photos import PIXEL_LIMIT, check_pixels, measure_photo, name_keys, read_photo
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


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardOptions:
    """How photographs are stored."""

    format: StoredFormat = "htj2k"
    """All but `jpeg` are lossless; `keep` leaves the bytes as they are."""
    quality: int = 95
    """1 to 100, for `jpeg`."""
    shard_bytes: int = 256_000_000
    """A shard whose photographs have reached this size is closed; at least 1."""
    pixel_limit: int = PIXEL_LIMIT
    """Larger photographs are rejected."""

    def __post_init__(self) -> None:
        check_stored_format(self.format)
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be 1 to 100, got {self.quality}")
        if self.shard_bytes < 1:
            raise ValueError(f"shard_bytes must be at least 1, got {self.shard_bytes}")

    def as_plan(self) -> dict[str, object]:
        """Return what makes a difference to the bytes."""
        quality = {"quality": self.quality} if self.format == "jpeg" else {}
        return {
            "format": self.format,
            **quality,
            "shard_bytes": self.shard_bytes,
            "pixel_limit": self.pixel_limit,
        }


@dataclass(frozen=True, slots=True)
class _Encoded:
    key: str
    extension: str
    data: bytes
    facts: bytes
    crc32: int
    height: int
    width: int


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
        with ExitStack() as journals:
            opened = [
                journals.enter_context(open_journal(out / run.part.journal_name)) for run in runs
            ]
            for run, journal in zip(runs, opened, strict=True):
                run.check(journal)
            for run, journal in zip(runs, opened, strict=True):
                results[run.part.split] = run.write(journal, num_threads, progress)
            # Only now: a run of several splits that ends half-way is taken up as a whole.
            for journal in opened:
                journal.is_done = True
    finally:
        if is_new:
            with suppress(OSError):
                out.rmdir()
    return results


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

    def check(self, journal: Journal) -> None:
        """Begin the journal, or find the place to go on from; refuse what would lose something."""
        plan = self._plan()
        if journal.plan is None:
            self._check_untouched()
            journal.begin(plan)
        elif differing := [name for name in plan if journal.plan.get(name) != plan[name]]:
            # As it came out of JSON: written by another run, maybe of another version.
            changes = "; ".join(
                f"{name} was {journal.plan.get(name)!r}, is {plan[name]!r}" for name in differing
            )
            raise ValueError(
                f"{self.part} was begun otherwise in {self.out}: {changes}; go on as it was begun, "
                f"or delete {self.part.journal_name} and {self.part.prefix}* there to begin anew"
            )
        sweep(
            path
            for path in self.out.glob(f".{self.part.prefix}*.part")
            if self.part.owns(path.name[1:].rsplit(".", 2)[0].replace(".idx", ".tar"))
        )
        for number, finished in enumerate(journal.finished):
            path = self.out / finished.shard.name
            if not path.exists() or path.stat().st_size != finished.shard.bytes:
                journal.keep_first(number)
                break
        self._delete_unlisted(journal)

    def write(self, journal: Journal, num_threads: int | None, progress: bool) -> ShardingResult:
        """Write what is not finished yet, and the index."""
        num_before = len(journal.finished)
        rejected = [each for finished in journal.finished for each in finished.rejected]
        next_photo = journal.finished[-1].next_photo if journal.finished else 0
        num_threads = num_threads or num_cores()
        # What a decoder and an encoder need besides the pixels is of the order of the pixels.
        decoding = MemoryBudget(available_bytes(torch.device("cpu")) // 8)
        encode = _Encoder(self.options, decoding)
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
                    number = len(journal.finished)
                    shard, rows = self._write_shard(number, chain([first], good))
                    journal.append(
                        Finished(
                            shard=shard,
                            samples=rows,
                            rejected=good.take_rejected(),
                            next_photo=good.next_photo,
                        )
                    )
                    rejected.extend(journal.finished[-1].rejected)
                rejected.extend(good.take_rejected())
            if not journal.finished and self.part.is_whole:
                number, reason = rejected[0]
                raise ValueError(
                    f"none of {len(self.photos)} photographs could be read; the first: "
                    f"{self.photos[number].place}: {reason}"
                )
            index = self._finish(journal, rejected)
        except BaseException as error:
            if journal.finished:
                error.add_note(
                    f"{len(journal.finished)} finished shards of {self.part} stay; the same "
                    "command goes on after them"
                )
            self._delete_unlisted(journal)
            raise
        written = sum(len(finished.samples) for finished in journal.finished)
        return ShardingResult(
            index=index,
            written=written,
            rejected=tuple(
                (self.photos[number].place, f"{self.photos[number].place}: {reason}")
                for number, reason in rejected
            ),
            resumed=sum(len(finished.samples) for finished in journal.finished[:num_before]),
        )

    def _plan(self) -> dict[str, object]:
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

    def _check_untouched(self) -> None:
        """Raise ValueError if there is anything of this split that would be mixed up with it."""
        part, out = self.part, self.out
        before = read_index(out)
        if before and part.split in before.splits:
            raise ValueError(
                f"{out} already holds the split {part.split!r}; choose another folder or split"
            )
        if (out / part.index_name).exists() and not part.is_whole:
            raise ValueError(f"{out} already holds {part}; choose another folder or split")
        others = {**find_parts(out, ".index.json"), **find_parts(out, ".journal")}
        for other in others:
            if other.split == part.split and other.count != part.count:
                raise ValueError(
                    f"{out} holds {other}; make the rest of that, or choose another folder or split"
                )
        for path in sorted(out.glob(f"{part.split}-*.tar")):
            if part.is_whole or part.owns(path.name) or not is_part_shard(path.name, part.split):
                raise ValueError(
                    f"{path} is there already and in no index; delete it or choose another folder "
                    "or split"
                )

    def _delete_unlisted(self, journal: Journal) -> None:
        """Delete shards that were finished and not noted any more."""
        listed = {finished.shard.name for finished in journal.finished}
        for path in list(self.out.glob(f"{self.part.prefix}*.tar")):
            if self.part.owns(path.name) and path.name not in listed:
                path.unlink()
                (self.out / idx_name(path.name)).unlink(missing_ok=True)

    def _write_shard(self, number: int, photos: Iterator[_Encoded]) -> tuple[Shard, list[Sample]]:
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

    def _finish(self, journal: Journal, rejected: list[tuple[int, str]]) -> ShardIndex:
        index = ShardIndex.from_samples(
            str(self.out),
            [finished.shard for finished in journal.finished],
            [sample for finished in journal.finished for sample in finished.samples],
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


class _Good(Iterator[_Encoded]):
    """Those that could be read; it keeps count of the others, and of how far it has come."""

    def __init__(self, outcomes: Iterator[tuple[int, "_Encoded | str"]], bar: tqdm) -> None:
        self._outcomes, self._bar = outcomes, bar
        self._rejected: list[tuple[int, str]] = []
        self._bytes = 0
        self.next_photo = 0

    def __next__(self) -> _Encoded:
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


@dataclass(frozen=True, slots=True)
class _Encoder:
    """Reads a photograph and makes what is stored of it; what cannot be read, a reason."""

    options: ShardOptions
    decoding: MemoryBudget

    def __call__(self, item: tuple[PhotoInput, str]) -> _Encoded | str:
        photo, key = item
        try:
            return self._encode(photo, key)
        except OSError as error:
            return error.strerror or str(error) or type(error).__name__
        except ValueError as error:
            return str(error).removeprefix("photograph: ")

    def _encode(self, photo: PhotoInput, key: str) -> _Encoded:
        format, limit = self.options.format, self.options.pixel_limit
        suffix = PurePosixPath(photo.name).suffix.lower().removeprefix(".")
        if format == "keep" and suffix not in EXTENSIONS:
            raise ValueError(
                f"a photograph cannot be kept as it is under the suffix {suffix!r}; rename it or "
                "use another format"
            )
        data = photo.read()
        height, width = measure_photo(data)
        check_pixels(height * width, limit)
        with self.decoding.hold(3 * height * width):
            pixels = read_photo(data, pixel_limit=limit)
            height, width, _ = pixels.shape
            if format != "keep":
                data = encode_photo(pixels, format, quality=self.options.quality)
        facts = {
            "width": width,
            "height": height,
            "source": photo.name,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        return _Encoded(
            key=key,
            extension=suffix if format == "keep" else CODECS[format].extension,
            data=data,
            facts=json.dumps(facts, sort_keys=True).encode(),
            crc32=zlib.crc32(data),
            height=height,
            width=width,
        )
