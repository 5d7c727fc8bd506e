"""The page of `agedphoto app`: what is on it, and what its controls do.

Fonts are those of the visitor's system, and nothing is fetched from elsewhere. Handlers that use
the network take turns; whatever goes wrong, a visitor reads a sentence, the log has the traceback.
"""

import html
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]
import numpy as np
from PIL import Image

from agedphoto.app_photos import Limits, open_scan, preview, restore_scan
from agedphoto.datasets.photos import PHOTO_SUFFIXES
from agedphoto.restore import Restorer

logger = logging.getLogger(__name__)

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
MONO_FONTS = ("ui-monospace", "Menlo", "Consolas", "monospace")
BRUSH = "#ff3b30"
CSS = """
.gradio-container { max-width: 1400px !important; margin: 0 auto !important; }
#title h1 { font-weight: 600; margin: 0.2em 0 0 0; }
#title p, .aside p { color: var(--body-text-color-subdued); margin: 0; }
.aside p { font-size: var(--text-sm); }
#examples .grid-wrap { overflow: hidden; min-height: 0; padding: 0; }
#result .image-container, #result img { background: transparent; }
footer { display: none !important; }
@media (max-width: 640px) { .gradio-container { padding: 8px !important; } }
"""

TURN_TO_RESULT = """() => {
    document.querySelector("button[role=tab]").click();
    if (innerWidth <= 640) document.querySelector("#result").scrollIntoView({behavior: "smooth"});
}"""
"""By a click: Gradio takes a tab that it has chosen before for the one that is shown.
On a telephone the result lies below the controls."""


def make_theme() -> gr.themes.Base:
    """Return a plain gray theme, for nothing to compete with the photograph."""
    return gr.themes.Default(
        primary_hue="slate", secondary_hue="slate", neutral_hue="gray", font=FONTS,
        font_mono=MONO_FONTS,
    )  # fmt: skip


def build_page(
    restorer: Restorer,
    coloring: Restorer | None,
    *,
    folder: Path,
    examples: Sequence[Path],
    limits: Limits,
    max_queue: int,
    promise: str,
) -> gr.Blocks:
    """Lay out the page.

    Args:
        restorer: For photographs that keep what colours they have.
        coloring: Gives colours to gray ones; without it there is no switch for that.
        folder: For results, below that which Gradio serves files from.
        examples: Photographs to try.
        limits: Of what is handed in.
        max_queue: Visitors beyond this many are asked to come back.
        promise: A sentence on what becomes of photographs.
    """
    page = gr.Blocks(title="agedphoto", analytics_enabled=False, fill_width=True)
    with page:
        gr.Markdown(f"# Restore an old photograph\n{promise}", elem_id="title")
        with gr.Row():
            with gr.Column(scale=1, min_width=330):
                source = gr.File(
                    label="Photograph", file_types=sorted(PHOTO_SUFFIXES), height=140,
                    elem_id="source",
                )  # fmt: skip
                gr.Markdown("or one of these", visible=bool(examples), elem_classes="aside")
                gallery = gr.Gallery(
                    [str(path) for path in examples], label="Examples", columns=3, show_label=False,
                    container=False, allow_preview=False, object_fit="cover", buttons=[],
                    interactive=False, visible=bool(examples), elem_id="examples",
                )  # fmt: skip
                strength = gr.Slider(
                    0, 1, 1, step=0.05, label="Strength", buttons=[], elem_id="strength",
                )  # fmt: skip
                colors = gr.Checkbox(
                    label="Colours", info="for photographs that have none", value=False,
                    visible=coloring is not None, elem_id="colors",
                )  # fmt: skip
                button = gr.Button("Restore", variant="primary", elem_id="restore")
                download = gr.DownloadButton("Download", interactive=False, elem_id="download")
                gr.Markdown(_limits_in_words(limits), elem_classes="aside")
            with gr.Column(scale=3, min_width=300), gr.Tabs():
                with gr.Tab("Before | after"):
                    slider = gr.ImageSlider(
                        label="Before | after", type="pil", format="png", interactive=False,
                        show_label=False, max_height=720, buttons=["fullscreen"], elem_id="result",
                    )  # fmt: skip
                with gr.Tab("Mark damage") as damage_tab:
                    gr.Markdown("Paint over tears and stains; they are filled in from around.")
                    editor = gr.ImageEditor(
                        type="pil", image_mode="RGBA", format="png", sources=[], transforms=[],
                        layers=False, buttons=[], show_label=False, height="min(680px, 100vw)",
                        brush=gr.Brush(colors=[BRUSH], color_mode="fixed", default_size=18),
                        elem_id="damage",
                    )  # fmt: skip
                with gr.Tab("Mask", visible=restorer.finds_damage):
                    gr.Markdown("White is what the network takes for damage.")
                    mask = gr.Image(
                        type="pil", format="png", interactive=False, show_label=False,
                        height="min(680px, 100vw)", buttons=["fullscreen"], elem_id="mask",
                    )  # fmt: skip

        in_editor = gr.State(None)

        def show(path: str | None) -> tuple[Any, ...]:
            """Show what was chosen, and clear what belonged to the one before."""
            image = None
            if path is not None:
                with _telling_visitors():
                    image = preview(open_scan(Path(path), limits)[0])
            return (
                image and (image, image),
                None,
                gr.DownloadButton("Download", value=None, interactive=False),
                None,
                None,
            )

        def open_editor(path: str | None, opened: str | None) -> tuple[Any, ...]:
            """Put the photograph into the editor, which takes none while it is hidden."""
            if path is None or path == opened:
                return gr.skip(), gr.skip()
            with _telling_visitors():
                image = preview(open_scan(Path(path), limits)[0])
            return {"background": image, "layers": [], "composite": None}, path

        def choose(event: gr.SelectData) -> str:
            return str(examples[event.index])

        def restore(path: str | None, amount: float, in_color: bool, marks: Any) -> tuple[Any, ...]:
            if path is None:
                raise _refusal("Choose a photograph first.", title="No photograph")
            with _telling_visitors():
                done = restore_scan(
                    Path(path),
                    folder,
                    limits=limits,
                    restorer=restorer,
                    coloring=coloring if in_color else None,
                    strength=amount,
                    painted=painted(marks),
                )
            label = f"Download {done.file.suffix[1:].upper()}, {done.size[0]} x {done.size[1]} px"
            ready = gr.DownloadButton(label, value=str(done.file), interactive=True)
            return (done.before, done.after), done.mask, ready

        # One queue for all that decodes or computes: its length is a limit, its order is fair.
        turns: dict[str, Any] = {
            "concurrency_limit": 1, "concurrency_id": "network", "api_visibility": "undocumented",
        }  # fmt: skip
        shown = [slider, mask, download, editor, in_editor]
        damage_tab.select(
            open_editor, [source, in_editor], [editor, in_editor], api_name="open_editor", **turns
        )
        gr.on([source.upload, source.clear], show, source, shown, api_name="show", **turns).then(
            None, js=TURN_TO_RESULT
        )
        gallery.select(choose, None, source, api_name="choose", **turns).then(
            show, source, shown, api_name="show_example", **turns
        ).then(None, js=TURN_TO_RESULT)
        button.click(
            restore, [source, strength, colors, editor], [slider, mask, download],
            api_name="restore", **turns,
        ).then(None, js=TURN_TO_RESULT)  # fmt: skip
    return page.queue(max_size=max_queue, default_concurrency_limit=1, api_open=False)


def painted(marks: dict[str, Any] | None) -> np.ndarray | None:
    """Return what was painted in the editor: (h, w) uint8, 255 where the brush was."""
    layers = [
        layer for layer in (marks or {}).get("layers") or [] if isinstance(layer, Image.Image)
    ]
    if not layers:
        return None
    covered = np.max([np.asarray(layer.convert("RGBA"))[:, :, 3] for layer in layers], axis=0)
    return np.where(covered >= 128, 255, 0).astype(np.uint8)


def _limits_in_words(limits: Limits) -> str:
    return (
        f"Up to {limits.max_megapixels:g} megapixels and {limits.max_mb:g} MB. The download has "
        "every pixel, and the metadata of the original."
    )


@contextmanager
def _telling_visitors() -> Iterator[None]:
    """Turn whatever goes wrong into a sentence on the page."""
    try:
        yield
    except ValueError as error:
        message = str(error)
        raise _refusal(message if message.endswith(".") else f"{message}.") from error
    except Exception as error:
        logger.exception("a photograph was not restored")
        raise _refusal(
            "Something went wrong here; whoever runs this page finds the reason in its log."
        ) from error


def _refusal(message: str, *, title: str = "Not restored") -> gr.Error:
    # What a visitor has done wrong is no news for the log; and messages are shown as HTML.
    return gr.Error(html.escape(message), title=title, print_exception=False)
