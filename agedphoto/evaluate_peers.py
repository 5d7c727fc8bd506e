"""Classical denoisers beside a network: the same noisy picture, scored the same way.

They are not blind: each is told the true sigma, which a network has to see for itself.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata

import numpy as np
from jaxtyping import Float
from skimage.restoration import denoise_nl_means

from agedphoto.evaluate_answer import Answer
from agedphoto.evaluate_cases import Given, to_levels
from agedphoto.synth import Mode

PEERS = ("nlm", "bm3d")

Denoise = Callable[[Float[np.ndarray, "H W *C"], float], Float[np.ndarray, "H W *C"]]

NLM_PATCH_PX = 5
NLM_DISTANCE_PX = 6
NLM_H = 0.6
"""Times sigma. The three are those of scikit-image's own example of its fast variant. On crops of
eight photos that are not Kodak's, none of fourteen other choices was more than 0.2 dB better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """A denoiser that is told sigma."""

    name: str
    about: str
    """What it is, of which version, with which parameters."""
    denoise: Denoise
    """From a picture in [0, 1], unclipped, and its sigma in the same unit."""

    def answer(self, given: Given, *, sigma: float, mode: Mode) -> Answer:
        """Denoise what the network was given.

        Args:
            given: With noise; not clipped.
            sigma: Of the noise, in levels of 255.
            mode: Of the network beside it.

        Raises:
            ValueError: If the picture is too small for it.
        """
        planes = given.aged.numpy()
        noisy = planes[0] if len(planes) == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0))
        try:
            levels = to_levels(np.asarray(self.denoise(noisy, sigma / 255)).reshape(noisy.shape))
        # All: what a compiled library makes of a picture that does not suit it.
        except Exception as error:
            raise ValueError(f"{self.name} cannot denoise it: {error}") from error
        return Answer(picture=levels, colors=levels if mode == "color" else None)


def find_peers(names: Sequence[str]) -> list[Peer]:
    """Return denoisers by name.

    Raises:
        ValueError: If there is none of that name, one is named twice, or one is not installed.
    """
    if len(set(names)) < len(names):
        raise ValueError(f"beside names a denoiser twice: {' '.join(names)}; name each once")
    return [_find_peer(name) for name in names]


def _find_peer(name: str) -> Peer:
    if name == "nlm":
        return Peer(
            name="nlm",
            about=(
                f"non-local means (Buades et al. 2005), scikit-image "
                f"{metadata.version('scikit-image')}, fast mode, patch {NLM_PATCH_PX} px, distance "
                f"{NLM_DISTANCE_PX} px, h {NLM_H:g} sigma; told sigma"
            ),
            denoise=_nlm,
        )
    if name == "bm3d":
        return _find_bm3d()
    raise ValueError(f"beside knows no denoiser {name!r}; there are: {', '.join(PEERS)}")


def _nlm(noisy: Float[np.ndarray, "H W *C"], sigma: float) -> Float[np.ndarray, "H W *C"]:
    return denoise_nl_means(
        noisy,
        patch_size=NLM_PATCH_PX,
        patch_distance=NLM_DISTANCE_PX,
        h=NLM_H * sigma,
        sigma=sigma,
        fast_mode=True,
        preserve_range=True,
        channel_axis=-1 if noisy.ndim == 3 else None,
    )


def _find_bm3d() -> Peer:
    """Return BM3D by its authors; it is not ours to bring, so it is looked for only here."""
    try:
        package = importlib.import_module("bm3d")
    # OSError: its compiled part may lack a library of the system.
    except (ImportError, OSError) as error:
        raise ValueError(
            f"beside bm3d needs the package bm3d ({error}); install it by hand: pip install bm3d. "
            "Its licence allows noncommercial use only, so agedphoto never installs it"
        ) from error

    def denoise(noisy: Float[np.ndarray, "H W *C"], sigma: float) -> Float[np.ndarray, "H W *C"]:
        run = package.bm3d_rgb if noisy.ndim == 3 else package.bm3d
        return run(noisy, sigma)

    return Peer(
        name="bm3d",
        about=(
            f"BM3D (Dabov et al. 2007; Mäkinen et al. 2020), package bm3d "
            f"{metadata.version('bm3d')}, profile np; told sigma"
        ),
        denoise=denoise,
    )
