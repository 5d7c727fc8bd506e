r"""EXIF as bytes: made to say upright, taken out of TIFF and put back, all else left as it was.

Bytes are patched and copied, never parsed into values and written anew: that loses the types of
tags, and what makers of cameras keep in theirs. (Where they count places from the beginning of the
file, their data still cannot be followed after a move; nobody documents which do.)

Here EXIF always begins with `Exif\0\0`, as in JPEG.
"""

import struct
from dataclasses import dataclass

PREFIX = b"Exif\0\0"
ORIENTATION, SUB_IFD, GPS, INTEROPERABILITY = 274, 34665, 34853, 40965

_POINTERS = (SUB_IFD, GPS, INTEROPERABILITY)
_KEPT = frozenset(
    {269, 270, 271, 272, ORIENTATION, 285, 305, 306, 315, 316, 18246, 18249, 33432, 33723}
    | {40091, 40092, 40093, 40094, 40095}
)
"""Tags of a TIFF's first level that tell about the photograph: all others tell how it is stored,
or may hold places in a file that it leaves."""
_X_RESOLUTION, _Y_RESOLUTION, _UNIT = 282, 283, 296
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag, its value as it is stored."""

    kind: int
    count: int
    value: bytes
    entry: int
    """Where its entry lies."""


@dataclass(frozen=True, slots=True)
class Directory:
    """One level of tags."""

    tags: dict[int, Tag]
    next: int
    """Where the following directory lies; 0: nowhere."""
    next_at: int
    """Where that is written."""


def turn_exif(exif: bytes) -> tuple[bytes | None, int | None]:
    """Return EXIF that says upright and has no thumbnail, and the orientation that it had, if any.

    Width and height change places where the picture is turned by a quarter. EXIF that cannot be
    read says nothing: None and None.
    """
    body = bytearray(exif.removeprefix(PREFIX))
    try:
        order, first = _open(body)
        directory = read_directory(body, first, order)
        orientation = _number(directory.tags.get(ORIENTATION), order, 0)
        orientation = orientation if orientation in range(1, 9) else None
        if tag := directory.tags.get(ORIENTATION):
            body[tag.entry + 2 : tag.entry + 12] = struct.pack(order + "HIHH", 3, 1, 1, 0)
        if orientation and orientation > 4:
            _swap(body, directory, 256, 257)
            _swap(body, directory, _X_RESOLUTION, _Y_RESOLUTION)
        if tag := directory.tags.get(SUB_IFD):
            inner = read_directory(body, _number(tag, order, 0), order)
            if orientation and orientation > 4:
                _swap(body, inner, 40962, 40963)
        _drop_thumbnail(body, directory, order)
    except (struct.error, ValueError):
        return None, None
    return PREFIX + bytes(body), orientation


def exif_of_tiff(data: bytes, place: int, order: str, *, big: bool) -> bytes | None:
    """Return EXIF with what the TIFF directory at `place` tells about the photograph, or None."""
    tags = read_directory(data, place, order, big=big).tags
    kept = {number: tag for number, tag in tags.items() if number in _KEPT}
    inner = _inner(data, tags, order, big=big)
    if not kept and not inner:
        return None
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return PREFIX + head + write_directory(kept, inner, order, 8)


def tags_of_exif(exif: bytes) -> tuple[str, dict[int, Tag], dict[int, dict]]:
    """Return byte order, tags for a TIFF's first level, and the levels below, see `_inner`.

    Raises:
        ValueError: If it cannot be read.
    """
    body = exif.removeprefix(PREFIX)
    try:
        order, first = _open(body)
        tags = read_directory(body, first, order).tags
        kept = {number: tag for number, tag in tags.items() if number in _KEPT}
        return order, kept, _inner(body, tags, order)
    except struct.error as error:
        raise ValueError(f"its EXIF is damaged ({error})") from error


def resolution_of(tags: dict[int, Tag], order: str) -> tuple[float, float] | None:
    """Return dots an inch across and down, None if there are none or they have no unit."""
    per_inch = {2: 1.0, 3: 2.54}.get(_number(tags.get(_UNIT), order, 2))
    across, down = tags.get(_X_RESOLUTION), tags.get(_Y_RESOLUTION)
    if per_inch is None or across is None or down is None:
        return None
    pairs = [struct.unpack_from(order + "II", tag.value.ljust(8, b"\0")) for tag in (across, down)]
    if any(not top or not bottom for top, bottom in pairs):
        return None
    return tuple(top / bottom * per_inch for top, bottom in pairs)  # type: ignore[return-value]


def resolution_of_exif(exif: bytes) -> tuple[float, float] | None:
    """As `resolution_of`, of EXIF that `turn_exif` has found readable."""
    body = exif.removeprefix(PREFIX)
    order, first = _open(body)
    return resolution_of(read_directory(body, first, order).tags, order)


def with_resolution(exif: bytes | None, dpi: tuple[float, float]) -> bytes:
    """Return EXIF that has this resolution; for formats that have no other place for it."""
    body = b"" if exif is None else exif.removeprefix(PREFIX)
    order, tags, inner = "<", {}, {}
    if body:
        order, first = _open(body)
        directory = read_directory(body, first, order).tags
        tags = {number: tag for number, tag in directory.items() if number not in _POINTERS}
        inner = _inner(body, directory, order)
    for number, value in zip((_X_RESOLUTION, _Y_RESOLUTION), dpi, strict=True):
        tags[number] = Tag(5, 1, struct.pack(order + "II", round(value * 1000), 1000), 0)
    tags[_UNIT] = Tag(3, 1, struct.pack(order + "H", 2), 0)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return PREFIX + head + write_directory(tags, inner, order, 8)


def read_directory(
    data: bytes | bytearray, place: int, order: str, *, big: bool = False
) -> Directory:
    """Read one level of tags.

    Raises:
        ValueError, struct.error: If it reaches beyond the data.
    """
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
    start, size, room = place + (8 if big else 2), *((20, 8) if big else (12, 4))
    next_at = start + count * size
    (following,) = struct.unpack_from(order + ("Q" if big else "I"), data, next_at)
    tags: dict[int, Tag] = {}
    for entry in range(start, next_at, size):
        number, kind, values = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, entry)
        length = _SIZES.get(kind, 0) * values
        at = entry + size - room
        if length > room:
            (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, at)
        if at + length > len(data):
            raise ValueError(f"tag {number} reaches beyond the end")
        if kind in _SIZES:
            tags[number] = Tag(kind, values, bytes(data[at : at + length]), entry)
    return Directory(tags, following, next_at)


def write_directory(
    tags: dict[int, Tag], inner: dict[int, dict], order: str, place: int, following: int = 0
) -> bytes:
    """Return one level of tags and what is below it, to lie at `place`; `inner` as of `_inner`."""
    numbers = sorted({*tags, *inner})
    end = place + 2 + 12 * len(numbers) + 4
    head, tail = struct.pack(order + "H", len(numbers)), bytearray()
    for number in numbers:
        if number in inner:
            below = inner[number]
            kind, count, value = 4, 1, struct.pack(order + "I", end + len(tail))
            tail += write_directory(below["tags"], below["inner"], order, end + len(tail))
        else:
            kind, count, value = tags[number].kind, tags[number].count, tags[number].value
            if len(value) > 4:
                value, long = struct.pack(order + "I", end + len(tail)), value
                tail += long
        tail += b"\0" * (len(tail) % 2)
        head += struct.pack(order + "HHI", number, kind, count) + value.ljust(4, b"\0")
    return head + struct.pack(order + "I", following) + bytes(tail)


def _inner(
    data: bytes | bytearray, tags: dict[int, Tag], order: str, *, big: bool = False
) -> dict[int, dict]:
    """Return the levels below by the number of their tag: {"tags": ..., "inner": ...} each."""
    found: dict[int, dict] = {}
    for number in _POINTERS:
        # Interoperability lies below the EXIF level only: none of these can be in itself.
        if number in tags and not (number == INTEROPERABILITY and SUB_IFD in tags):
            place = _number(tags[number], order, 0)
            try:
                below = read_directory(data, place, order, big=big).tags
            except (struct.error, ValueError):
                # One level that cannot be read is no reason to lose the others.
                continue
            deeper = (
                _inner(data, _only(below, INTEROPERABILITY), order, big=big)
                if number == SUB_IFD
                else {}
            )
            plain = {key: tag for key, tag in below.items() if key not in _POINTERS}
            found[number] = {"tags": plain, "inner": deeper}
    return found


def _only(tags: dict[int, Tag], number: int) -> dict[int, Tag]:
    return {number: tags[number]} if number in tags else {}


def _open(body: bytes | bytearray) -> tuple[str, int]:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(body[:4]))
    if order is None:
        raise ValueError("its EXIF has no header")
    return order, struct.unpack_from(order + "I", body, 4)[0]


def _number(tag: Tag | None, order: str, default: int) -> int:
    code = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(tag.kind) if tag else None
    if tag is None or code is None or not tag.count:
        return default
    return struct.unpack_from(order + code, tag.value)[0]


def _swap(body: bytearray, directory: Directory, one: int, other: int) -> None:
    """Exchange kind, count and value of two tags, if both are there."""
    if one in directory.tags and other in directory.tags:
        first, second = directory.tags[one].entry, directory.tags[other].entry
        a, b = body[first + 2 : first + 12], body[second + 2 : second + 12]
        body[first + 2 : first + 12], body[second + 2 : second + 12] = b, a


def _drop_thumbnail(body: bytearray, directory: Directory, order: str) -> None:
    if not directory.next:
        return
    body[directory.next_at : directory.next_at + 4] = bytes(4)
    try:
        tags = read_directory(body, directory.next, order).tags
    except (struct.error, ValueError):
        return
    start, length = (_number(tags.get(number), order, 0) for number in (513, 514))
    if start and start + length >= len(body):
        del body[start:]
    elif start:
        body[start : start + length] = bytes(length)
