"""A folder of pictures: one folder per class, either below train/ and test/ or at the top (then with a fixed split)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuro.datasets.guard import reading, refuse_bomb
from neuro.datasets.split import Arrays, Pair
from neuro.errors import DataError

FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP")
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".webp"}
#: Pillow modes that become 8-bit grey or RGB without loss.
GREY, COLOUR = {"1", "L"}, {"1", "L", "P", "RGB"}


def image_folder(folder: Path) -> Arrays:
    """Pictures of one size as uint8 (N, 1 or 3, H, W); classes are the sorted names of their folders."""
    with reading(folder):
        parts = {part: folder / part for part in ("train", "test") if (folder / part).is_dir()} or {"train": folder}
        per_part = {part: {f.name: f for f in _visible(root) if f.is_dir()} for part, root in parts.items()}
    classes = tuple(sorted({name for folders in per_part.values() for name in folders}))
    listing = {
        part: [(path, classes.index(name)) for name in sorted(folders) for path in _pictures(folders[name])]
        for part, folders in per_part.items()
    }
    everything = [path for entries in listing.values() for path, _ in entries]
    if not everything:
        raise DataError(
            f"{folder}: no data in it; it needs one folder of pictures per class ({', '.join(sorted(SUFFIXES))}), "
            "at the top or below train/ and test/, or IDX files"
        )
    mode, size = _common_form(folder, everything)

    def pair(part: str) -> Pair | None:
        if not listing.get(part):
            return None
        images = np.stack([_pixels(path, mode) for path, _ in listing[part]])
        labels = np.array([label for _, label in listing[part]], dtype=np.int64)
        return images.reshape(len(images), size[1], size[0], -1).transpose(0, 3, 1, 2), labels

    return Arrays(pair("train"), pair("test"), f"{len(everything):,} pictures in {folder}", classes)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.suffix.lower() in SUFFIXES]


def _common_form(folder: Path, paths: list[Path]) -> tuple[str, tuple[int, int]]:
    """("L" or "RGB", (width, height)), from the headers alone, so that nothing huge is decoded before it is refused."""
    from PIL import Image

    modes: set[str] = set()
    sizes: list[tuple[int, int]] = []
    stored = 0
    for path in paths:
        with reading(path), Image.open(path, formats=FORMATS) as image:
            if image.mode not in COLOUR:
                raise DataError(
                    f"{path}: has Pillow mode {image.mode}; save it as 8-bit grey or RGB without transparency"
                )
            sizes.append(image.size)
            if image.size != sizes[0]:
                raise DataError(
                    f"{path}: is {image.size} pixels but {paths[0].name} is {sizes[0]}; bring all to one size"
                )
            modes.add(image.mode)
            stored += path.stat().st_size
    width, height = sizes[0]
    refuse_bomb(folder, len(paths) * width * height * 3, stored)
    return ("L" if modes <= GREY else "RGB"), (width, height)


def _pixels(path: Path, mode: str) -> np.ndarray:
    from PIL import Image

    with reading(path), Image.open(path, formats=FORMATS) as image:
        return np.asarray(image.convert(mode), dtype=np.uint8)
