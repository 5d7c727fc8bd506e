"""The page of `agedphoto app`: what is on it, and what its controls do.

Fonts are those of the visitor's system, and nothing is fetched from elsewhere. Handlers that use
the network take turns; whatever goes wrong, a visitor reads a sentence, the log has the traceback.
"""

import html
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from agedphoto.app_photos import (
    EndedError,
    Limits,
    Turns,
    open_scan,
    preview,
    read_marks,
    restore_scan,
)
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
#result .empty { min-height: min(480px, 70vw); flex-direction: column; gap: 0.6em; }
#result .empty::after {
    content: "Your photograph will be shown here."; color: var(--body-text-color-subdued);
}
#result .progress-text { font-family: inherit; }
#result.unrestored [data-testid=slider] { display: none; }
#result.unrestored img.fixed { display: none; }
footer { display: none !important; }
@media (max-width: 640px) {
    .gradio-container { padding: 8px !important; }
    #damage .toolbar-wrap { left: 2px; }
}
"""

WITHDRAW = """() => [
    {__type__: "update", value: null, label: "Download", interactive: false},
    {__type__: "update", value: "Restore", interactive: true},
]"""
"""What was made of another photograph is not to be had from the moment that one is chosen; the
server would tell so only when it is this visitor's turn."""

BEGIN = """() => [
    {__type__: "update", value: null, label: "Download", interactive: false},
    {__type__: "update", value: "Restoring …", interactive: false},
]"""

END = """() => ({__type__: "update", value: "Restore", interactive: true})"""

TURN_TO_RESULT = """() => {
    document.querySelector("button[role=tab]").click();
    if (innerWidth > 640) return;
    requestAnimationFrame(() => requestAnimationFrame(() => {
        const shown = document.querySelector("#result img");
        const turn = () => shown.scrollIntoView({behavior: "smooth", block: "end"});
        if (shown && shown.complete) turn();
        else if (shown) shown.addEventListener("load", turn, {once: true});
    }));
}"""
"""By a click: Gradio takes a tab that it has chosen before for the one that is shown.
On a telephone the result lies below the controls; once it has its size, both are on the screen."""


def make_words() -> gr.I18n:
    """Return what the page says instead of Gradio's words."""
    return gr.I18n(
        en={
            "upload_text.drop_file": "Drop a photograph here",
            "upload_text.click_to_upload": "choose one",
            "common.or": "or",
        }
    )


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
    turns: Turns,
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
        turns: For those who restore.
        max_queue: Visitors beyond this many are asked to come back.
        promise: A sentence on what becomes of photographs.
    """
    public = {str(path) for path in examples}
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
                with gr.Tab("Mark damage", interactive=False) as damage_tab:
                    gr.Markdown(
                        "Paint over tears and stains, then press Restore; they are filled in from "
                        "around."
                    )
                    editor = gr.ImageEditor(
                        type="pil", image_mode="RGBA", format="png", sources=[], transforms=[],
                        layers=False, buttons=[], show_label=False, height="min(680px, 100vw)",
                        brush=gr.Brush(colors=[BRUSH], color_mode="fixed", default_size=18),
                        elem_id="damage",
                    )  # fmt: skip
                with gr.Tab("Mask", visible=restorer.finds_damage, interactive=False) as mask_tab:
                    gr.Markdown("White is what the network takes for damage.")
                    mask = gr.Image(
                        type="pil", format="png", interactive=False, show_label=False,
                        height="min(680px, 100vw)", buttons=["fullscreen"], elem_id="mask",
                    )  # fmt: skip

        in_editor = gr.State(None)

        def show(file: Any) -> tuple[Any, ...]:
            """Show what was chosen, and clear what belonged to the one before."""
            path, image = _path_of(file), None
            if path is not None:
                with _telling_visitors():
                    try:
                        image = preview(open_scan(path, limits)[0])
                    except ValueError:
                        if str(path) not in public:
                            # What is not taken is not kept.
                            path.unlink(missing_ok=True)
                            with suppress(OSError):
                                path.parent.rmdir()
                        raise
            kept = gr.skip() if image else None
            return gr.Gallery(selected_index=None), kept, *_show(image)

        def show_example(event: gr.SelectData) -> tuple[Any, ...]:
            path = examples[event.index]
            return str(path), *_show(preview(open_scan(path, limits)[0]))

        def open_editor(file: Any, opened: str | None) -> tuple[Any, ...]:
            """Put the photograph into the editor, which takes none while it is hidden."""
            path = _path_of(file)
            if path is None or str(path) == opened:
                return gr.skip(), gr.skip()
            image = None
            with _telling_visitors():
                image = preview(open_scan(path, limits)[0])
            return image and {"background": image, "layers": [], "composite": None}, str(path)

        def restore(
            file: Any, amount: Any, in_color: Any, marks: Any, marked: str | None
        ) -> tuple[Any, ...]:
            path, done = _path_of(file), None
            with _telling_visitors():
                if path is None:
                    raise ValueError("Choose a photograph first.")
                layers = marks["layers"] if marks and marked == str(path) else []
                painted = read_marks([Path(layer["path"]) for layer in layers])
                # Gradio lets the next one begin when a visitor turns away from what is running.
                with turns.one():
                    done = restore_scan(
                        path,
                        folder,
                        limits=limits,
                        restorer=restorer,
                        coloring=coloring if in_color else None,
                        strength=amount,
                        painted=painted,
                        on_tile=turns.go_on,
                    )
            if done is None:
                return gr.skip(), gr.skip(), gr.skip(), gr.skip()
            label = f"Download {done.file.suffix[1:].upper()}, {done.size[0]} × {done.size[1]} px"
            return (
                gr.ImageSlider(value=(done.before, done.after), elem_classes=[]),
                done.mask,
                gr.Tab(interactive=done.mask is not None),
                gr.DownloadButton(label, value=str(done.file), interactive=True),
            )

        # One queue for all that computes, one for all that decodes: a photograph is shown at once
        # while another is restored. Handlers read their inputs themselves: what Gradio would open
        # for them has no limits.
        computes, decodes = (
            {
                "concurrency_limit": 1, "concurrency_id": name, "preprocess": False,
                "api_visibility": "undocumented", "show_progress": "minimal",
            }
            for name in ("computes", "decodes")
        )  # fmt: skip
        by_hand, chosen = [source.upload, source.clear], gallery.select
        shown = [source, slider, mask, editor, in_editor, damage_tab, mask_tab]
        button.click(None, None, [download, button], js=BEGIN)
        restoring = button.click(
            restore,
            [source, strength, colors, editor, in_editor],
            [slider, mask, mask_tab, download],
            api_name="restore",
            **computes,
        )
        gr.on([*by_hand, chosen], None, None, [download, button], js=WITHDRAW, cancels=restoring)
        for showing in (
            gr.on(by_hand, show, source, [gallery, *shown], api_name="show", **decodes),
            gr.on(chosen, show_example, None, shown, api_name="show_example", **decodes),
            restoring,
        ):
            showing.success(None, js=TURN_TO_RESULT)
        damage_tab.select(
            open_editor, [source, in_editor], [editor, in_editor], api_name="open_editor", **decodes
        )
        # Either: which one depends on how it ended.
        restoring.then(None, None, button, js=END)
        restoring.failure(None, None, button, js=END)
    return page.queue(max_size=max_queue, default_concurrency_limit=1, api_open=False)


def _path_of(file: Any) -> Path | None:
    """Return where a photograph lies that was handed in; `Visitors` has seen that it may be."""
    return None if file is None else Path(file["path"])


def _show(image: Image.Image | None) -> tuple[Any, ...]:
    """Return what the page shows of a photograph that is not restored yet."""
    return (
        gr.ImageSlider(value=image and (image, image), elem_classes=["unrestored"]),
        None,
        None,
        None,
        gr.Tab(interactive=image is not None),
        gr.Tab(interactive=False),
    )


def _limits_in_words(limits: Limits) -> str:
    return (
        f"JPEG, PNG, TIFF, WebP and others, up to {limits.max_megapixels:g} megapixels and "
        f"{limits.max_mb:g} MB. The download has every pixel, and the metadata of the original."
    )


@contextmanager
def _telling_visitors() -> Iterator[None]:
    """Turn whatever goes wrong into a sentence on the page."""
    try:
        yield
    except ValueError as error:
        _tell(str(error))
    except EndedError:
        _tell("The page is being closed.")
    except FileNotFoundError:
        _tell("This photograph was removed in the meantime; choose it again.")
    except Exception:
        logger.exception("a photograph was not restored")
        _tell("Something went wrong here; whoever runs this page finds the reason in its log.")


def _tell(message: str) -> None:
    # Messages are shown as HTML.
    gr.Warning(html.escape(message if message.endswith(".") else f"{message}."))
