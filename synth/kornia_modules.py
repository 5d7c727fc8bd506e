"""Ageing as Kornia modules: every defect, or a whole recipe, beside `RandomAffine` and its like.

For each defect of `DEFECTS` there is a module of its name, with its fields and Kornia's usual ones:

    from agedphoto.synth.kornia_modules import RandomGrain, RandomTexture
    wear = AugmentationSequential(RandomGrain(sigma=(0.05, 0.1), p=0.5), RandomTexture(p=0.3))

Unlike Kornia's own, these modules never draw from the global generator and never wait for the GPU.
A photograph's draws, the one of `p` among them, are a function of its key, of the module's seed and
of the kind of wear. Keys come with the call (`keys=`), or the module numbers the photographs that
it meets and derives them from its seed; the number is a buffer, so it is in the state_dict, and a
compiled module counts on. So give two modules of one kind in a chain different seeds, and copies of
a module (in the workers of a DataLoader, on several ranks) different seeds or keys, lest they draw
the same.
"""

import ast
import inspect
import textwrap
from contextlib import nullcontext
from dataclasses import MISSING, Field, fields
from hashlib import sha256
from itertools import pairwise
from typing import Any

import torch
from kornia.augmentation import IntensityAugmentationBase2D
from kornia.color import rgb_to_grayscale
from torch import Tensor

from ..textures import TextureBank
from .ageing import exact_products
from .defect import Defect, name_of
from .defects import DEFECTS
from .keys import check_seed, sample_keys
from .philox import draw_uniform, word
from .recipe import Recipe
from .recipes import find_recipe
from .scene import Scene, per_pixel
from .types import Images, InMode, Keys, Mask, Params

CHOICE_OP = 0xFFFFFFFB
"""Op number of the draw of `p`; no recipe is long enough to reach it."""

_BOOKKEEPING = ("keys", "batch_prob", "forward_input_shape", "output_size")
"""What Kornia and these modules keep in `params` beside the parameters of defects."""


class _RandomWear(IntensityAugmentationBase2D):
    """What `RandomDefect` and `RandomAgeing` share."""

    photos_seen: Tensor
    """How many photographs have had keys from the seed."""

    damage_mask: Tensor | None = None
    """Where damage hides the pictures of the last call, bool (B, 1, H, W); None if it cannot."""

    def __init__(
        self,
        name: str,
        defects: tuple[Defect, ...],
        *,
        p: float,
        same_on_batch: bool,
        keepdim: bool,
        seed: int,
        textures: TextureBank | None,
    ) -> None:
        """Settle what is drawn from, and for which share of the photographs."""
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"p must be a share from 0 to 1, got {p!r}")
        super().__init__(p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        self.seed = check_seed(seed)
        self.defects = defects
        digest = sha256(f"{name} {seed}".encode()).digest()
        self._salt = int.from_bytes(digest[:8], "little", signed=True)
        self._textures = textures
        self.register_buffer("photos_seen", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        input: Tensor,  # noqa: A002, Kornia calls it so
        params: Params | None = None,
        *,
        keys: Keys | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Age photographs.

        Args:
            input: (B, C, H, W), (C, H, W) or (H, W), C = 1 or 3, floating point in [0, 1]; what is
                beyond is clipped where the wear is applied.
            params: Drawn before, `_params` of this module; they are used as they are.
            keys: One int64 key for each photograph; None takes the next ones of the seed.
            kwargs: Tensors to take instead of those of the same names in `params`; others are
                ignored.

        Raises:
            ValueError: If both params and keys are given, or something does not fit.
        """
        if params is not None and keys is not None:
            raise ValueError("params hold their own keys; give either params or keys")
        if params is None:
            params = self._draw(self.transform_tensor(input).shape, input.device, keys)
        # Containers pass arguments of other modules along.
        instead = {name: value for name, value in kwargs.items() if name in params}
        return super().forward(input, params=params | instead if instead else params)

    def forward_parameters(self, batch_shape: tuple[int, ...]) -> Params:
        """Draw what the next call needs, on the device of the last one; containers call this."""
        return self._draw(batch_shape, self.device, None)

    def apply_transform(
        self,
        input: Tensor,  # noqa: A002
        params: Params,
        flags: dict[str, Any],
        transform: Tensor | None = None,
    ) -> Tensor:
        """Apply the wear to every photograph; Kornia then puts back those that are not chosen."""
        B, C, H, W = input.shape
        if C not in (1, 3):
            raise ValueError(
                f"photographs must have 1 or 3 channels, got shape {tuple(input.shape)}; take off "
                "an alpha channel before"
            )
        if "keys" not in params:
            raise ValueError(f"params of {type(self).__name__} must hold its keys; give `_params`")
        if B == 0:
            return input
        if self.device != input.device:
            self.device = input.device
        # Where the last batch was on another device; otherwise nothing moves.
        keys, chosen = (params[name].to(input.device) for name in ("keys", "batch_prob"))
        drawn = {
            name: value.to(input.device)
            for name, value in params.items()
            if name not in _BOOKKEEPING
        }
        # A caller's autocast would round the convolutions of a defect to bfloat16.
        products = nullcontext() if torch.compiler.is_compiling() else exact_products()
        with torch.autocast(input.device.type, enabled=False), products:
            aged, mask = self._age(input.clamp(0, 1), drawn, self._scenes(keys, (H, W)))
            aged = _with_channels(aged, C)
        if mask is not None and self.p < 1:
            mask = mask & per_pixel(chosen > 0.5)
        if not torch.compiler.is_exporting():
            self.damage_mask = mask
        if C > 1 and input.is_contiguous(memory_format=torch.channels_last):
            return aged.contiguous(memory_format=torch.channels_last)
        return aged.contiguous()

    def _apply(self, *args: Any, **kwargs: Any) -> "_RandomWear":
        # Called by `to`, `cuda` and their like, of this module or one around it.
        super()._apply(*args, **kwargs)
        if self._textures is not None:
            self._textures = self._textures.to(self.device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"damage_mask": None}

    def _draw(
        self, batch_shape: tuple[int, ...], device: torch.device, keys: Keys | None
    ) -> Params:
        B, H, W = batch_shape[0], batch_shape[-2], batch_shape[-1]
        if keys is None:
            keys = self._next_keys(B, device)
        if keys.shape != (B,) or keys.dtype != torch.int64:
            raise ValueError(
                f"keys must be int64 of shape ({B},), one for each photograph, "
                f"got {keys.dtype} of shape {tuple(keys.shape)}"
            )
        # Bits turned around for all keys alike leave no two alike, and make each kind's its own.
        keys = keys.to(device)
        keys = keys ^ word(self._salt, like=keys)
        if self.same_on_batch:
            keys = keys[:1].repeat(B)
        if self.p in (0, 1):
            chosen = torch.full((B,), float(self.p), device=device)
        else:
            u = draw_uniform(keys, op=CHOICE_OP, count=1)[:, 0]
            chosen = (u < self.p).to(torch.float32)
        drawn = self._sample(self._scenes(keys, (H, W)))
        for name in _BOOKKEEPING:
            if name in drawn:
                raise ValueError(f"a defect must not call a parameter {name!r}; rename it")
        shape = torch.stack([torch.full((), side, dtype=torch.int64) for side in batch_shape])
        return drawn | {"keys": keys, "batch_prob": chosen, "forward_input_shape": shape}

    def _next_keys(self, count: int, device: torch.device) -> Keys:
        self.photos_seen += count
        seen = self.photos_seen
        if seen.device.type != "cpu" and seen.device != device:
            seen = seen.to(device)
        # A number on the CPU enters a kernel as an argument: nothing is copied, nobody waits.
        samples = torch.arange(-count, 0, device=device) + seen
        return sample_keys(self.seed, 0, samples, torch.zeros_like(samples))

    def _scenes(self, keys: Keys, size: tuple[int, int]) -> list[Scene]:
        textures = None
        if any(defect.uses_textures for defect in self.defects):
            textures = self._textures_on(keys.device)
        severity = self._severity(keys)
        return [
            Scene(keys=keys, op=op, size=size, severity=severity, textures=textures)
            for op in range(len(self.defects))
        ]

    def _textures_on(self, device: torch.device) -> TextureBank:
        if self._textures is None:
            return _standard_textures(device)
        if self._textures.textures.device != device:
            self._textures = self._textures.to(device)
        return self._textures

    def _severity(self, keys: Keys) -> Tensor:
        return torch.ones(keys.shape[0], device=keys.device)

    def _sample(self, scenes: list[Scene]) -> Params:
        raise NotImplementedError

    def _age(self, x: Images, drawn: Params, scenes: list[Scene]) -> tuple[InMode, Mask | None]:
        raise NotImplementedError

    def _described(self, what: str) -> str:
        return (
            f"{type(self).__name__}({what}{', ' if what else ''}p={self.p}, "
            f"same_on_batch={self.same_on_batch}, keepdim={self.keepdim}, seed={self.seed})"
        )


class RandomDefect(_RandomWear):
    """Ages a share of the photographs by one defect, of those there are or your own.

    `RandomDefect(Grain(sigma=(0.05, 0.1)))` is `RandomGrain(sigma=(0.05, 0.1))`. Photographs keep
    their channels: gray is repeated, colour on gray becomes its luma.

    Args:
        defect: What may happen.
        p: To which share of the photographs.
        same_on_batch: Whether all photographs of a batch are drawn alike, as the first one is.
        keepdim: Whether the result has the shape of the input, even if that is no batch.
        seed: 0 to 2**64 - 1.
        textures: Wear to draw from; the 64 that are shipped if None, read when first needed.
    """

    def __init__(
        self,
        defect: Defect,
        *,
        p: float = 0.5,
        same_on_batch: bool = False,
        keepdim: bool = False,
        seed: int = 0,
        textures: TextureBank | None = None,
    ) -> None:
        if not isinstance(defect, Defect):
            raise ValueError(f"defect must be an instance of synth.Defect, got {defect!r}")
        super().__init__(
            name_of(type(defect)),
            (defect,),
            p=p,
            same_on_batch=same_on_batch,
            keepdim=keepdim,
            seed=seed,
            textures=textures,
        )

    def _sample(self, scenes: list[Scene]) -> Params:
        return self.defects[0].sample(scenes[0])

    def _age(self, x: Images, drawn: Params, scenes: list[Scene]) -> tuple[InMode, Mask | None]:
        return self.defects[0].apply(x, drawn, scenes[0])

    def __repr__(self) -> str:
        return self._described(repr(self.defects[0]))


class RandomAgeing(_RandomWear):
    """Ages a share of the photographs after a whole recipe, severity and all.

    Its result for the keys in `_params` is that of `Ageing(recipe, augment=False)`. What the recipe
    varies in the clean photo is left to Kornia's own modules.

    Args:
        recipe: Name of a recipe, or one of your own.
        p: To which share of the photographs it happens.
        same_on_batch: Whether all photographs of a batch are drawn alike, as the first one is.
        keepdim: Whether the result has the shape of the input, even if that is no batch.
        seed: 0 to 2**64 - 1.
        textures: Wear to draw from; the 64 that are shipped if None, read when first needed.
    """

    def __init__(
        self,
        recipe: str | Recipe = "seed",
        *,
        p: float = 0.5,
        same_on_batch: bool = False,
        keepdim: bool = False,
        seed: int = 0,
        textures: TextureBank | None = None,
    ) -> None:
        self.recipe = find_recipe(recipe)
        super().__init__(
            f"recipe {self.recipe.name}",
            self.recipe.defects,
            p=p,
            same_on_batch=same_on_batch,
            keepdim=keepdim,
            seed=seed,
            textures=textures,
        )

    def _severity(self, keys: Keys) -> Tensor:
        return self.recipe.severity(keys)

    def _sample(self, scenes: list[Scene]) -> Params:
        drawn: Params = {}
        for defect, scene in zip(self.defects, scenes, strict=True):
            for name, value in defect.sample(scene).items():
                drawn[f"{scene.op}.{name}"] = value
        return drawn

    def _age(self, x: Images, drawn: Params, scenes: list[Scene]) -> tuple[InMode, Mask | None]:
        hidden: Tensor | None = None
        for defect, scene in zip(self.defects, scenes, strict=True):
            start = f"{scene.op}."
            own = {name[len(start) :]: v for name, v in drawn.items() if name.startswith(start)}
            x, mask = defect.apply(x, own, scene)
            if mask is not None:
                hidden = mask if hidden is None else hidden | mask
        return x, hidden

    def __repr__(self) -> str:
        return self._described(repr(self.recipe.name))


def __getattr__(name: str) -> Any:
    """Make the module class of a defect when it is first asked for."""
    kind = _KINDS.get(name)
    if kind is None:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}; there are: {', '.join(__dir__())}"
        )
    return globals().setdefault(name, _module_of(name, kind))


def __dir__() -> list[str]:
    return ["RandomAgeing", "RandomDefect", *_KINDS]


_KINDS = {f"Random{kind.__name__}": kind for kind in DEFECTS.values()}


def _module_of(name: str, kind: type[Defect]) -> type[RandomDefect]:
    """Make a class whose arguments are the fields of a defect and those of `RandomDefect`."""
    own = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(field),
            annotation=field.type,
        )
        for field in fields(kind)  # type: ignore[arg-type]
    ]
    common = list(inspect.signature(RandomDefect).parameters.values())[1:]
    signature = inspect.Signature([*own, *common])

    def init(self: RandomDefect, **options: Any) -> None:
        signature.bind(**options)
        ours = {field.name: options.pop(field.name) for field in own if field.name in options}
        RandomDefect.__init__(self, kind(**ours), **options)

    def represent(self: RandomDefect) -> str:
        what = self.defects[0]
        return self._described(
            ", ".join(f"{field.name}={getattr(what, field.name)!r}" for field in own)
        )

    return type(
        name,
        (RandomDefect,),
        {
            "__init__": init,
            "__repr__": represent,
            "__signature__": signature,
            "__doc__": _documentation(kind),
            "__module__": __name__,
        },
    )


def _default(field: "Field[Any]") -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is MISSING else field.default


def _documentation(kind: type[Defect]) -> str:
    """Write a docstring from those of a defect, of its fields and of `RandomDefect`."""
    summary = inspect.cleandoc(kind.__doc__ or kind.__name__)
    common = inspect.cleandoc(RandomDefect.__doc__ or "").partition("Args:\n")[2]
    lines = [f"{name}: {' '.join(note.split())}" for name, note in _notes(kind).items()]
    lines += [
        line for line in textwrap.dedent(common).splitlines() if not line.startswith("defect")
    ]
    return f"{summary}\n\nArgs:\n" + textwrap.indent("\n".join(lines), "    ") + "\n"


def _notes(kind: type[Defect]) -> dict[str, str]:
    """Return the sentences that stand under the fields of a class, if its source is at hand."""
    notes = {field.name: "see the defect." for field in fields(kind)}  # type: ignore[arg-type]
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    except (OSError, TypeError):
        return notes
    for statement, following in pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            notes[statement.target.id] = str(following.value.value)
    return notes


def _with_channels(x: InMode, channels: int) -> InMode:
    """Repeat gray, or take the luma of colour, to have as many channels as wanted."""
    if x.shape[1] == channels:
        return x
    return rgb_to_grayscale(x) if channels == 1 else x.expand(-1, channels, -1, -1)


_standard: dict[torch.device, TextureBank] = {}


def _standard_textures(device: torch.device) -> TextureBank:
    _read_standard_textures(device)
    return _standard[device]


@torch.compiler.assume_constant_result
def _read_standard_textures(device: torch.device) -> None:
    """Keep one bank a device for all modules; run as a module is compiled, not traced."""
    if device not in _standard:
        bank = next(iter(_standard.values()), None) or TextureBank.load()
        _standard[device] = bank.to(device)
