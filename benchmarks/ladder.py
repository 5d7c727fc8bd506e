"""The ladder of loaders: from what people do to what agedphoto does, each an endless stream of
aged / clean batches out of shards of the same photos.

Each is written as its documentation has it, decodes a photo once for its K crops, and ages as the
others do: luma, grain of sigma 0.10, a texture of strength 0.5.
"""

import io
import multiprocessing
import os
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from agedphoto.datasets import AgedPairs, Batch, open_index
from agedphoto.datasets.dali import dali_problem
from agedphoto.synth import Grain, Grayscale, Recipe, Texture
from agedphoto.textures import TextureBank

from .peers import load, why_absent
from .settings import Settings
from .synth_peers import ALPHA, SIGMA, Run, Work, kornia_chain, plain_torch, torchvision_chain

Kind = Literal["kornia", "torchvision", "dali reader", "litdata", "streaming", "ours"]
RECIPE = Recipe(
    name="benchmark",
    defects=(
        Grayscale(),
        Grain(sigma=(SIGMA, SIGMA)),
        Texture(alpha=(ALPHA, ALPHA), zoom=(1.0, 1.0)),
    ),
)
SHUFFLED_CROPS = 256
"""In the buffers of those that have one."""

ENCODED = 8
"""Photos that workers hand over at a time, where they hand over bytes."""

_WORKERS = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
"""How workers of a DataLoader start: as they do by themselves in a first process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """One loader; plain data, to be sent to a process of its own."""

    name: str
    kind: Kind
    format: str
    K: int
    decoder: Literal["cpu", "dali"] = "cpu"
    pool: Literal["device", "host"] = "device"
    resident: bool = False
    """All photos stay in the pool; else each is decoded again every epoch."""
    why_not: str | None = None
    """Why it cannot be had here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """What a loader runs on; plain data, too."""

    shards: dict[str, str]
    """Folder by format."""
    device: str
    batch_size: int
    crop_px: int
    threads: int
    """Workers or threads for it."""
    rank: int = 0
    world_size: int = 1


def rungs(settings: Settings, place: Place) -> list[Rung]:
    """Return the ladder for a device, what cannot be had with the reason."""
    device = settings.device
    crops = (16,) if settings.quick else (1, 16)
    no_dali = dali_problem(device)
    found: list[Rung] = []
    for kind, name, module in (
        ("kornia", "webdataset + Pillow + Kornia", "webdataset"),
        ("torchvision", "webdataset + torchvision", "webdataset"),
    ):
        found += [
            Rung(name=name, kind=kind, format="png", K=K, why_not=why_absent(module))  # type: ignore[arg-type]
            for K in crops
        ]
    for format in ("png", "jpeg") if "jpeg" in place.shards else ("png",):
        found += [
            Rung(name="DALI's reader", kind="dali reader", format=format, K=K, why_not=no_dali)
            for K in crops
        ]
    found += [
        Rung(name="LitData", kind="litdata", format="png", K=K, why_not=why_absent("litdata"))
        for K in crops
    ]
    found += [
        Rung(
            name="MosaicML Streaming", kind="streaming", format="png", K=K,
            why_not=why_absent("streaming"),
        )
        for K in crops
    ]  # fmt: skip
    ours = "agedphoto"
    found += [Rung(name=f"{ours}, CPU threads", kind="ours", format="png", K=16)]
    found += [Rung(name=f"{ours}, CPU threads", kind="ours", format="htj2k", K=K) for K in crops]
    on_host = None if device.type == "cuda" else f"on {device.type} the device's pool is the host's"
    found += [
        Rung(
            name=f"{ours}, pool on the host", kind="ours", format="htj2k", K=16, pool="host",
            resident=True, why_not=on_host,
        ),
        Rung(name=f"{ours}, all in the pool", kind="ours", format="htj2k", K=16, resident=True),
    ]  # fmt: skip
    for format in ("htj2k", "jpeg") if "jpeg" in place.shards else ("htj2k",):
        found += [
            Rung(
                name=f"{ours}, DALI", kind="ours", format=format, K=16, decoder="dali",
                why_not=no_dali,
            )
        ]  # fmt: skip
    return found


def convert(rung: Rung, place: Place) -> None:
    """Write the photos as the libraries want them that do not read shards."""
    if rung.kind in ("litdata", "streaming"):
        _converted(place.shards[rung.format], rung.kind)


class Loader:
    """An open rung: iterate over `batches`, endless; `close` it."""

    def __init__(self, rung: Rung, place: Place) -> None:
        """Open it."""
        self.device = torch.device(place.device)
        self.pairs: AgedPairs | None = None
        self._place = place
        self._bank = TextureBank.load()
        opens: dict[Kind, Callable[[Rung], Iterator[Batch]]] = {
            "kornia": self._webdataset,
            "torchvision": self._webdataset,
            "dali reader": self._dali,
            "litdata": self._litdata,
            "streaming": self._streaming,
            "ours": self._ours,
        }
        self.batches = opens[rung.kind](rung)

    def decoded(self) -> int | None:
        """Photos decoded so far, where that is known."""
        return int(self.pairs.stats()["photos_decoded"]) if self.pairs else None

    def close(self) -> None:
        """End its threads and workers."""
        if self.pairs:
            self.pairs.close()
        close = getattr(self.batches, "close", None)
        if close:
            close()

    def _ours(self, rung: Rung) -> Iterator[Batch]:
        place = self._place
        source = place.shards[rung.format]
        in_pool: dict[str, Any] = {}
        if not rung.resident:
            # As small as may be, half as much again: photos are decoded all the time.
            sizes = np.sort(open_index(source).decoded_bytes)[::-1]
            in_use = 3 * place.batch_size
            in_pool = {"pool_bytes": int(sizes[: in_use + in_use // 2].sum()), "mix_photos": 1}
        self.pairs = pairs = AgedPairs(
            source, recipe=RECIPE, mode="grayscale", crop_px=place.crop_px,
            batch_size=place.batch_size, crops_per_photo=rung.K, seed=0, device=place.device,
            rank=place.rank, world_size=place.world_size, textures=self._bank, pool=rung.pool,
            decoder=rung.decoder, num_threads=place.threads, **in_pool,
        )  # fmt: skip

        def endless() -> Iterator[Batch]:
            while True:
                yield from pairs

        return endless()

    def _webdataset(self, rung: Rung) -> Iterator[Batch]:
        """Decode, cut and age in the workers of a DataLoader; the usual way."""
        wds = load("webdataset")
        place, bank = self._place, self._bank
        tars = sorted(map(str, Path(place.shards[rung.format]).glob("*.tar")))
        usual = rung.kind == "kornia"
        cut = _Cut(
            read=read_pillow if usual else read_torchvision, count=rung.K, side_px=place.crop_px
        )
        age = _Age(chain=kornia_chain if usual else torchvision_chain, bank=bank)
        dataset = (
            # Workers split the shards; each worker goes through its own for ever.
            wds.WebDataset(
                tars, shardshuffle=100, seed=0, nodesplitter=wds.split_by_node, empty_check=False
            )
            .repeat()
            .compose(cut)
            .shuffle(SHUFFLED_CROPS, rng=random.Random(0))
            .batched(place.batch_size, partial=False, collation_fn=torch.stack)
            .map(age)
        )
        loader = DataLoader(
            dataset, batch_size=None, num_workers=place.threads, persistent_workers=True,
            pin_memory=self.device.type == "cuda", prefetch_factor=4,
            multiprocessing_context=_WORKERS,
        )  # fmt: skip
        return (as_batch(aged, clean, self.device) for aged, clean in loader)

    def _dali(self, rung: Rung) -> Iterator[Batch]:
        """DALI reads, decodes and cuts; the rest is plain torch, as it has no textures."""
        place = self._place
        from nvidia.dali import fn
        from nvidia.dali.pipeline import Pipeline
        from nvidia.dali.plugin.pytorch import DALIGenericIterator
        from nvidia.dali.types import DALIImageType

        folder = Path(place.shards[rung.format])
        tars = sorted(folder.glob("*.tar"))
        is_cuda = self.device.type == "cuda"
        count = max(1, place.batch_size // rung.K)
        S = float(place.crop_px)
        pipeline = Pipeline(
            batch_size=count, num_threads=place.threads, seed=0, prefetch_queue_depth=2,
            device_id=(self.device.index or 0) if is_cuda else None,
        )  # fmt: skip
        names = [f"crop{number}" for number in range(rung.K)]
        with pipeline:
            read: Any = fn.readers.webdataset(
                paths=[str(tar) for tar in tars],
                index_paths=[str(tar.with_suffix(".idx")) for tar in tars],
                ext=["png;jpg", "json"], random_shuffle=True, initial_fill=16, name="reader",
                missing_component_behavior="error", dont_use_mmap=True,
            )  # fmt: skip
            photos: Any = fn.decoders.image(
                read[0], device="mixed" if is_cuda else "cpu", output_type=DALIImageType.RGB
            )
            cuts = [
                fn.crop(
                    photos, crop=(S, S), crop_pos_x=fn.random.uniform(range=[0.0, 1.0]),
                    crop_pos_y=fn.random.uniform(range=[0.0, 1.0]),
                )
                for _ in names
            ]  # fmt: skip
            pipeline.set_outputs(*cuts)
        pipeline.build()
        iterator = DALIGenericIterator([pipeline], names, auto_reset=True)

        def crops() -> Iterator[Tensor]:
            while True:
                for one in iterator:
                    for name in names:
                        yield one[0][name].permute(0, 3, 1, 2)

        return self._of_crops(crops())

    def _litdata(self, rung: Rung) -> Iterator[Batch]:
        litdata = load("litdata")
        dataset = litdata.StreamingDataset(
            input_dir=_converted(self._place.shards[rung.format], "litdata"), shuffle=True, seed=0
        )
        loader = litdata.StreamingDataLoader(
            dataset,
            batch_size=ENCODED,
            num_workers=self._place.threads,
            collate_fn=list,
            persistent_workers=True,
        )
        return self._of_encoded(lambda: (item["photo"] for some in loader for item in some), rung)

    def _streaming(self, rung: Rung) -> Iterator[Batch]:
        streaming = load("streaming")
        dataset = streaming.StreamingDataset(
            local=_converted(self._place.shards[rung.format], "streaming"),
            shuffle=True,
            batch_size=ENCODED,
        )
        loader = DataLoader(
            dataset, batch_size=ENCODED, num_workers=self._place.threads, collate_fn=list,
            multiprocessing_context=_WORKERS, persistent_workers=True,
        )  # fmt: skip
        return self._of_encoded(lambda: (item["photo"] for some in loader for item in some), rung)

    def _of_encoded(self, epoch: Callable[[], Iterator[bytes]], rung: Rung) -> Iterator[Batch]:
        """Decode with Pillow what comes, and cut."""
        rng = np.random.default_rng(0)

        def crops() -> Iterator[Tensor]:
            while True:
                for data in epoch():
                    yield torch.stack(
                        cut_crops(read_pillow(data), rung.K, self._place.crop_px, rng)
                    )

        return self._of_crops(crops())

    def _of_crops(self, crops: Iterator[Tensor]) -> Iterator[Batch]:
        """Make batches of some crops at a time, and age them on the device in plain torch."""
        bank, B = self._bank.to(self.device), self._place.batch_size
        kept: list[Tensor] = []
        for some in crops:
            kept.append(some)
            if sum(map(len, kept)) < B:
                continue
            together = torch.cat(kept)
            while len(together) >= B:
                photos = together[:B].to(self.device)
                yield as_batch(*plain_torch(Work(photos=photos, bank=bank))(), self.device)
                together = together[B:]
            kept = [together] if len(together) else []


def read_pillow(data: bytes) -> np.ndarray:
    """Decode with Pillow: uint8 (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def read_torchvision(data: bytes) -> np.ndarray:
    """Decode with torchvision: uint8 (H, W, 3)."""
    from torchvision.io import ImageReadMode, decode_image

    with warnings.catch_warnings():
        # It is to be replaced by torchcodec, and says so at every call.
        warnings.simplefilter("ignore")
        buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return decode_image(buffer, ImageReadMode.RGB).permute(1, 2, 0).numpy()


def cut_crops(
    photo: np.ndarray, count: int, side_px: int, rng: np.random.Generator
) -> list[Tensor]:
    """Cut squares at random, uint8 (3, S, S)."""
    H, W, _ = photo.shape
    crops = []
    for _ in range(count):
        top, left = rng.integers(0, H - side_px + 1), rng.integers(0, W - side_px + 1)
        window = photo[top : top + side_px, left : left + side_px]
        crops.append(torch.from_numpy(np.ascontiguousarray(window.transpose(2, 0, 1))))
    return crops


def as_batch(aged: Tensor, clean: Tensor, device: torch.device) -> Batch:
    """Return a batch on the device as the trainer takes it."""
    B, _, H, W = aged.shape
    aged, clean = aged.to(device, non_blocking=True), clean.to(device, non_blocking=True)
    return Batch(
        aged=aged,
        clean=clean,
        mask=torch.zeros(B, 1, H, W, dtype=torch.bool, device=device),
        keys=torch.zeros(B, dtype=torch.int64, device=device),
        valid=torch.ones(B, dtype=torch.bool, device=device),
        photos=(-1,) * B,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cut:
    """Cuts crops out of the photos of a stream, in a worker."""

    read: Callable[[bytes], np.ndarray]
    count: int
    side_px: int

    def __call__(self, samples: Iterator[dict[str, Any]]) -> Iterator[Tensor]:
        worker = get_worker_info()
        rng = np.random.default_rng(worker.id if worker else 0)
        for sample in samples:
            photo = self.read(next(sample[end] for end in ("png", "jpg") if end in sample))
            yield from cut_crops(photo, self.count, self.side_px, rng)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Age:
    """Ages a batch of crops, in a worker."""

    chain: Callable[..., Run]
    bank: TextureBank

    def __call__(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        return self.chain(Work(photos=crops, bank=self.bank))()


def _converted(shards: str, kind: Literal["litdata", "streaming"]) -> str:
    """Return the same encoded photos in the format of a library, made beside the shards."""
    target = Path(shards).with_name(f"{Path(shards).name}-{kind}")
    if target.exists():
        return str(target)
    index = open_index(shards)
    from agedphoto.datasets.ranges import RangeReader

    reader = RangeReader()
    photos = [index.read_bytes(number, reader) for number in range(len(index))]
    if kind == "litdata":
        load("litdata").optimize(
            fn=_as_item, inputs=photos, output_dir=str(target), chunk_bytes="64MB",
            num_workers=os.cpu_count() or 1,
        )  # fmt: skip
        return str(target)
    with load("streaming").MDSWriter(out=str(target), columns={"photo": "bytes"}) as writer:
        for photo in photos:
            writer.write({"photo": photo})
    return str(target)


def _as_item(photo: bytes) -> dict[str, bytes]:
    return {"photo": photo}
