"""The message about a folder whose layout is not known: what is in it, and the nearest ways out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from voxloss.data.layouts.names import name_of, pattern_of, walk
from voxloss.data.nifti import is_nifti_name, stem
from voxloss.utilities.text import count_of

SHOWN = 4  # patterns
CSV_WAY = "list them in a CSV table with the columns image and mask, and give the table as the data"


def several_fit(root: Path, names: Sequence[str]) -> str:
    """Return the sentence about a path that has several layouts."""
    return f"{root} may have the layout {' or '.join(names)}: it holds {_content(root)}. Choose one: " + "; ".join(
        f"({number}) data.layout {name}" for number, name in enumerate(names[:3], start=1)
    )


def not_recognised(root: Path, inner: Mapping[Path, str]) -> str:
    """Return the sentence about a path that has no layout.

    Args:
        root: The path.
        inner: Its folders that have a layout, with its name.
    """
    if root.is_file():
        return (
            f"{root} has no known layout: a file should be a CSV table with the columns image and mask, or a JSON data "
            "list of MONAI; else name a folder"
        )
    ways = [f"give {path} as the data (layout {name})" for path, name in list(inner.items())[:2]]
    ways += _ways([path for path in walk(root) if is_nifti_name(path)])
    numbered = "; ".join(f"({number}) {way}" for number, way in enumerate([*ways[:2], CSV_WAY], start=1))
    return f"{root} has no known layout. It holds {_content(root)}. The nearest ways: {numbered}"


def _ways(found: Sequence[Path]) -> list[str]:
    """Return two ways or more, first those that the names of images suggest."""
    ways = []
    folders = sorted({path.parent.as_posix() for path in found})
    if len(folders) == 2 and "." not in folders:
        ways.append(f"say what the folders hold: --data.options '{{images: {folders[0]}, masks: {folders[1]}}}'")
    endings = sorted(ending for ending, _ in Counter(map(_ending, found)).most_common(2))
    if len(endings) == 2:
        one, other = (("*/*" if all(len(path.parts) > 1 for path in found) else "*") + ending for ending in endings)
        patterns = f'{{image: "{one}", label: "{other}"}}'
        ways.append(f"name images and masks by patterns: --data.options '{patterns}', or the other way round")
    if not found:
        ways.append("name the folder that holds the images, in formats that voxloss reads")
    return [*ways, "put images into images/ and masks of the same names into masks/"]


def _ending(path: Path) -> str:
    """Return the last word of a name with its ending, such as _t1.nii.gz."""
    name = name_of(path)
    suffix = path.name[len(stem(path)) :]
    place = max(name.rfind("_"), name.rfind("-"))
    return name[max(place, 0) :] + suffix


def _content(root: Path) -> str:
    """Say which names of files there are, and how many of each form."""
    patterns = Counter(map(pattern_of, walk(root))) if root.is_dir() else Counter([root.name])
    if not patterns:
        return "no files"
    shown = [f"{count} × {name}" if count > 1 else name for name, count in patterns.most_common(SHOWN)]
    others = len(patterns) - len(shown)
    return ", ".join(shown) + (f" and {count_of(others, 'other form')} of names" if others > 0 else "")
