"""The phantom's trunk and bones, around the organs."""

from dataclasses import dataclass

import numpy as np

from voxloss.data.phantom.canvas import Box, Canvas, ellipsoid
from voxloss.utilities.arrays import Floats

RIGHT, LEFT = -1, 1  # sign of x
VERTEBRA_MM = 34.0  # with its disc
FAR = 1e4  # beyond any field of view


@dataclass(frozen=True)
class Trunk:
    """Superellipses of the skin and of the muscle wall, the same at every height but for a waist."""

    half_width_mm: float  # to the outer side of the muscle wall
    half_depth_mm: float
    fat_mm: float  # between wall and skin at the sides; less in front and at the back
    waist_mm: float

    def outline(self, canvas: Canvas, box: Box, margin_mm: float = 0.0) -> Floats:
        """Return the distance in mm to the body's outline, widened by a margin; negative inside."""
        z, y, x = canvas.grid(box)
        a, b = self.half_width_mm + margin_mm, self.half_depth_mm + 0.6 * margin_mm
        unit = (np.abs(x / a) ** 2.4 + np.abs(y / b) ** 2.4) ** np.float32(1 / 2.4)
        distance: Floats = (unit - 1) * b + self.waist_mm * np.cos((z - 40) / 90)
        return distance

    def cavity(self, canvas: Canvas, box: Box) -> Floats:
        """Distance to the inner side of the muscle wall, which is thicker at the back."""
        y = canvas.grid(box)[1]
        distance: Floats = self.outline(canvas, box) + 11 + 9 * np.clip(y / self.half_depth_mm, 0, 1)
        return distance

    def draw(self, canvas: Canvas) -> None:
        """Skin, fat, muscle wall and the fat inside it; slice by slice to bound the memory."""
        for k in range(canvas.hu.shape[0]):
            box = (slice(k, k + 1), slice(None), slice(None))
            wave, texture = 2 * canvas.field(40.0, box), canvas.field(6.0, box)
            skin = self.outline(canvas, box, self.fat_mm) + wave
            canvas.paint(box, skin, 20.0)
            canvas.paint(box, skin + 2, -105 + 6 * texture)
            canvas.paint(box, self.outline(canvas, box) + wave, 56 + 10 * texture)
            canvas.paint(box, self.cavity(canvas, box) + wave, -102 + 8 * texture)


def draw_spine(canvas: Canvas) -> None:
    """Vertebrae of spongy bone in a shell, discs, the canal, and the processes behind it."""
    box = canvas.box((-FAR, 10, -55), (FAR, 120, 55))
    z, y, x = canvas.grid(box)
    level = np.mod(z, VERTEBRA_MM) - VERTEBRA_MM / 2  # 0 in the middle of a vertebra
    body = ellipsoid([np.zeros_like(level), y - 40, x], (1, 17, 22)) + 2 - 0.008 * level**2
    bone = np.maximum(body, np.abs(level) - 13)
    canvas.paint(box, body, 90.0)
    canvas.paint(box, bone, 480.0)
    canvas.paint(box, bone + 2.5, 190 + 25 * canvas.field(6.0, box))
    canal = np.sqrt((y - 66) ** 2 + x**2)
    arch = np.maximum(canal - 13, np.abs(level) - 11)
    transverse = np.sqrt((y - 62 - 0.1 * np.abs(x)) ** 2 + (level / 1.2) ** 2) - 4.5
    spinous = np.maximum(np.maximum(np.abs(x) - 3.5, np.abs(level) - 9), np.abs(y - 84) - 12)
    transverse = np.maximum(transverse, np.abs(x) - 42)
    canvas.paint(box, np.minimum(np.minimum(arch, transverse), spinous), 350.0)
    canvas.paint(box, canal - 9, 30.0)


def draw_chest(canvas: Canvas, trunk: Trunk, heart_hu: float) -> None:
    """Lungs above the diaphragm's two domes, the heart between them, and ribs in the wall."""
    box = canvas.box((-FAR, -FAR, -FAR), (25, FAR, FAR))
    z, y, x = canvas.grid(box)
    inner = trunk.outline(canvas, box) + 9
    rib = np.abs(np.mod(z + 0.75 * y + 7, 27.0) - 13.5) - 4.5  # ribs fall towards the front
    rib = np.maximum(np.maximum(rib, np.abs(inner - 3) - 3.5), np.maximum(z + 8 - 0.3 * y, 20 - np.abs(x)))
    canvas.paint(box, rib, 420.0)
    canvas.paint(box, rib + 2, 200.0)

    box = canvas.box((-FAR, -FAR, -FAR), (-95, FAR, FAR))
    if 0 in canvas.hu[box].shape:
        return
    z, y, x = canvas.grid(box)
    across = ((np.abs(x) - 62) / 68) ** 2 + ((y - 5) / 95) ** 2
    dome = -105 - np.where(x < 0, 45, 27) * np.clip(1 - across, 0, 1)
    mediastinum = 30 - np.abs(x - 2)
    lung = np.maximum(np.maximum(z - dome, mediastinum), trunk.outline(canvas, box) + 11)
    canvas.paint(box, lung, -840 + 40 * canvas.field(6.0, box))
    heart = ellipsoid(canvas.grid(box, (-192, -30, 18)), (48, 48, 58))
    canvas.paint(box, heart, heart_hu)


def draw_pelvis(canvas: Canvas) -> None:
    """The wings of the iliac bones, seen only in tall fields of view."""
    for side in (RIGHT, LEFT):
        box = canvas.box((125, -40, -140), (FAR, 110, 140))
        if 0 in canvas.hu[box].shape:
            return
        _, y, x = canvas.grid(box)
        shell = np.abs(ellipsoid(canvas.grid(box, (225, 15, 60 * side)), (85, 70, 62))) - 5
        wing = np.maximum(np.maximum(shell, 84 - x * side), -25 - y)
        canvas.paint(box, wing, 420.0)
        canvas.paint(box, wing + 2.5, 200.0)
