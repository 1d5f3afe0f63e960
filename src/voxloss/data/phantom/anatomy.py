"""The phantom's anatomy: a trunk, its organs and one kidney tumour, painted in Hounsfield units on any sampling.

Frame in millimetres: x to the patient's left, y to the back, z to the feet, so that (z, y, x) run along KiTS19's stored
axes (slice, row, column). Origin: the middle of the trunk at the level of the kidneys.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from voxloss.data.phantom.canvas import Box, Canvas, Point, ellipsoid, grow, segment
from voxloss.data.phantom.frame import LEFT, RIGHT, Trunk, draw_chest, draw_pelvis, draw_spine
from voxloss.geometry.components import largest_component
from voxloss.utilities.arrays import Floats

KIDNEY, TUMOUR = 1, 2


@dataclass
class Kidney:
    """A kidney; lengths in mm."""

    side: int
    centre: Point
    radii: Point  # along the kidney, front to back, midline to side
    lean: float  # upper pole towards the midline, mm per mm
    tip: float  # upper pole towards the back
    points: Floats = field(default_factory=lambda: np.empty((0, 3)))  # surface voxels away from the hilum, mm
    normals: Floats = field(default_factory=lambda: np.empty((0, 3)))  # outward


class Abdomen:
    """One patient, drawn on creation: the image in `canvas.hu`, the mask in `label` (1 kidney, 2 tumour).

    Every random number comes from `rng`, in a fixed order. `tumour_voxels` is the size of the tumour on this sampling.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        axes: Sequence[Floats],
        trunk: Trunk,
        tumour_voxels: int,
        tumour_hu: float,
    ):
        self.rng, self.trunk, self.tumour_hu = rng, trunk, tumour_hu
        self.canvas = Canvas(rng, axes)
        self.label = np.zeros(self.canvas.hu.shape, np.uint8)
        self.blood_hu = rng.uniform(150, 200)
        self.kidneys = [self._draw_kidney(side) for side in (RIGHT, LEFT)]
        trunk.draw(self.canvas)
        self._solid_organs()
        self._stomach_and_bowel()
        self._tumour_like_nodules()
        for kidney in self.kidneys:
            box, local = self._kidney_frame(kidney)
            self.canvas.paint(box, ellipsoid(local, np.add(kidney.radii, 8)) + 2 * self.canvas.field(14.0, box), -102.0)
        self._muscles_and_great_vessels()
        for kidney in self.kidneys:
            self._kidney(kidney)
        self._tumour(tumour_voxels)
        draw_spine(self.canvas)
        draw_chest(self.canvas, trunk, self.blood_hu - 20)
        draw_pelvis(self.canvas)

    def _near(self, point: Sequence[float], by_mm: float) -> Point:
        z, y, x = np.add(point, self.rng.uniform(-by_mm, by_mm, 3))
        return float(z), float(y), float(x)

    def _blob(self, centre: Point, radii: Point, hu: float, rough_mm: float = 2.0, texture_hu: float = 6.0) -> None:
        """A rough ellipsoid, kept inside the abdominal cavity."""
        canvas = self.canvas
        box = canvas.around(centre, np.add(radii, 2.5 * rough_mm + canvas.steps_mm[2]))
        if 0 in canvas.hu[box].shape:
            return
        distance = ellipsoid(canvas.grid(box, centre), radii) + rough_mm * canvas.field(14.0, box)
        distance = np.maximum(distance, self.trunk.cavity(canvas, box))
        canvas.paint(box, distance, hu + texture_hu * canvas.field(6.0, box))

    def _tube(self, points: Sequence[Point], radius: float, hu: float, rough_mm: float = 0.0) -> None:
        """Straight pieces between the points, round at their ends, kept inside the abdominal cavity."""
        canvas = self.canvas
        reach = radius + 2.5 * rough_mm + canvas.steps_mm[2]
        for start, end in pairwise(points):
            box = canvas.box(np.minimum(start, end) - reach, np.maximum(start, end) + reach)
            if 0 in canvas.hu[box].shape:
                continue
            distance = segment(canvas.grid(box), start, end) - radius + rough_mm * canvas.field(14.0, box)
            canvas.paint(box, np.maximum(distance, self.trunk.cavity(canvas, box)), hu)

    def _solid_organs(self) -> None:
        rng = self.rng
        liver, liver_hu = self._near((-55, -12, -66), 5), rng.uniform(85, 105)
        self._blob(liver, (88, 76, 68), liver_hu, 3.0)
        self._blob(self._near((-72, -48, 5), 5), (42, 34, 60), liver_hu, 3.0)
        for _ in range(12):  # hepatic and portal veins
            root = self._near((liver[0] - 15, liver[1] + 8, liver[2] + 25), 10)
            self._tube([root, self._near((liver[0], liver[1], liver[2] - 15), 45)], rng.uniform(2, 4.5), 150.0)
        for _ in range(rng.integers(0, 4)):  # cysts and metastases, some as bright as the tumour
            radius = rng.uniform(4, 11)
            self._blob(self._near(liver, 40), (radius, radius, radius), rng.uniform(10, 75), 1.0)
        self._blob(self._near((-60, 20, 98), 5), (46, 40, 24), rng.uniform(105, 130), 2.5)  # spleen
        self._blob(self._near((5, -42, -55), 5), (22, 15, 14), 12.0, 1.0)  # gallbladder
        pancreas = [self._near(point, 4) for point in ((12, -14, -32), (-8, -24, 5), (-25, -6, 62))]
        self._tube(pancreas, 10, 95.0, 2.5)

    def _stomach_and_bowel(self) -> None:
        rng = self.rng
        stomach = self._near((-75, -40, 58), 6)
        self._blob(stomach, (48, 34, 42), 85.0)
        self._blob(stomach, (43, 29, 37), rng.uniform(10, 50))
        self._blob((stomach[0], stomach[1] - 16, stomach[2]), (28, 11, 24), -850.0)
        for _ in range(60):  # small bowel
            start = (rng.uniform(10, 210), rng.uniform(-72, -5), rng.uniform(-80, 80))
            self._loop([start, self._near(start, 32)], rng.uniform(10, 15))
        self._loop([self._near(p, 5) for p in ((200, 5, -98), (110, 2, -102), (50, -12, -98))], 21)  # ascending colon
        self._loop([self._near(p, 6) for p in ((50, -50, -85), (60, -64, 0), (20, -52, 80))], 18)  # transverse
        self._loop([self._near(p, 5) for p in ((5, -15, 106), (90, 12, 106), (200, 10, 102))], 15)  # descending

    def _loop(self, points: Sequence[Point], radius: float) -> None:
        """Bowel: wall, content (fluid, chyme as bright as the tumour, or swallowed contrast), at times gas on top."""
        rng = self.rng
        content_hu = rng.choice([rng.uniform(15, 45), rng.uniform(65, 115), rng.uniform(150, 260)], p=[0.4, 0.4, 0.2])
        self._tube(points, radius, rng.uniform(75, 110), 1.5)
        self._tube(points, radius - 3.0, content_hu, 1.5)
        if rng.random() < 0.35:
            self._tube([(z, y - 0.4 * radius, x) for z, y, x in points], 0.45 * radius, -750.0, 1.0)

    def _tumour_like_nodules(self) -> None:
        """Draw round structures that look like the tumour away from the kidneys: nodes, accessory spleens, bowel."""
        for _ in range(self.rng.integers(3, 6)):
            side = self.rng.choice([RIGHT, LEFT])
            centre = (self.rng.uniform(-60, 90), self.rng.uniform(-50, 5), side * self.rng.uniform(30, 95))
            radius = self.rng.uniform(9, 18)
            self._blob(centre, (radius, radius, radius), self.tumour_hu + self.rng.uniform(-10, 10), 2.0, 12.0)

    def _muscles_and_great_vessels(self) -> None:
        for side in (RIGHT, LEFT):
            self._tube([(-40, 46, 26 * side), (30, 42, 36 * side)], 11, 60.0, 1.5)  # psoas
            self._tube([(30, 42, 36 * side), (220, 22, 52 * side)], 19, 60.0, 1.5)
            self._blob(*self._back_muscle(side), 58.0, texture_hu=10.0)
        self._tube([(-260, 8, 8), (110, 8, 6)], 10, self.blood_hu)  # aorta
        self._tube([(-260, 6, -20), (115, 9, -18)], 11, self.blood_hu - 25)  # inferior vena cava
        for kidney in self.kidneys:
            side, (z, y, x) = kidney.side, kidney.centre
            self._tube([(110, 8, 6), (240, -5, 55 * side)], 7, self.blood_hu)  # to the leg
            self._tube([(z - 5, 10, 4.0), (z, y - 8, x - 22 * side)], 3.5, self.blood_hu)
            self._tube([(z + 2, 6, -16.0), (z + 4, y - 10, x - 20 * side)], 5, self.blood_hu - 20)

    def _back_muscle(self, side: int) -> tuple[Point, Point]:
        return (0.0, 74.0, 33.0 * side), (1e4, 21.0, 29.0)

    def _draw_kidney(self, side: int) -> Kidney:
        """The right one lies lower, under the liver."""
        rng = self.rng
        scale = rng.uniform(0.92, 1.08)
        centre = self._near((12.0 if side == RIGHT else 0.0, 29.0, 68.0 * side), 3)
        return Kidney(
            side, centre, (53 * scale, 25 * scale, 27 * scale), rng.uniform(0.12, 0.3), rng.uniform(0.05, 0.2)
        )

    def _kidney_frame(self, kidney: Kidney) -> tuple[Box, list[Floats]]:
        """Box and coordinates along the kidney, front to back, midline to side; its poles bend towards the midline."""
        box = self.canvas.around(kidney.centre, (80, 55, 62))
        z, y, x = self.canvas.grid(box, kidney.centre)
        return box, [z, y + kidney.tip * z, x * kidney.side - kidney.lean * z + 7 * (z / 50) ** 2]

    def _kidney(self, kidney: Kidney) -> None:
        """Bright cortex and darker pyramids around a sinus of fat; cysts count as kidney."""
        canvas, rng, radii = self.canvas, self.rng, kidney.radii
        box, local = self._kidney_frame(kidney)
        z = local[0]
        cortex_hu = rng.uniform(180, 205)
        rough, fine = canvas.field(14.0, box), canvas.field(6.0, box)
        outside = ellipsoid(local, radii) + 1.6 * rough + 0.5 * fine
        sinus = ellipsoid([z, local[1] + 5, local[2] + 20], (21, 9, 17)) + 2.0 * rough
        pyramids = canvas.share(outside + 8) * np.clip(0.6 + canvas.field(9.0, box), 0, 1)
        canvas.paint(box, outside, -85.0)
        canvas.paint(box, ellipsoid([z, local[1] + 5, local[2] + 17], (14, 6, 8)), 25.0)  # renal pelvis
        parenchyma = np.maximum(outside, -sinus)
        canvas.paint(box, parenchyma, cortex_hu - rng.uniform(35, 50) * pyramids + 5 * fine)
        mask = parenchyma < 0
        for _ in range(rng.choice(3, p=[0.6, 0.25, 0.15])):
            angle, height, radius = rng.uniform(-1.3, 1.3), rng.uniform(-35, 35), rng.uniform(5, 12)
            offset = (height, radii[1] * np.sin(angle), radii[2] * np.cos(angle))
            cyst = ellipsoid([c - np.float32(o) for c, o in zip(local, offset, strict=True)], (radius,) * 3)
            canvas.paint(box, cyst, rng.uniform(0, 22))
            mask |= cyst < 0
        mask, _ = largest_component(mask, "faces")
        self.label[box][mask] = KIDNEY

        shell = np.nonzero(mask & (outside > -2 - canvas.steps_mm[2] / 2) & (local[2] > -3))
        kidney.points = np.stack([axis[part][i] for axis, part, i in zip(canvas.axes, box, shell, strict=True)], axis=1)
        slopes = [np.broadcast_to(c / r**2, outside.shape)[shell] for c, r in zip(local, radii, strict=True)]
        normals = np.stack([slopes[0], slopes[1], slopes[2] * kidney.side], axis=1)
        kidney.normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)

    def _tumour_centre(self, radius: float) -> Point:
        """Return a point outside a random point of a kidney's surface: the first of 40 with room, or the roomiest."""
        canvas, rng = self.canvas, self.rng
        kidney = self.kidneys[rng.integers(2)]
        points, normals = kidney.points, kidney.normals
        outward = radius * rng.uniform(0.15, 0.6)
        best_room, best = -np.inf, 0
        for i in rng.integers(len(points), size=40):
            voxel = canvas.around(points[i] + outward * normals[i], np.multiply(0.51, canvas.steps_mm))
            if 0 in canvas.hu[voxel].shape:
                continue
            z, _, x = points[i] + outward * normals[i]
            ends = min(z - canvas.axes[0][0], canvas.axes[0][-1] - z)
            room = min(-float(self.trunk.cavity(canvas, voxel).max()), abs(x) - 28, ends) / radius
            if room > best_room:
                best_room, best = room, i
            if room > 0.6:
                break
        z, y, x = points[best] + outward * normals[best]
        return float(z), float(y), float(x)

    def _tumour(self, voxels: int) -> None:
        """A lobulated mass bulging from one kidney, part inside it, of `voxels` voxels in all."""
        canvas, rng = self.canvas, self.rng
        radius = float((voxels * np.prod(canvas.steps_mm) * 3 / (4 * np.pi)) ** (1 / 3))
        centre = self._tumour_centre(radius)
        side = RIGHT if centre[2] < 0 else LEFT
        box = canvas.around(centre, 2.6 * radius + 2 * max(canvas.steps_mm))
        z, y, x = canvas.grid(box)
        size = ellipsoid(canvas.grid(box, centre), radius * rng.uniform(0.85, 1.15, 3)) + radius
        size += min(0.12 * radius, 2.5) * canvas.field(14.0, box) + min(0.06 * radius, 1.0) * canvas.field(9.0, box)
        size += 0.08 * radius * canvas.field(40.0, box)
        free = (self.trunk.cavity(canvas, box) < -1) & (x * side > 28) & (z > -100)  # not in wall, spine, lung
        for start, end, thickness in (((-40, 46, 26), (30, 42, 36), 11), ((30, 42, 36), (220, 22, 52), 19)):
            free &= segment([z, y, x * side], start, end) > thickness  # psoas
        muscle, radii = self._back_muscle(side)
        free &= ellipsoid(canvas.grid(box, muscle), radii) > 0
        level, inside = grow(np.where(free, size, np.inf), voxels)
        necrosis = rng.uniform(0, 30) * np.clip(1.2 - size / (0.6 * level), 0, 1)
        hu = self.tumour_hu + 9 * canvas.field(9.0, box) + 7 * canvas.field(6.0, box) - necrosis
        canvas.hu[box] += np.where(free, canvas.share(size - level), 0) * (hu - canvas.hu[box])
        self.label[box][inside] = TUMOUR
