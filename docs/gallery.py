"""Makes the pictures of the gallery by the commands that stand on its page.

    python docs/gallery.py [NAME…]

Names are those of sections; all where none is given. A command writes into a folder of its section's name.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image as Picture

import pullback as pb
from pullback.report.pictures import picture

PAGE = Path(__file__).with_name("gallery.md")
WIDE = 960  # pixels
QUALITY = 60


def main() -> None:
    """Make the pictures of some sections, or of all."""
    first, *sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for code in _blocks(first, "python"):
            exec(code, {})
        for section in sections:
            name = section.splitlines()[0]
            if name in (sys.argv[1:] or [name]):
                for line in "".join(_blocks(section, "sh")).splitlines():
                    subprocess.run(line, shell=True, check=True)
                _small(_drawn(Path(name), line.split()), PAGE.parent / "gallery" / f"{name}.webp")


def _blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def _drawn(out: Path, words: list[str]) -> Picture.Image:
    """Return the picture of what a command wrote: one row of planes, or the clouds."""
    if (out / "clouds.png").is_file():
        return Picture.open(out / "clouds.png")
    fixed, moving = (pb.read_image(words[words.index(option) + 1]) for option in ("-f", "-m"))
    picture(pb.Alignment(pb.Pair(fixed, moving), pb.read_transform(out / "fixed_to_moving.h5")), out / "picture.png")
    whole = Picture.open(out / "picture.png").convert("RGB")
    empty = (np.asarray(whole) == np.asarray(whole)[0, 0]).all((1, 2))  # rows of pixels that are background
    ends = np.flatnonzero(np.diff(empty.astype(int)) == 1)  # of the captions, and of each row of planes
    return whole.crop((0, 0, whole.width, int(ends[1]) + 12))


def _small(drawn: Picture.Image, path: Path) -> None:
    """Write a picture as wide as a page."""
    path.parent.mkdir(exist_ok=True)
    size = (WIDE, round(drawn.height * WIDE / drawn.width))
    drawn.convert("RGB").resize(size, Picture.Resampling.LANCZOS).save(path, "WEBP", quality=QUALITY, method=6)


if __name__ == "__main__":
    main()
