"""Read series of DICOM images and DICOM segmentations by pydicom, and write segmentations by highdicom."""

import itertools
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from voxloss.data.formats.geometry import LPS_TO_RAS, Geometry, geometry_from, lps_affine, picture_geometry, times
from voxloss.data.formats.volume import Remark, Volume, decoding, library, one_line, pieces_of, require_file
from voxloss.utilities.arrays import AnyArray, Labels
from voxloss.utilities.errors import InputError

MAGIC_AT, MAGIC = 128, b"DICM"
SEGMENTATIONS, STRUCTURES = (
    ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"),
    "1.2.840.10008.5.1.4.1.1.481.3",
)  # classes of objects

DIRECTION_TOLERANCE = 1e-4
GAP_TOLERANCE = 0.02  # of the distance of slices; headers round positions
LEAST_GAP_MM = 1e-3

MOST_BINARY = 255  # segments of one bit per voxel each; more, or with gaps in their numbers, are one map of labels


class DicomSeries(Volume):
    """An open series of DICOM images: a folder with one file per slice, or a single file.

    Slices are sorted by their position, along the normal of their rows and columns. Each is scaled by its own slope and
    intercept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with decoding(path):  # which a value that is no number ends
            self._slices = _sorted_slices(path, _headers(path))
            self._read_header()

    def _read_header(self) -> None:
        path = self.path
        first = self._slices[0][1]
        self._samples = int(first.get("SamplesPerPixel", 1))
        kind = "i" if int(first.get("PixelRepresentation", 0)) else "u"
        self.dtype = np.dtype(f"{kind}{int(first.BitsAllocated) // 8}")
        volume = (int(first.Columns), int(first.Rows), len(self._slices))
        if min(volume) < 1:
            raise InputError(f"{path} has shape {volume}, which holds no voxels")
        self.shape = volume if self._samples == 1 else (*volume, self._samples)

    @cached_property
    def geometry(self) -> Geometry:
        """The grid, converted from DICOM's LPS convention."""
        with decoding(self.path):
            return self._geometry()

    def _geometry(self) -> Geometry:
        headers = [header for _, header in self._slices]
        first = headers[0]
        shape = (self.shape[0], self.shape[1], self.shape[2])
        spacing = first.get("PixelSpacing") or first.get("ImagerPixelSpacing")
        thickness = float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 1)
        if "ImagePositionPatient" not in first or "ImageOrientationPatient" not in first:
            known = None if spacing is None else (float(spacing[1]), float(spacing[0]), thickness)
            return picture_geometry(self.path, shape, known)
        if spacing is None:
            raise InputError(f"{self.path} has no PixelSpacing, so the size of its voxels is not known")
        along, down, normal = _directions(first)
        start, end = _position(headers[0]), _position(headers[-1])
        step = (end - start) / (len(headers) - 1) if len(headers) > 1 else normal * thickness
        length = float(np.linalg.norm(step)) or 1.0
        columns = np.stack([along, down, step / length], axis=1)
        return geometry_from(
            self.path, shape, lps_affine(columns, np.array([float(spacing[1]), float(spacing[0]), length]), start)
        )

    @property
    def channels(self) -> int:
        """The number of channels: 3 of colours."""
        return self._samples

    @property
    def files(self) -> list[Path]:
        """The files of the slices, in order of position."""
        return [file for file, _ in self._slices]

    def stored_values(self) -> Iterator[AnyArray]:
        """Yield the values, scaled slice by slice."""
        if self._samples == 1:
            for path, _ in self._slices:
                yield from pieces_of(self._plane(path))
            return
        planes = np.stack([self._plane(path) for path, _ in self._slices])
        yield from pieces_of(np.moveaxis(planes, -1, 0))

    def remarks(self) -> Iterator[Remark]:
        """Say what the headers do not tell, or turn round."""
        first = self._slices[0][1]
        if first.get("PhotometricInterpretation") == "MONOCHROME1":
            yield "note", f"low values of {self.path.name} are bright (MONOCHROME1); they are used as stored"
        if "ImagePositionPatient" not in first:
            yield "note", f"{self.path.name} has no position, so where left and right are is not known"

    def _plane(self, path: Path) -> AnyArray:
        pydicom = library("pydicom", self.path, "dicom")
        with decoding(path):
            data = pydicom.dcmread(path)
            if data.file_meta.TransferSyntaxUID.is_encapsulated:
                sitk = library("SimpleITK", path, "dicom")  # GDCM has the decoders, and scales
                values: AnyArray = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))[0]
                return values
            values = data.pixel_array
            slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
        expected = (self.shape[1], self.shape[0], *self.shape[3:])
        if values.shape != expected:
            raise InputError(f"{path} has pixels of shape {values.shape}, where its header says {expected}")
        if slope == 1 and intercept == 0:
            return values
        if slope == 1 and intercept.is_integer() and abs(intercept) < 2**30 and values.dtype.itemsize <= 2:
            return values.astype(np.int32) + int(intercept)
        return values.astype(np.float64) * slope + intercept


class DicomSegmentation(Volume):
    """An open DICOM segmentation: the value of a voxel is the number of its segment.

    Its frames may be some of an image's slices, in any order; with `like` they are placed on that image's grid.
    """

    channels = 1

    def __init__(self, path: Path, like: Geometry | None) -> None:
        pydicom = library("pydicom", path, "dicom")
        self.path = path
        headers = _headers(path)
        if len(headers) > 1:
            raise InputError(f"{path} holds several files; a mask is one segmentation")
        self._file = headers[0][0]
        with decoding(self._file):
            self._header = pydicom.dcmread(self._file, stop_before_pixels=True)
            self._type = str(self._header.SegmentationType)
            self._frames = list(self._header.PerFrameFunctionalGroupsSequence)
            self._positions = [
                _position(_group(frame, self._header, "PlanePositionSequence")) for frame in self._frames
            ]
            if self._type != "LABELMAP":
                segments = [_group(frame, self._header, "SegmentIdentificationSequence") for frame in self._frames]
                self._numbers = [int(segment.ReferencedSegmentNumber) for segment in segments]
            own = self._own_geometry()
        if self._type not in ("BINARY", "LABELMAP"):
            raise InputError(f"{path} is a {self._type} segmentation; save it as BINARY or LABELMAP")
        self._like = like
        self._grid = own if like is None else like
        self._slice_of = [self._slice_index(position) for position in self._positions]
        if like is not None:
            self._require_on(like, own)
        self.shape = self._grid.shape
        self.dtype = np.dtype(np.uint8 if max(self._segments(), default=0) <= 255 else np.uint16)

    @property
    def geometry(self) -> Geometry:
        """The grid of the image, or of the frames alone."""
        return self._grid

    @property
    def names(self) -> dict[int, str]:
        """The label of every segment."""
        segments = self._header.SegmentSequence
        return {int(item.SegmentNumber): str(item.SegmentLabel) for item in segments if int(item.SegmentNumber)}

    def stored_values(self) -> Iterator[AnyArray]:
        """Yield the number of each voxel's segment. Raises InputError where segments overlap."""
        pydicom = library("pydicom", self.path, "dicom")
        with decoding(self._file):
            frames: AnyArray = np.asarray(pydicom.dcmread(self._file).pixel_array)
        frames = frames[None] if frames.ndim == 2 else frames
        columns, rows, depth = self._grid.shape
        if frames.shape != (len(self._frames), rows, columns):
            raise InputError(f"{self.path} has frames of shape {frames.shape}, which its header does not describe")
        volume = np.zeros((depth, rows, columns), dtype=self.dtype)
        for number, (frame, place) in enumerate(zip(frames, self._slice_of, strict=True)):
            values = frame if self._type == "LABELMAP" else (frame > 0).astype(self.dtype) * self._numbers[number]
            if bool(((volume[place] != 0) & (values != 0) & (volume[place] != values)).any()):
                raise InputError(f"segments of {self.path} overlap, but a voxel has one class; save each in a file")
            np.copyto(volume[place], values.astype(self.dtype), where=values != 0)
        yield from pieces_of(volume)

    def _segments(self) -> list[int]:
        return [int(item.SegmentNumber) for item in self._header.SegmentSequence]

    def _own_geometry(self) -> Geometry:
        """Return the grid that the frames span, whose slices are as far apart as the nearest two."""
        first = self._frames[0]
        measures = _group(first, self._header, "PixelMeasuresSequence")
        along, down, normal = _directions(_group(first, self._header, "PlaneOrientationSequence"))
        heights = sorted({round(float(position @ normal), 4) for position in self._positions})
        gaps = [above - below for below, above in itertools.pairwise(heights)]
        thickness = float(measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 1)
        step = min(gaps) if gaps else thickness
        depth = 1 + round((heights[-1] - heights[0]) / step)
        start = min(self._positions, key=lambda position: float(position @ normal))
        spacing = np.array([float(measures.PixelSpacing[1]), float(measures.PixelSpacing[0]), step])
        shape = (int(self._header.Columns), int(self._header.Rows), depth)
        return geometry_from(self.path, shape, lps_affine(np.stack([along, down, normal], axis=1), spacing, start))

    def _slice_index(self, position: AnyArray) -> int:
        world = LPS_TO_RAS @ np.append(position, 1.0)
        voxel = np.linalg.inv(np.asarray(self._grid.affine)) @ world
        index = round(float(voxel[2]))
        if np.abs(voxel[:3] - [0, 0, index]).max() > GAP_TOLERANCE or not 0 <= index < self._grid.shape[2]:
            where = times(tuple(float(value) for value in position))
            raise InputError(f"a frame of {self.path} at {where} mm lies on no slice of its image")
        return index

    def _require_on(self, like: Geometry, own: Geometry) -> None:
        if own.shape[:2] != like.shape[:2]:
            raise InputError(
                f"{self.path} has frames of {times(own.shape[:2])} pixels, but its image has {times(like.shape[:2])}"
            )
        difference = np.abs(np.asarray(own.affine)[:3, :2] - np.asarray(like.affine)[:3, :2]).max()
        if difference > DIRECTION_TOLERANCE * max(1.0, *like.spacing_mm):
            raise InputError(f"the rows and columns of {self.path} are not those of its image")


def is_segmentation(path: Path) -> bool:
    """Return whether a DICOM file, or the one in a folder, is a segmentation; contours are refused."""
    _, header = _headers(path)[0]
    kind = str(header.get("SOPClassUID", ""))
    if kind == STRUCTURES:
        raise InputError(
            f"{path} is a set of contours (RTSTRUCT), which voxloss does not read; convert it to a DICOM "
            "segmentation or to NIfTI, for example with 3D Slicer or plastimatch"
        )
    return kind in SEGMENTATIONS


def dicom_files(path: Path) -> list[Path]:
    """Return a DICOM file itself, or those in a folder: named .dcm, or with DICOM's magic word."""
    if not path.is_dir():
        return [path]
    files = [file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")]
    return [file for file in files if _is_dicom(file)]


def _is_dicom(file: Path) -> bool:
    if file.name.casefold() == "dicomdir":
        return False
    if file.suffix.casefold() in (".dcm", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"):
        return file.suffix.casefold() == ".dcm"
    try:
        with file.open("rb") as opened:
            opened.seek(MAGIC_AT)
            return opened.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def write_mask(path: Path, label: Labels, like: Path, names: Mapping[int, str] | None = None) -> None:
    """Write a label map (*shape) as a DICOM segmentation of a series.

    Args:
        path: The new file.
        label: Values of uint8 or uint16; each is the number of a segment.
        like: The series.
        names: A label for every value; by default "class 1", ...
    """
    highdicom, pydicom = library("highdicom", like, "dicom"), library("pydicom", like, "dicom")
    codes = library("pydicom.sr.codedict", like, "dicom").codes
    series = DicomSeries(like)
    numbers = sorted({*map(int, np.unique(label)), *(names or {})} - {0}) or [1]
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="voxloss", version="1", family=codes.DCM.ArtificialIntelligence
    )
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=(names or {}).get(number, f"class {number}")[:64],
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        for number in numbers
    ]
    binary = numbers == list(range(1, len(numbers) + 1)) and len(numbers) <= MOST_BINARY
    with decoding(like):
        sources = [pydicom.dcmread(file, stop_before_pixels=True) for file in series.files]
        for source in sources:
            _complete(source, series.geometry, pydicom.uid.generate_uid(entropy_srcs=[str(like.resolve())]))
        segmentation = highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=np.ascontiguousarray(label.T),
            segmentation_type="BINARY" if binary else "LABELMAP",
            segment_descriptions=descriptions,
            series_instance_uid=highdicom.UID(),
            series_number=1000,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="voxloss",
            manufacturer_model_name="voxloss",
            software_versions="1",
            device_serial_number="1",
            omit_empty_frames=bool(label.any()),
        )
        segmentation.save_as(path)


def _complete(source: Any, geometry: Geometry, uid: str) -> None:
    """Add to a slice's header what a segmentation has from it and anonymisation removes, or pictures lack."""
    source.pop("SpacingBetweenSlices", None)  # which some writers set to 1; highdicom computes it then
    x, y, z = geometry.spacing_mm
    values: dict[str, Any] = dict.fromkeys(TEXTS, "")
    values |= dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"), uid)
    values |= {"SOPInstanceUID": f"{uid[:60]}.1", "Modality": "OT", "SliceThickness": z, "PixelSpacing": [y, x]}
    values |= {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    for name, value in values.items():
        if source.get(name) is None:
            setattr(source, name, value)


TEXTS = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip

HEADER_TAGS = [
    "SOPClassUID", "SeriesInstanceUID", "SeriesDescription", "Modality", "Rows", "Columns", "BitsAllocated",
    "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "PixelSpacing",
    "ImagerPixelSpacing", "SpacingBetweenSlices", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient",
]  # fmt: skip


def _headers(path: Path) -> list[tuple[Path, Any]]:
    """Read the headers of a file, or of those in a folder. Raises InputError if there is none, or one is damaged."""
    pydicom = library("pydicom", path, "dicom")
    files = dicom_files(path)
    if not files:
        raise InputError(f"{path} is a folder without DICOM files")
    headers = []
    for file in files:
        require_file(file, "a DICOM file")
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=HEADER_TAGS)
        except pydicom.errors.InvalidDicomError as error:
            raise InputError(f"{file} is not a DICOM file") from error
        except Exception as error:
            raise InputError(f"{file} cannot be read ({one_line(error)})") from error
        headers.append((file, header))
    return headers


def _sorted_slices(path: Path, headers: list[tuple[Path, Any]]) -> list[tuple[Path, Any]]:
    """Return the slices of one series in order of position. Raises InputError for what is no volume."""
    for file, header in headers:
        kind = str(header.get("SOPClassUID", ""))
        if kind in SEGMENTATIONS:
            raise InputError(f"{file} is a segmentation where an image should be")
        if kind == STRUCTURES:
            raise InputError(f"{file} is a set of contours (RTSTRUCT) where an image should be")
        if any(name not in header for name in ("Rows", "Columns", "BitsAllocated")):
            raise InputError(f"{file} is a DICOM file without an image, or is cut short")
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise InputError(f"{file} has several frames; convert it to NIfTI, for example with dcm2niix")
        colours = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
        if colours not in ("MONOCHROME1", "MONOCHROME2", "RGB"):
            raise InputError(f"{file} stores {colours} colours; save it in grey values or as RGB")
    series = {str(header.get("SeriesInstanceUID", "")) for _, header in headers}
    if len(series) > 1:
        raise InputError(f"{path} holds {len(series)} series; give each a folder of its own")
    if len(headers) == 1:
        return headers
    _require_alike(path, headers)
    _, _, normal = _directions(headers[0][1])
    heights = [(float(_position(header) @ normal), file, header) for file, header in headers]
    heights.sort(key=lambda entry: entry[0])
    _require_even(path, heights)
    _require_in_line(path, [(file, _position(header)) for _, file, header in heights])
    return [(file, header) for _, file, header in heights]


def _require_alike(path: Path, headers: list[tuple[Path, Any]]) -> None:
    first_file, first = headers[0]
    for file, header in headers:
        if "ImagePositionPatient" not in header or "ImageOrientationPatient" not in header:
            raise InputError(f"{file} has no position in the patient, so the slices of {path} cannot be sorted")
        for name in ("Rows", "Columns", "BitsAllocated", "PixelRepresentation", "SamplesPerPixel"):
            if header.get(name) != first.get(name):
                raise InputError(f"{file} has {name} {header.get(name)}, but {first_file.name} has {first.get(name)}")
        for name in ("ImageOrientationPatient", "PixelSpacing"):
            one, other = (np.array([float(x) for x in h.get(name) or ()]) for h in (header, first))
            if one.shape != other.shape or not np.allclose(one, other, rtol=0, atol=DIRECTION_TOLERANCE):
                raise InputError(
                    f"{file} has another {name} than {first_file.name}; slices should be parallel and alike"
                )


def _require_even(path: Path, heights: list[tuple[float, Path, Any]]) -> None:
    """Raise InputError if slices coincide, are missing, or lie at unequal distances."""
    gaps = [above[0] - below[0] for below, above in itertools.pairwise(heights)]
    for gap, (below, above) in zip(gaps, itertools.pairwise(heights), strict=True):
        if gap < LEAST_GAP_MM:
            raise InputError(f"{below[1]} and {above[1].name} are at the same position")
    usual = float(np.median(gaps))
    for gap, (below, above) in zip(gaps, itertools.pairwise(heights), strict=True):
        if abs(gap - usual) <= max(GAP_TOLERANCE * usual, LEAST_GAP_MM):
            continue
        where = f"between {below[1].name} and {above[1].name}"
        if gap > 1.5 * usual and abs(gap / usual - round(gap / usual)) <= GAP_TOLERANCE * gap / usual:
            missing = round(gap / usual) - 1
            raise InputError(f"{path} lacks {missing} slice{'s' if missing > 1 else ''} {where}")
        raise InputError(f"{path} has slices at unequal distances: {gap:.4g} mm {where}, elsewhere {usual:.4g} mm")


def _require_in_line(path: Path, places: list[tuple[Path, AnyArray]]) -> None:
    """Raise InputError if a slice is shifted sideways; all may be, by the same amount from one to the next."""
    positions = np.array([position for _, position in places])
    expected = np.linspace(positions[0], positions[-1], len(positions))
    shifts = np.linalg.norm(positions - expected, axis=1)
    gap = float(np.linalg.norm(positions[-1] - positions[0])) / (len(positions) - 1)
    worst = int(np.argmax(shifts))
    if not shifts[worst] <= max(GAP_TOLERANCE * gap, LEAST_GAP_MM) * len(positions):
        raise InputError(
            f"{places[worst][0]} lies {shifts[worst]:.3g} mm beside the line of the other slices of {path}"
        )


def _directions(header: Any) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Return the unit vectors along a row, down a column, and of the normal."""
    values = np.array([float(value) for value in header.ImageOrientationPatient])
    along, down = values[:3], values[3:]
    normal = np.cross(along, down)
    length = math.sqrt(float(normal @ normal))
    if not abs(length - 1) < 1e-2:
        raise InputError("the directions of rows and columns are not at right angles")
    return along, down, normal / length


def _position(header: Any) -> AnyArray:
    return np.array([float(value) for value in header.ImagePositionPatient])


def _group(frame: Any, header: Any, name: str) -> Any:
    """Return a group of a frame's attributes, which may be shared by all frames."""
    if name in frame:
        return frame[name].value[0]
    return header.SharedFunctionalGroupsSequence[0][name].value[0]
