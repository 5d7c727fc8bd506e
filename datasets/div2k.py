"""DIV2K: 900 photographs of 2040 px, the usual set to train restoration on.

R. Timofte, E. Agustsson, L. Van Gool, M.-H. Yang, L. Zhang et al., "NTIRE 2017 Challenge on Single
Image Super-Resolution: Methods and Results", CVPR Workshops 2017. It is made available for academic
research only; the photographs belong to their owners, see https://data.vision.ee.ethz.ch/cvl/DIV2K/.
"""

import errno
import json
import struct
import time
import zipfile
import zlib
from pathlib import Path

from tqdm import tqdm

from .download import download, read_sha256
from .files import write_json

DIV2K_URL = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"
NUM_PHOTOS = {"train": 800, "valid": 100}
"""What the official archives hold; 0001 to 0800, and 0801 to 0900."""

_ARCHIVES = {"train": "DIV2K_train_HR.zip", "valid": "DIV2K_valid_HR.zip"}
_CHUNK_BYTES = 1 << 20
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    IndexError,
    OSError,
    RuntimeError,
    NotImplementedError,
    ValueError,
)
"""What zipfile raises on archives that were changed, by experience."""


def fetch_div2k(
    folder: Path,
    *,
    base_url: str = DIV2K_URL,
    progress: bool = False,
    deadline_s: float = 6 * 3600.0,
) -> dict[str, Path]:
    """Fetch the two archives, 4 GB, or go on with that, or check those that are there.

    Every byte of an archive is read once and compared with the checksums in it; that it was, and of
    how many photographs, is noted in `<name>.checked.json`. Later runs compare its SHA-256 alone.

    Args:
        folder: Where the archives are kept; made if needed.
        base_url: Where they lie; of another place than the official one the number of photographs
            is not checked.
        progress: Show bars on stderr.
        deadline_s: Seconds for all that is downloaded.

    Returns:
        The archive of each split, `train` and `valid`.

    Raises:
        DownloadError: If an archive cannot be fetched.
        ValueError: If an archive is damaged or not what it should be.
        OSError: If it cannot be written.
    """
    end = time.monotonic() + deadline_s
    archives = {}
    for split, name in _ARCHIVES.items():
        url = f"{base_url.rstrip('/')}/{name}"
        left_s = end - time.monotonic()
        # What is there needs no time: only a download may fail for lack of it.
        path = download(url, folder / name, deadline_s=max(left_s, 1.0), progress=progress)
        num_photos = _check_archive(path, progress=progress)
        if base_url.rstrip("/") == DIV2K_URL.rstrip("/") and num_photos != NUM_PHOTOS[split]:
            raise ValueError(
                f"{path} holds {num_photos} photographs instead of {NUM_PHOTOS[split]}; "
                "delete it to download it again"
            )
        archives[split] = path
    return archives


def test_names(count: int) -> frozenset[str]:
    """Return the names, without suffix, of the training photographs to hold out as a test split.

    DIV2K's own test photographs were never published. The rule is fixed: evenly spread over 0001 to
    0800, the i-th of `count` is number floor(800 i / count). So 100 are 0008, 0016, ... 0800.

    Raises:
        ValueError: If `count` is not 1 to 799.
    """
    num_train = NUM_PHOTOS["train"]
    if not 1 <= count < num_train:
        raise ValueError(f"count must be 1 to {num_train - 1}, got {count}; 100 is usual")
    return frozenset(f"{num_train * i // count:04d}" for i in range(1, count + 1))


def _check_archive(path: Path, *, progress: bool) -> int:
    """Return the number of photographs in an archive that is whole."""
    note, sha256 = path.with_name(f"{path.name}.checked.json"), read_sha256(path)
    noted = _read_note(note)
    if sha256 and noted.get("sha256") == sha256 and isinstance(noted.get("num_photos"), int):
        return noted["num_photos"]
    try:
        num_photos = _read_all(path, progress=progress)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            # Not a place that cannot be, but a disk that cannot be read.
            raise
        # Its SHA-256 is that of damaged bytes: nothing may ever be compared with it.
        path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)
        raise ValueError(f"{path} is damaged ({error}); delete it to download it again") from error
    write_json(note, {"sha256": sha256, "num_photos": num_photos})
    return num_photos


def _read_note(note: Path) -> dict:
    try:
        noted = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _read_all(path: Path, *, progress: bool) -> int:
    """Read every member, which compares its CRC-32; return the number of photographs."""
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        with tqdm(
            total=sum(member.file_size for member in members),
            desc=f"{path.name}: checksums", unit="B", unit_scale=True, disable=not progress,
        ) as bar:  # fmt: skip
            for member in members:
                with archive.open(member) as file:
                    while chunk := file.read(_CHUNK_BYTES):
                        bar.update(len(chunk))
    return sum(member.filename.lower().endswith(".png") for member in members)
