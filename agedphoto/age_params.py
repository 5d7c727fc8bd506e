"""What was drawn for one photograph, as JSON: enough to age it again to the last bit.

    {"version": 1, "photo": "1950/a.jpg", "key": -123, "size": [H, W], "mode": "color",
     "recipe": {...}, "textures": "0f3a...", "params": [{"sigma": 0.10000000149011612}, ...]}

`params` has one object for each defect of the recipe, in order. Numbers are written so that they
come back exactly, and may be changed by hand: the same photograph with less grain. Their types are
not noted: they are those that the recipe draws.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agedphoto.synth import Ageing, Mode, Recipe, check_mode
from agedphoto.synth.types import Keys, Params

VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """What was drawn for one photograph, as plain data."""

    photo: str
    """Its name, for people."""
    key: int
    """Where all of it was drawn from, and what grain and noise are drawn from anew."""
    size: tuple[int, int]
    """Height and width in pixels, upright."""
    mode: Mode
    recipe: Recipe
    textures: str | None
    """Fingerprint of the texture bank, if the recipe uses any."""
    params: list[dict[str, Any]]
    """Of each defect."""

    @classmethod
    def of(
        cls,
        ageing: Ageing,
        params: list[Params],
        *,
        photo: str,
        keys: Keys,
        size: tuple[int, int],
        textures: str | None,
    ) -> "Drawn":
        """Describe what `ageing.sample` drew for one photograph, with its textures' fingerprint."""
        return cls(
            photo=photo,
            key=int(keys[0]),
            size=size,
            mode=ageing.mode,
            recipe=ageing.recipe,
            textures=textures,
            params=plain_params(params, 0),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what is saved."""
        return {
            "version": VERSION,
            "photo": self.photo,
            "key": self.key,
            "size": list(self.size),
            "mode": self.mode,
            "recipe": self.recipe.to_dict(),
            "textures": self.textures,
            "params": self.params,
        }

    @classmethod
    def read(cls, path: Path) -> "Drawn":
        """Read a file.

        Raises:
            ValueError: If it is not there or not such a file; the message begins with its name.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(data, dict) or data.get("version") != VERSION:
                raise ValueError(
                    "these are no parameters of this version; save some with --save-params"
                )
            height, width = data["size"]
            params = data["params"]
            if not isinstance(params, list) or not all(isinstance(one, dict) for one in params):
                raise ValueError("params must be a list of one object a defect")
            return cls(
                photo=str(data["photo"]),
                key=_whole(data["key"]),
                size=(_whole(height), _whole(width)),
                mode=check_mode(data["mode"]),
                recipe=Recipe.from_dict(data["recipe"]),
                textures=data["textures"],
                params=params,
            )
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
        except KeyError as error:
            raise ValueError(f"{path}: the field {error} is missing") from error
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error

    def restore(
        self, ageing: Ageing, *, device: torch.device, textures: str | None
    ) -> tuple[Keys, list[Params]]:
        """Return key and parameters as tensors, for an ageing after the same recipe.

        Args:
            ageing: What with.
            device: Where to.
            textures: Fingerprint of its texture bank, if the recipe uses any.

        Raises:
            ValueError: If the textures are others, or params do not fit the recipe.
        """
        if textures != self.textures:
            raise ValueError(
                f"these parameters are for the textures {self.textures}, but there are {textures}; "
                "give the same --textures, to the version of agedphoto that saved them"
            )
        most = len(ageing.textures_on(device)) if ageing.recipe.uses_textures else 1
        keys = torch.full((1,), self.key, dtype=torch.int64, device=device)
        drawn = ageing.sample(keys, size=self.size)
        if len(self.params) != len(drawn):
            raise ValueError(f"params must be of {len(drawn)} defects, got {len(self.params)}")
        return keys, [
            _filled(like, values, number, most)
            for number, (like, values) in enumerate(zip(drawn, self.params, strict=True))
        ]


def plain_params(params: list[Params], number: int) -> list[dict[str, Any]]:
    """Return the parameters of one photograph of a batch as plain data, exact."""
    return [{name: value[number].tolist() for name, value in one.items()} for one in params]


def _filled(like: Params, values: dict[str, Any], number: int, num_textures: int) -> Params:
    """Make tensors of values, of the types and shapes of others."""
    limits = {"texture": (0, num_textures - 1), "turn": (0, 7), "step": (1, 2**20), "order": (0, 5)}
    if set(values) != set(like):
        raise ValueError(
            f"params of defect {number} must be {', '.join(sorted(like)) or 'none'}, got "
            f"{', '.join(sorted(values)) or 'none'}"
        )
    made = {name: _tensor(like[name], values[name], f"{number}.{name}") for name in like}
    for name, tensor in made.items():
        low, high = limits.get(name.rpartition(".")[2], (-(2**63), 2**63 - 1))
        if tensor.dtype == torch.int64 and bool(((tensor < low) | (tensor > high)).any()):
            raise ValueError(
                f"param {number}.{name} must be from {low} to {high}, got {values[name]!r}"
            )
    return made


def _tensor(like: Tensor, value: Any, name: str) -> Tensor:
    try:
        made = torch.tensor([value])
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"param {name} must be numbers, got {str(value)[:80]!r}") from error
    exact = {torch.bool: 0, torch.int64: 1}.get(made.dtype, 2)
    wanted = 2 if like.dtype.is_floating_point else 0 if like.dtype == torch.bool else 1
    # Bools are no numbers, and 3.7 is no place in a texture.
    fits = exact == wanted or (exact, wanted) == (1, 2)
    if made.shape != like.shape or not fits:
        raise ValueError(
            f"param {name} must be {str(like.dtype).removeprefix('torch.')} of shape "
            f"{tuple(like.shape[1:])}, got {str(value)[:80]!r}"
        )
    return torch.tensor([value], dtype=like.dtype, device=like.device)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise ValueError(f"key and size must be whole numbers of 64 bits, got {value!r}")
    return value
