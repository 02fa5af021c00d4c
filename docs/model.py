"""Draws the data model of the concepts: boxes and arrows, as an SVG that takes the colours of its page.

python docs/model.py
"""

from dataclasses import dataclass
from html import escape
from pathlib import Path

STYLE = """
.model { --ink: #1f2933; --faint: #5b6874; --paper: #eef2f5; --accent: #c4500e; }
@media (prefers-color-scheme: dark) {
  .model { --ink: #e3e7ec; --faint: #9aa6b2; --paper: #2b303b; --accent: #ffab70; }
}
.model text { font: 15px system-ui, sans-serif; fill: var(--ink); text-anchor: middle; }
.model .name { font-weight: 600; }
.model .about { font-size: 12px; fill: var(--faint); }
.model .word { fill: var(--accent); }
.model rect { fill: var(--paper); stroke: var(--faint); }
.model .act { stroke: var(--accent); stroke-width: 2; }
.model path { fill: none; stroke: var(--faint); stroke-width: 1.6; marker-end: url(#tip); }
.model .made { stroke-dasharray: 5 4; }
"""
TIP = (
    '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0 8 4 0 8Z" style="fill: var(--faint); stroke: none; marker-end: none"/></marker>'
)


@dataclass(frozen=True)
class Box:
    """A thing of the model, at its middle; what acts, such as a register, has a thick edge."""

    name: str
    about: str
    x: float
    y: float
    width: float = 200
    height: float = 58
    acts: bool = False

    def drawn(self) -> str:
        """Return the box and its words."""
        edge = ' class="act"' if self.acts else ""
        corner = f'x="{self.x - self.width / 2}" y="{self.y - self.height / 2}"'
        told = self.about.splitlines()
        top = self.y + 3 - 8 * len(told)
        name = f'<text class="name" x="{self.x}" y="{top}">{escape(self.name)}</text>'
        lines = [
            f'<text class="about" x="{self.x}" y="{top + 20 + 16 * n}">{escape(line)}</text>'
            for n, line in enumerate(told)
        ]
        return f'<rect{edge} {corner} width="{self.width}" height="{self.height}" rx="7"/>{name}{"".join(lines)}'

    def edge(self, side: str) -> tuple[float, float]:
        """Return the middle of an edge: left, right, top or bottom."""
        across, along = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}[side]
        return self.x + across * self.width / 2, self.y + along * self.height / 2


SERIES = Box("Series", "frames on one grid, with times", 130, 40, 220)
IMAGE = Box("Image, Labels", "intensities, integers; on a Grid", 360, 40, 210)
POINTS = Box("Points", "in RAS mm, with columns", 590, 40)
PAIR = Box("Pair", "fixed and moving, and what is known", 130, 150, 236)
GROUP = Box("Group", "images, and edges between them", 364, 150, 212)
CLOUDS = Box("PointPair", "two clouds", 590, 150)
REGISTER = Box("register", "a network, a solver, a chain", 130, 265, 236, acts=True)
ANSWER = Box("Alignment", "transform φ, fixed → moving\nmaps · transforms · stats", 130, 400, 236, 74)
ENERGIES = Box("energies", "what is made small", 70, 525, 128)
METRICS = Box("metrics", "what is reported", 206, 525, 128)
REPORT = Box("report", "what is looked at", 342, 525, 128)
EXAMPLE = Box("Example", "whatever is seen at once", 590, 265)
SUPERVISION = Box("supervision", "named losses", 590, 350, acts=True)
TRAIN = Box("train", "one loop, any players", 590, 437, acts=True)
EVALUATION = Box("Evaluation", "rows, and a score", 590, 525)
BOXES = (
    *(IMAGE, POINTS, SERIES, PAIR, CLOUDS, GROUP, REGISTER, ANSWER, ENERGIES, METRICS, REPORT),
    *(EXAMPLE, SUPERVISION, TRAIN, EVALUATION),
)


def straight(start: Box, end: Box, sides: str = "bottom top", kind: str = "") -> str:
    """Return an arrow from one box to another, between two of their edges."""
    (x, y), (to_x, to_y) = (box.edge(side) for box, side in zip((start, end), sides.split(), strict=True))
    return f'<path class="{kind}" d="M{x} {y}L{to_x} {to_y}"/>'


def word(text: str, x: float, y: float) -> str:
    """Return a word beside an arrow."""
    return f'<text class="about word" x="{x}" y="{y}">{escape(text)}</text>'


def main() -> None:
    """Write `model.svg` beside this file."""
    down = (
        *((IMAGE, PAIR), (IMAGE, GROUP), (POINTS, CLOUDS), (PAIR, REGISTER), (REGISTER, ANSWER)),
        *((ANSWER, ENERGIES), (ANSWER, METRICS), (ANSWER, REPORT)),
        *((GROUP, EXAMPLE), (CLOUDS, EXAMPLE), (EXAMPLE, SUPERVISION), (SUPERVISION, TRAIN), (TRAIN, EVALUATION)),
    )
    arrows = [
        *(straight(*ends) for ends in down),
        straight(SERIES, PAIR, kind="made"),
        straight(PAIR, EXAMPLE, "bottom left"),
        '<path class="made" d="M490 437H400V280H250"/>',
    ]
    words = [word("a trained network", 325, 300), word("is a register", 325, 316)]
    drawn = "".join([*arrows, *(box.drawn() for box in BOXES), *words])
    label = 'role="img" aria-label="Data model: from images to alignments, and from examples to trained networks"'
    head = '<svg xmlns="http://www.w3.org/2000/svg" class="model" viewBox="0 0 700 565"'
    svg = f"{head} {label}><style>{STYLE}</style><defs>{TIP}</defs>{drawn}</svg>\n"
    Path(__file__).with_name("model.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
