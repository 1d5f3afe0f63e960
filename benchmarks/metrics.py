"""Time and memory of all metrics of a case, and of the matching of many lesions alone.

The case has 512 × 512 × 200 voxels, two kidneys and a tumour, and three predictions; that of many lesions has
512 × 512 × 400 voxels and 200 lesions of 1 to 9 voxels in radius.

python benchmarks/metrics.py
"""

import resource
import time

import numpy as np

from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.evaluation.lesions import match_lesions
from voxloss.evaluation.metrics import case_scores

SHAPE, SPACING = (200, 512, 512), (3.0, 0.78, 0.78)
CLASSES = ("background", "kidney", "tumour")


def ellipsoid(label: np.ndarray, centre_mm: tuple[float, ...], radii_mm: tuple[float, ...], value: int) -> None:
    axes = np.ogrid[tuple(slice(0, extent) for extent in SHAPE)]
    parts = zip(axes, SPACING, centre_mm, radii_mm, strict=True)
    label[sum(((axis * step - centre) / radius) ** 2 for axis, step, centre, radius in parts) <= 1] = value


def case(shift_mm: float) -> np.ndarray:
    label = np.zeros(SHAPE, dtype=np.uint8)
    for side in (110.0, 290.0):
        ellipsoid(label, (300.0 + shift_mm, 220.0, side), (60.0, 32.0, 30.0), 1)
    ellipsoid(label, (330.0, 215.0 + shift_mm, 130.0), (22.0, 22.0, 22.0), 2)
    return label


def many_lesions() -> np.ndarray:
    generator = np.random.default_rng(0)
    mask = np.zeros((400, 512, 512), dtype=bool)
    for _ in range(200):
        centre, radius = generator.integers(12, [388, 500, 500]), int(generator.integers(1, 10))
        ball = sum(axis**2 for axis in np.ogrid[(slice(-radius, radius + 1),) * 3]) <= radius**2
        mask[tuple(slice(place - radius, place + radius + 1) for place in centre)] |= ball
    return mask


def main() -> None:
    reference = case(0.0)
    generator = np.random.default_rng(0)
    scattered = case(3.0)
    scattered[generator.random(SHAPE) < 0.001] = 2  # false positives all over the scan
    noise = generator.integers(0, 3, SHAPE, dtype=np.uint8)
    for name, prediction in (("shifted by 3 mm", case(3.0)), ("scattered", scattered), ("noise", noise)):
        start = time.perf_counter()
        scores = case_scores(reference, prediction, CLASSES, SPACING)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        values = {score.metric: round(score.value, 3) for score in scores if score.class_name == "tumour"}
        print(f"{name}: {seconds:.1f} s, peak so far {peak:.2f} GB; tumour {values}")
    lesions = many_lesions()
    moved = np.roll(lesions, (2, 1), (0, 1))
    for rules in (LesionRules(), LesionRules(match="one_to_one", threshold=0.1), LesionRules(dilation=3)):
        start = time.perf_counter()
        found = match_lesions(lesions, moved, 1e-3, rules)
        seconds = time.perf_counter() - start
        print(f"{len(found.volumes_ml)} lesions, {rules.match}, dilation {rules.dilation}: {seconds:.1f} s")
    start = time.perf_counter()
    case_scores(lesions.view(np.uint8), moved.view(np.uint8), ("background", "lesion"), (1.0, 1.0, 1.0))
    print(f"all metrics of the many lesions: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
