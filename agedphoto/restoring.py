"""`agedphoto restore`: old photographs to restored ones, alone or as one rank of torchrun."""

import hashlib
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from agedphoto.complaints import complain

if TYPE_CHECKING:
    import torch

    from agedphoto.restore import Job, Restored, Restorer
    from agedphoto.restore_ranks import Ranks


@dataclass(frozen=True, kw_only=True, slots=True)
class Restore:
    """Restore old photos; originals are never touched.

    On 8 GPUs: torchrun --nproc-per-node 8 -m agedphoto restore ...
    """

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT...")]
    """Photos, folders of photos, or patterns such as "scans/*.tif"."""
    out: Path
    """Folder for the results."""
    recursive: bool = True
    """Whether folders are searched with all below them; their tree is kept."""
    model: str | None = None
    """Name of a model that comes with agedphoto, a .safetensors file, or a folder of a training; if
    not given grayscale, with --colorize lab."""
    strength: float = 1.0
    """0 leaves photos as they are, 1 restores fully."""
    colorize: tyro.conf.FlagCreatePairsOff[bool] = False
    """Give colours to photos that have none; those that have their own keep them."""
    saturation: float = 1.0
    """Of added colours; 0 is gray."""
    temperature: float | None = None
    """Of added colours: lower is more vivid, higher more careful."""
    mask: Path | None = None
    """Restore only where this picture is white; for several photos a folder of such pictures."""
    damage: Path | None = None
    """Fill in what is white in this picture, then restore; or a folder of such pictures."""
    save_mask: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also write NAME_restored_mask.png, white where the network sees damage."""
    suffix: str = "_restored"
    """Added to the names of the results."""
    ext: Literal["auto", "png", "jpg", "tif", "webp"] = "auto"
    """Format of the results; auto is that of each photo, and png where that cannot be written."""
    quality: int = 95
    """Of jpg and webp, 1 to 100."""
    skip_existing: tyro.conf.FlagCreatePairsOff[bool] = False
    """Leave results that are there; otherwise they are replaced."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Only print what would be written: photo -> result."""
    json: Path | None = None
    """Append a line about each photo to this file (JSONL)."""
    compare: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also write sheets of photos before | after."""
    tile: int | Literal["auto"] = "auto"
    """Side in pixels of the tiles that large photos are done in."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps; under torchrun auto is one GPU a rank."""
    compile: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compile the network first, a minute the first time; pays for many large photos on a GPU."""
    jobs: int = 2
    """Threads that read and write photos; 1 takes least memory."""

    def run(self) -> int:
        """Restore the photographs."""
        from agedphoto.datasets.files import check_writable
        from agedphoto.restore.manifest import check_manifest
        from agedphoto.restore.photos import check_targets
        from agedphoto.restore_ranks import Ranks
        from agedphoto.restore_sheets import CompareSheets, sheet_paths

        self._check()
        ranks = Ranks.find()
        jobs = self._plan()
        if self.dry_run:
            if ranks.rank == 0:
                for job in jobs:
                    stays = self.skip_existing and job.target.exists()
                    print(f"{job.source} -> {job.target}{' (is there)' if stays else ''}")
            return 0
        restorer, coloring = self._load(ranks.device(self.device))
        for one in (restorer, coloring):
            if one is not None:
                one.check(strength=self.strength, tile=self.tile)
        mine = ranks.part(jobs)
        pages = sheet_paths(self.out, len(mine), rank=ranks.rank, world_size=ranks.world_size)
        sheets = CompareSheets(pages if self.compare else [])
        check_targets(jobs, [*sheets.paths, *([self.json] if self.json else [])])
        if self.json is not None:
            check_manifest(self.json)
        check_writable(self.out)
        # No result may be there before all have looked what there is.
        digest = hashlib.sha256("\0".join(str(job) for job in jobs).encode(errors="replace"))
        if len(set(ranks.meet("planned", digest.hexdigest()))) > 1:
            raise ValueError("ranks do not find the same photographs; give them the same folders")
        with _ending_cleanly():
            failed, skipped = self._restore(mine, ranks, restorer, coloring, sheets)
        counts = [
            tuple(map(int, word.split())) for word in ranks.meet("done", f"{failed} {skipped}")
        ]
        all_failed, all_skipped = (sum(numbers) for numbers in zip(*counts, strict=True))
        if ranks.rank == 0:
            self._finish(jobs, ranks, all_failed, all_skipped)
        for path in sheets.written:
            print(f"before | after: {path}")
        ranks.meet("finished")
        return 1 if all_failed else 0

    def _check(self) -> None:
        """Refuse what means nothing."""
        if not self.inputs:
            raise ValueError("no photographs given; name at least one photo or folder")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be 1 to 100, got {self.quality}")
        if self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.jobs}")
        for name, default in (("saturation", 1.0), ("temperature", None)):
            if getattr(self, name) != default and not self.colorize:
                raise ValueError(f"{name} is of added colours; add --colorize, or leave it out")

    def _plan(self) -> "list[Job]":
        from agedphoto.restore import plan_jobs
        from agedphoto.restore.masks import pair_masks
        from agedphoto.restore.photos import check_targets
        from agedphoto.restore.scans import WRITTEN_AS

        # What has no place for grays, or for colours, cannot hold every result.
        writable = set(WRITTEN_AS) - {".pbm"} - ({".pgm"} if self.colorize else set())
        jobs = plan_jobs(
            self.inputs,
            self.out,
            suffix=self.suffix,
            recursive=self.recursive,
            extension=self.ext,
            writable=writable,
            save_mask=self.save_mask,
            skip_existing=self.skip_existing,
            others=[path for path in (self.mask, self.damage) if path is not None],
        )
        if self.mask is not None:
            jobs = pair_masks(jobs, self.mask, self.inputs, use="mask")
        if self.damage is not None:
            jobs = pair_masks(jobs, self.damage, self.inputs, use="damage")
        check_targets(jobs)
        return jobs

    def _load(self, device: "torch.device") -> "tuple[Restorer, Restorer | None]":
        """Load the network for photographs that stay as gray as they are, and that for colours."""
        from agedphoto.restore import Restorer
        from agedphoto.restore.loading import ADDING_COLORS, with_luminance

        name = self.model or ("lab" if self.colorize else "grayscale")
        restorer = Restorer.from_pretrained(name, device=device, compile=self.compile)
        if (restorer.mode in ADDING_COLORS) != self.colorize:
            raise ValueError(
                f"model {name} is of mode {restorer.mode}, which "
                + (
                    "adds no colours; give one of mode lab, or leave out --colorize"
                    if self.colorize
                    else "adds colours; add --colorize"
                )
            )
        if not self.colorize:
            return restorer, None
        return with_luminance(restorer, compile=self.compile)

    def _restore(
        self,
        jobs: "list[Job]",
        ranks: "Ranks",
        restorer: "Restorer",
        coloring: "Restorer | None",
        sheets: Any,
    ) -> tuple[int, int]:
        """Restore this rank's photographs; return how many were not, and how many were skipped."""
        from tqdm import tqdm

        from agedphoto.restore import restore_photos
        from agedphoto.restore.manifest import Manifest, part_path

        errors: list[str] = []
        skipped = tiles = 0
        with ExitStack() as stack:
            manifest = None
            if self.json is not None:
                manifest = Manifest(part_path(self.json, ranks.rank, ranks.world_size))
                stack.callback(manifest.close)
            # In the end, and also if that comes early.
            stack.callback(lambda: [complain(f"not restored: {error}") for error in errors])
            # Such as that memory ran out and tiles are smaller now.
            stack.enter_context(warnings.catch_warnings())
            warnings.showwarning = lambda message, *_, **__: complain(str(message))
            bar = stack.enter_context(
                tqdm(total=len(jobs), desc="restore", unit="photo", disable=ranks.rank > 0)
            )

            def show_tile() -> None:
                # A large photo takes minutes; its tiles show that it moves.
                nonlocal tiles
                tiles += 1
                bar.set_postfix_str(f"{tiles} tiles")

            done_photos = restore_photos(
                restorer,
                jobs,
                coloring=coloring,
                strength=self.strength,
                saturation=self.saturation,
                temperature=self.temperature,
                tile=self.tile,
                quality=self.quality,
                may_round=self.ext != "auto",
                skip_existing=self.skip_existing,
                num_threads=self.jobs,
                show=sheets.show if self.compare else lambda *_: None,
                on_tile=show_tile,
            )
            for done in done_photos:
                bar.update()
                skipped += done.skipped
                if done.error:
                    errors.append(done.error)
                if manifest is not None:
                    used = coloring if done.colored and coloring is not None else restorer
                    manifest.write(self._record(done, used))
            sheets.flush()
        return len(errors), skipped

    def _record(self, done: "Restored", restorer: "Restorer") -> dict[str, Any]:
        """Return what the manifest says of a photograph."""
        record: dict[str, Any] = {
            "source": str(done.job.source),
            "target": str(done.job.target),
            "pages": done.pages,
            "width": done.width,
            "height": done.height,
            "seconds": round(done.seconds, 4),
            "tile": restorer.check(tile=self.tile),
            "device": str(restorer.device),
            "model_sha256": restorer.card.sha256,
            "changed_share": round(done.changed_share, 6),
            "colored": done.colored,
        }
        if done.rounded:
            record["rounded_to_bits"] = 8
        if done.skipped:
            record["skipped"] = True
        if done.error:
            record["error"] = done.error
        return record

    def _finish(self, jobs: "list[Job]", ranks: "Ranks", failed: int, skipped: int) -> None:
        """Join what the ranks have written, and say what was done."""
        from agedphoto.restore.manifest import join_parts

        if self.json is not None and ranks.world_size > 1:
            join_parts(self.json, [job.source for job in jobs])
        also = f", {skipped} were there already" if skipped else ""
        print(
            f"{len(jobs) - failed - skipped} of {len(jobs)} photos restored{also}: {self.out}",
            flush=True,
        )


@contextmanager
def _ending_cleanly() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that no half-written file stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
