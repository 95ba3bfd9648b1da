"""Makes docs/figures/drawn.jpg: each thing, each extra and each movement of the drawn benchmark, as its videos show them.

python docs/figures/drawn_jpg.py docs/figures/drawn.jpg
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from engine.data.drawn.scenes import EXTRAS, SCENE_MOVEMENTS, SCENE_THINGS, draw_scene

SIZE, LABEL, COLUMNS, FRAMES = 64, 13, 14, 7


def main(target: Path) -> None:
    """Things and extras by single frames, movements by every other frame."""
    tiles: list[tuple[str, np.ndarray]] = []
    for number, thing in enumerate(SCENE_THINGS):
        tiles.append((thing, _clip(thing, "shaking", "", 1, number)[0]))
    for number, extra in enumerate(EXTRAS):
        tiles.append((extra, _clip("heart", "shaking", extra, 1, number)[0]))
    things = list(SCENE_THINGS)
    for number, movement in enumerate(SCENE_MOVEMENTS):
        clip = _clip(things[2 * number + 1], movement, "", 2 * FRAMES, number)[::2]
        tiles += [(movement if place == 0 else "", frame) for place, frame in enumerate(clip)]
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIZE, rows * (SIZE + LABEL)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (label, frame) in enumerate(tiles):
        corner = (place % COLUMNS * SIZE, place // COLUMNS * (SIZE + LABEL))
        pen.text((corner[0] + 2, corner[1]), label, fill="black")
        sheet.paste(Image.fromarray(frame), (corner[0], corner[1] + LABEL))
    sheet.save(target, quality=80)


def _clip(thing: str, movement: str, extra: str, frames: int, seed: int) -> np.ndarray:
    return draw_scene(thing, movement, extra, frames=frames, size=SIZE, rng=np.random.default_rng((17, seed)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
