"""Records of older schemas, brought to the present one: their figures stay valid."""

from collections.abc import Callable
from typing import Any


def upgrade(data: dict[str, Any]) -> dict[str, Any]:
    """Return a record of the present schema; what is of none that is known is returned as it is."""
    if data.get("schema") == 3:
        # It said how many processes were waiting for a core, the benchmark before included.
        return {key: data[key] for key in data if key != "load_a_core"} | {"schema": 4}
    convert = _KNOWN.get((data.get("what"), data.get("schema")))  # type: ignore[arg-type]
    return convert(data) if convert else data


def _ageing(data: dict[str, Any]) -> dict[str, Any]:
    def row(table: str, name: str, found: dict[str, Any]) -> dict[str, Any]:
        pairs = found["pairs_per_s"] * found["median_ms"]
        lower, upper = found["quartiles_ms"]
        more = {"median_ms": found["median_ms"]}
        if "share_of_floor" in found:
            more["share_of_floor"] = found["share_of_floor"]
        return _row(
            table, name, "pairs/s", pairs / upper, found["pairs_per_s"], pairs / lower, more
        )

    rows = [row("same work", name, found) for name, found in data["results"].items()]
    rows += [row("recipes", name, found) for name, found in data["recipes"].items()]
    missing = (
        []
        if data.get("kernel")
        else [_missing("kernel", "the fused kernel", "it needs a CUDA device", "synth")]
    )
    return _about(data, "synth", rows, missing, ("batch_size", "crop_px", "runs"))


def _loading(data: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for found in data["loading"]:
        crops = found["crops_per_s"] * found["seconds"]
        lower, upper = found["quartiles_s"]
        row = _row(
            "crops on one core", found["name"], "crops/s", crops / upper, found["crops_per_s"],
            crops / lower, {"photos_per_s": found["photos_per_s"]},
        )  # fmt: skip
        rows.append(row | {"by": {"K": found["crops_per_photo"]}})
    sharding = data["sharding"]
    for name, value in sharding.items():
        if name.endswith("_per_s"):
            verb, format = name.split("_")[:2]
            does = {"shard": "sharding", "verify": "verifying"}[verb]
            row = _row("shards", does, "photos/s", value, value, value, {})
            rows.append(row | {"by": {"format": format}})
    for name, key in (
        ("opening shards to the first batch", "first_batch_s"),
        ("opening shards to the batch after a saved place", "resume_s"),
    ):
        row = _row("start and growth", name, "s", data[key], data[key], data[key], {})
        rows.append(row | {"higher_is_better": False})
    key = "resident_mib_an_epoch"
    row = _row("start and growth", "growth of memory", "MiB/epoch", data[key], data[key], data[key],
               {})  # fmt: skip
    rows.append(row | {"higher_is_better": False})
    return _about(data, "loader", rows, [], ("crop_px", "batch_size", "runs", "date"))


def _row(
    table: str,
    name: str,
    unit: str,
    lower: float,
    median: float,
    upper: float,
    more: dict[str, Any],
) -> dict[str, Any]:
    return {
        "table": table, "name": name, "unit": unit, "lower": lower, "median": median,
        "upper": upper, "more": more,
    }  # fmt: skip


def _missing(table: str, name: str, why: str, what: str) -> dict[str, Any]:
    return {"table": table, "name": name, "why": why, "command": f"agedphoto bench {what}"}


def _about(
    data: dict[str, Any], what: str, rows: list[Any], missing: list[Any], settings: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "schema": 4,
        "what": what,
        # The first ones of loading had it in their names alone.
        "date": data.get("date", "2026-11-25"),
        "commit": (data.get("commit") or "")[:7] or None,
        "device": data["hardware"]["device"],
        "quick": False,
        "settings": {key: data[key] for key in settings if key in data},
        "rows": rows,
        "not_measured": missing,
        "hardware": data["hardware"],
        "versions": data["versions"],
        "peers": {"kornia": data["versions"].get("kornia")},
        "seed": data["seed"],
    }


_KNOWN: dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {
    ("ageing", 2): _ageing,
    ("loading", 1): _loading,
}
