"""Write a synthetic abdominal CT with kidneys and one kidney tumour in KiTS19's layout, to start without a download.

What it is for: to show the whole study on a task as imbalanced as the real one. It is no evidence about losses.
The real data's layout is kept so that the same code reads both: `case_NNNNN/imaging.nii.gz` (int16, HU) and
`segmentation.nii.gz` (uint8; 0 background, 1 kidney, 2 tumour), stored (slice, row, column), rows towards the back,
columns towards the patient's left, slices towards the feet, off-diagonal affine, zero origin.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from voxloss.data.phantom.anatomy import Abdomen
from voxloss.data.phantom.frame import Trunk
from voxloss.utilities.arrays import ClassIndices, Float32s, Float64s
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import atomic_folder, write_json

GENERATOR = 1  # raised when the same seed would give other voxels
MAXIMUM_CASES = 100_000  # five digits in the name

Quantiles = tuple[tuple[float, float], ...]  # (probability, value), linear in between

# Tumour voxels / all voxels in KiTS19's 210 public masks: quantiles counted from the masks, three digits.
KITS19_TUMOUR_FRACTION: Quantiles = (
    (0, 4.8e-06), (0.01, 1.71e-05), (0.025, 2.91e-05), (0.05, 3.89e-05), (0.1, 5.46e-05), (0.2, 0.000112),
    (0.3, 0.000173), (0.4, 0.000308), (0.5, 0.000528), (0.6, 0.000722), (0.7, 0.00121), (0.8, 0.00244),
    (0.9, 0.00508), (0.95, 0.00999), (0.975, 0.014), (0.99, 0.025), (1, 0.0551),
)  # fmt: skip


@dataclass(frozen=True)
class PhantomSetting:
    """How cases are drawn: per case from tables of quantiles; everything else is fixed.

    `slices`: fewest and most. `tumour_fraction`: tumour voxels / all voxels, met to within one voxel or 2 %.
    `noise_hu`: standard deviation. `tumour_hu`: mean of the tissue, where kidney has about 150 to 190 and fat -100.
    """

    name: str
    slices: tuple[int, int]
    rows: int
    columns: int
    slice_spacing_mm: Quantiles
    pixel_spacing_mm: Quantiles
    tumour_fraction: Quantiles
    tumour_hu: tuple[float, float]
    noise_hu: float


# Easier than the real task: a tumour of 2 to 5 cm in every case, in a coarse grid that two CPU cores can train on.
_SMALL = PhantomSetting(
    name="small",
    slices=(28, 32),
    rows=64,
    columns=64,
    slice_spacing_mm=((0, 5.5), (1, 6.0)),
    pixel_spacing_mm=((0, 5.3), (1, 5.9)),
    tumour_fraction=((0, 0.001), (1, 0.003)),
    tumour_hu=(85.0, 110.0),
    noise_hu=15.0,
)

SETTINGS = {
    "small": _SMALL,
    # Of the demonstration: larger tumours, which a small network finds after a few hundred steps.
    "demo": replace(_SMALL, name="demo", tumour_fraction=((0, 0.004), (1, 0.012))),
    # As KiTS19, but for the third of its cases with slices of 0.5 to 2 mm, which would take minutes each.
    "full": PhantomSetting(
        name="full",
        slices=(60, 96),
        rows=512,
        columns=512,
        slice_spacing_mm=((0, 2.5), (0.2, 2.5), (0.21, 3.0), (0.45, 3.0), (0.46, 5.0), (1, 5.0)),
        pixel_spacing_mm=((0, 0.66), (0.25, 0.72), (0.5, 0.78), (0.75, 0.87), (1, 0.98)),
        tumour_fraction=KITS19_TUMOUR_FRACTION,
        tumour_hu=(75.0, 115.0),
        noise_hu=20.0,
    ),
}
TALLEST_MM = 400.0  # the anatomy ends there
LARGEST_TUMOUR_MM3 = 1.2e6  # half of the cavity holds no more


def draw_fraction(rng: np.random.Generator, setting: PhantomSetting) -> float:
    """Draw the tumour's share of all voxels of one case."""
    return _draw(rng, setting.tumour_fraction)


def make_case(seed: int, number: int, setting: PhantomSetting) -> tuple[NDArray[np.int16], ClassIndices, Float64s]:
    """Return image (int16, HU), label (uint8) and affine (4, 4) of one case; both arrays are (slice, row, column).

    The same for the same (seed, number, setting) whatever else is made. Mask rule: the tumour replaces kidney where
    they meet; simple cysts in a kidney count as kidney; the fat, vessels and pelvis of its sinus do not.
    """
    rng = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(number,)))
    fraction = draw_fraction(rng, setting)
    shape, spacing = _draw_grid(rng, setting, fraction)
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    height = shape[0] * spacing[0]
    # Tall scans reach from the lung bases to the pelvis; short ones are centred on the kidneys.
    axes[0] += 5 + 0.1 * max(height - 200, 0) + rng.uniform(-6, 6)
    axes[1] += rng.uniform(-4, 4)
    axes[2] += rng.uniform(-4, 4)
    trunk = _draw_trunk(rng, shape[2] * spacing[2])
    tumour_voxels = max(1, round(fraction * int(np.prod(shape))))
    patient = Abdomen(rng, axes, trunk, tumour_voxels, rng.uniform(*setting.tumour_hu))
    image = ndimage.gaussian_filter(patient.canvas.hu, (0.3, 0.4, 0.4))  # slice profile and focal spot
    image += _noise(rng, shape, setting.noise_hu)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = -spacing[0], -spacing[1], -spacing[2], 1
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16), patient.label, affine


def _draw(rng: np.random.Generator, quantiles: Quantiles) -> float:
    probabilities, values = zip(*quantiles, strict=True)
    return float(np.interp(rng.random(), probabilities, values))


def _draw_grid(
    rng: np.random.Generator, setting: PhantomSetting, fraction: float
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    fewest, most = setting.slices
    thickness = round(_draw(rng, setting.slice_spacing_mm), 3)
    pixel = round(_draw(rng, setting.pixel_spacing_mm), 3)
    slices = min(int(rng.integers(fewest, most + 1)), max(fewest, int(TALLEST_MM / thickness)))
    if fraction * slices * setting.rows * setting.columns * thickness * pixel**2 > LARGEST_TUMOUR_MM3:
        # The largest fractions come with the smallest fields of view, as in KiTS19 (case 30: 1.5 l in 26 l).
        slices, thickness, pixel = fewest, setting.slice_spacing_mm[0][1], setting.pixel_spacing_mm[0][1]
    return (slices, setting.rows, setting.columns), (thickness, pixel, pixel)


def _draw_trunk(rng: np.random.Generator, field_of_view_mm: float) -> Trunk:
    """Wide fields of view are chosen for wide patients, mostly by their fat."""
    half_width = rng.uniform(134, 142)
    fat = np.clip(0.445 * field_of_view_mm - half_width - rng.uniform(0, 8), 6, 50)
    return Trunk(half_width, half_width * rng.uniform(0.68, 0.74), float(fat), rng.uniform(0, 5))


def _noise(rng: np.random.Generator, shape: tuple[int, int, int], noise_hu: float) -> Float32s:
    """Gaussian noise of standard deviation `noise_hu`, grainy within a slice as filtered back projection leaves it."""
    noise = np.empty(shape, np.float32)
    for plane in noise:
        ndimage.gaussian_filter(rng.standard_normal(shape[1:], dtype=np.float32), 0.6, output=plane)
    noise *= noise_hu / noise.std()
    return noise


def write_phantom(root: Path, cases: int, seed: int = 0, setting: str = "small", first: int = 0) -> list[Path]:
    """Write cases `first` to `first + cases - 1` below `root` and return their folders.

    Each folder appears whole or not at all. `root/PHANTOM.json` says what the phantom is; cases of the same phantom
    that are there already are kept as they are, so a second call costs nothing and a larger one adds cases.

    Raises: InputError for an unknown setting, a number out of range, or a `root` that holds anything else.
    """
    root = Path(root)
    if setting not in SETTINGS:
        raise InputError(f"no phantom setting {setting!r}; there are {', '.join(SETTINGS)}")
    if cases < 1 or first < 0 or first + cases > MAXIMUM_CASES:
        raise InputError(
            f"cannot write {cases} phantom cases from number {first}: numbers run from 0 to {MAXIMUM_CASES - 1}"
        )
    if seed < 0:
        raise InputError(f"the phantom's seed must not be negative, got {seed}")
    _claim(root, {"generator": GENERATOR, "seed": seed, "setting": asdict(SETTINGS[setting])})
    return [_write_case(root, number, seed, SETTINGS[setting]) for number in range(first, first + cases)]


def _claim(root: Path, description: dict[str, Any]) -> None:
    """Write PHANTOM.json into a new or empty folder; accept the same one; refuse anything else."""
    description = json.loads(json.dumps(description))  # tuples become lists, as they will be when read back
    path = root / "PHANTOM.json"
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file, not a folder for phantom cases")
    if path.exists():
        try:
            claim = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} cannot be read as JSON: {error}") from error
        if claim != description:
            raise InputError(f"{root} holds another phantom (see {path}); choose another folder or remove it")
    elif root.is_dir() and any(not entry.name.startswith(".partial-") for entry in root.iterdir()):
        raise InputError(f"{root} is not empty and holds no phantom (no PHANTOM.json); choose another folder")
    else:
        write_json(path, description)


def _write_case(root: Path, number: int, seed: int, setting: PhantomSetting) -> Path:
    folder = root / f"case_{number:05d}"
    names = ("imaging.nii.gz", "segmentation.nii.gz")
    if all((folder / name).is_file() for name in names):
        return folder
    image, label, affine = make_case(seed, number, setting)
    with atomic_folder(folder) as partial:
        for name, array in zip(names, (image, label), strict=True):
            nibabel.save(nibabel.Nifti1Image(array, affine), partial / name)
    return folder
