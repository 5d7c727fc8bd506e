"""What users name as shards: a folder or URL with an index, tars, braces, lists."""

from pathlib import Path

import fsspec

from .index import INDEX_NAME, ShardIndex


def open_index(source: str | Path) -> ShardIndex:
    """Open the index of a folder of shards, local or any URL that fsspec knows.

    Raises:
        ValueError: If there is no index, or it cannot be understood.
    """
    # As posix: fsspec takes slashes on Windows too.
    named = source.as_posix() if isinstance(source, Path) else source
    root = named.rstrip("/").removesuffix(f"/{INDEX_NAME}")
    try:
        with fsspec.open(f"{root}/{INDEX_NAME}", "rb") as file:
            content = file.read()  # type: ignore[union-attr]
    except ImportError as error:
        # fsspec says which package reads this kind of URL.
        raise ValueError(f"cannot open {root}: {error}") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"no {INDEX_NAME} in {root}; make the shards with: agedphoto shard PHOTOS {root}"
        ) from error
    return ShardIndex.from_json(root, content)
