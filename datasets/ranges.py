"""Ranged reads: some bytes of a file, wherever it lies."""

from pathlib import PurePath

import fsspec


class RangeReader:
    """Reads ranges of local files and of anything that fsspec reaches; may be used by threads."""

    def read(
        self, url: str, offset: int, size: int, *, tag: str = "", fresh: bool = False
    ) -> bytes:
        """Return exactly `size` bytes from `offset` on.

        Args:
            url: Path or URL.
            offset: First byte.
            size: Number of bytes.
            tag: What tells this content of the URL from an earlier one, such as a checksum.
            fresh: Do not take it from a cache.

        Raises:
            ValueError: If the file is shorter.
            OSError: If it cannot be read.
        """
        files, path = fsspec.core.url_to_fs(url)
        data = files.cat_file(path, start=offset, end=offset + size)
        if len(data) != size:
            raise ValueError(
                f"{len(data)} of {size} bytes are there; the shard is cut short, copy it again"
            )
        return data


def is_remote(url: str) -> bool:
    """Whether it names something that is not a local file."""
    return "://" in url and not url.startswith("file://")


def join_url(root: str, name: str) -> str:
    """Return the place of `name` below `root`; a name that is absolute stays."""
    if not root or "://" in name or PurePath(name).is_absolute():
        return name
    return f"{root}/{name}"
