"""The curves of a training as one picture, for a browser or a document."""

from pathlib import Path
from typing import Any

from agedphoto.datasets.files import write_bytes
from agedphoto.report_curve import curve_svgs

WIDTH, HEIGHT = 420, 270
MARGIN = 24

_STYLE = """
rect { fill: #fbfaf7; }
text { font: 12px system-ui, sans-serif; fill: #6b665c; }
.title, .end { fill: #26231d; font-size: 13px; font-weight: 600; }
.grid { stroke: #e5e0d5; fill: none; }
.axis, .tick { stroke: #b9b2a3; fill: none; }
.line { fill: none; stroke: #b4552d; stroke-width: 1.75; stroke-linejoin: round; }
.dot { fill: #b4552d; }
"""


def write_curve(log: list[dict[str, Any]], path: Path) -> None:
    """Draw loss and validation score over the pairs seen, as SVG."""
    panels = curve_svgs(log)
    width = MARGIN + (WIDTH + MARGIN) * max(len(panels), 1)
    placed = "".join(
        f'<g transform="translate({MARGIN + (WIDTH + MARGIN) * number} {MARGIN})">{panel}</g>'
        for number, panel in enumerate(panels)
    )
    write_bytes(
        path,
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT + 2 * MARGIN}" '
            f'width="{width}" height="{HEIGHT + 2 * MARGIN}"><style>{_STYLE}</style>'
            f'<rect width="100%" height="100%"/>{placed}</svg>\n'
        ).encode(),
    )
