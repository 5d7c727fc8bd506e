"""Paths and URLs of shards: which are local, how names lie below a root, what may be shown."""

import re
from pathlib import PurePath

import fsspec

_LOCAL = ("file://", "local://")
_WEB = ("http://", "https://")


def is_remote(url: str) -> bool:
    """Whether it names something that is not a local file."""
    return "://" in url and not url.startswith(_LOCAL)


def local_path(url: str) -> str:
    """Return the path of a local file that is named by a path or a URL."""
    return str(fsspec.core.strip_protocol(url)) if url.startswith(_LOCAL) else url


def join_url(root: str, name: str) -> str:
    """Return the place of `name` below `root`; a name that is absolute stays.

    The query of a root, such as a signature that holds for all its files, goes to the end.
    """
    if not root or "://" in name or PurePath(name).is_absolute():
        return name
    if root.startswith(_WEB) and "?" in root:
        folder, _, query = root.partition("?")
        return f"{folder.rstrip('/')}/{name}?{query}"
    return f"{root}/{name}"


def relative_url(root: str, url: str) -> str:
    """Return the name that `join_url` makes this place of; the place itself if there is none."""
    folder, mark, query = root.partition("?") if is_remote(root) else (root, "", "")
    name = url.removeprefix(f"{folder}/").removesuffix(mark + query)
    # A name with a query of its own stays absolute, where a signature can be told from a name.
    signed = is_remote(url) and "?" in name
    return name if root and not signed and join_url(root, name) == url else url


def plain_url(url: str) -> str:
    """Return a URL without what may be secret in it: its query, and a password."""
    if not url.startswith(_WEB):
        return url
    scheme, _, rest = url.partition("://")
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
