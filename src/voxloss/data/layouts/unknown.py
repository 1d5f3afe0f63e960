"""The message about a folder whose layout is not known: what is in it, and the nearest ways out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from voxloss.data.formats import stem
from voxloss.data.formats.slices import is_stack
from voxloss.data.formats.volume import absent
from voxloss.data.layouts.names import is_volume, pattern_of, walk
from voxloss.utilities.text import count_of

SHOWN = 4  # patterns
CSV_WAY = "list them in a CSV table with the columns image and mask, and give the table as the data"


def several_fit(root: Path, names: Sequence[str]) -> str:
    """Return the sentence about a path that has several layouts."""
    return f"{root} may have the layout {' or '.join(names)}: it holds {_content(root)}. Choose one: " + "; ".join(
        f"({number}) data.layout {name}" for number, name in enumerate(names[:3], start=1)
    )


def not_recognised(root: Path, inner: Mapping[Path, str], fits_with_slices: bool) -> str:
    """Return the sentence about a path that has no layout.

    Args:
        root: The path.
        inner: Its folders that have a layout, with its name.
        fits_with_slices: Whether it has one if a folder of pictures is a volume.
    """
    if root.is_file():
        return (
            f"{root} has no known layout: a file should be a CSV table with the columns image and mask, or a JSON data "
            "list of MONAI; else name a folder"
        )
    ways = _ways_of_slices(root, fits_with_slices)
    ways += [f"give {path} as the data (layout {name})" for path, name in list(inner.items())[:2]]
    ways += _ways([path for path in walk(root) if is_volume(root / path)])
    numbered = "; ".join(f"({number}) {way}" for number, way in enumerate([*ways[:2], CSV_WAY], start=1))
    broken = [f" {absent(path)}." for path in sorted(root.iterdir()) if path.is_symlink() and not path.exists()]
    first = broken[0] if broken else ""
    return f"{root} has no known layout.{first} It holds {_content(root)}. The nearest ways: {numbered}"


def _ways_of_slices(root: Path, fits: bool) -> list[str]:
    """Return the way where pictures may be the slices of volumes: CASE/image/001.png, or scans/CASE/001.png."""
    where = "where each folder of pictures is a volume: --data.options "
    if fits:
        return [f"{where}'{{slices: true}}'"]
    found = [path for path in walk(root, slices=True) if is_volume(root / path, slices=True)]
    tops = sorted({path.parts[0] for path in found})
    if len(tops) == 2 and all(len(path.parts) == 2 and is_stack(root / path) for path in found):
        return [f"{where}'{{slices: true, images: {tops[0]}, masks: {tops[1]}}}'"]
    return []


def _ways(found: Sequence[Path]) -> list[str]:
    """Return two ways or more, first those that the names of images suggest."""
    ways = []
    folders = sorted({path.parent.as_posix() for path in found})
    if len(folders) == 2 and "." not in folders:
        ways.append(f"say what the folders hold: --data.options '{{images: {folders[0]}, masks: {folders[1]}}}'")
    # Forms that a quarter of the files have, and two at least.
    forms = [form for form, count in Counter(map(_form, found)).most_common(2) if 4 * count >= max(len(found), 8)]
    if len(forms) == 2 and not ways:
        one, other = sorted(forms)
        patterns = f'{{image: "{one}", label: "{other}"}}'
        ways.append(f"name images and masks by patterns: --data.options '{patterns}', or the other way round")
    if not found:
        ways.append("name the folder that holds the images, in formats that voxloss reads")
    ways.append("put images into images/ and masks of the same names into masks/")
    return [*ways, "put masks beside their images, with _mask at the end of their names"]


def _form(path: Path) -> str:
    """Return a pattern of the names like that of a file: its last word or, in a folder of its own, its whole name."""
    name = stem(path)
    place = max(name.rfind("_"), name.rfind("-"))
    last = "*" + path.name[place:] if place > 0 else path.name
    return "*/" * len(path.parent.parts) + last


def _content(root: Path) -> str:
    """Say which names of files there are, and how many of each form."""
    patterns = Counter(map(pattern_of, walk(root))) if root.is_dir() else Counter([root.name])
    if not patterns:
        return "no files"
    shown = [f"{count} × {name}" if count > 1 else name for name, count in patterns.most_common(SHOWN)]
    others = len(patterns) - len(shown)
    return ", ".join(shown) + (f" and {count_of(others, 'other form')} of names" if others > 0 else "")
