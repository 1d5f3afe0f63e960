"""The formats of images and masks, behind one interface: names, grids, values in pieces, and writing masks.

NIfTI is read by nibabel, MetaImage and NRRD by SimpleITK, pictures by Pillow, TIFF by tifffile, and DICOM by pydicom. A
folder is a DICOM series, or a volume with a picture for each slice.
Everything comes in one convention: the stored array axes (of pictures x, y), an affine to RAS+ millimetres, spacing and
letters per array axis.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from voxloss.data.formats.dicom import DicomSegmentation, DicomSeries, dicom_files, is_segmentation
from voxloss.data.formats.dicom import write_mask as write_dicom
from voxloss.data.formats.geometry import Geometry
from voxloss.data.formats.itk import ItkVolume, data_files
from voxloss.data.formats.itk import write_mask as write_itk
from voxloss.data.formats.nifti import NiftiVolume
from voxloss.data.formats.nifti import write_mask as write_nifti
from voxloss.data.formats.pictures import KINDS, Picture, Role
from voxloss.data.formats.pictures import write_mask as write_picture
from voxloss.data.formats.slices import SliceStack, is_stack, slice_files
from voxloss.data.formats.slices import write_mask as write_slices
from voxloss.data.formats.tiff import TiffVolume
from voxloss.data.formats.tiff import write_mask as write_tiff
from voxloss.data.formats.volume import Volume, absent, count_values
from voxloss.utilities.arrays import Labels
from voxloss.utilities.errors import InputError

NIFTI = (".nii.gz", ".nii")
META, NRRD, TIFF, DICOM = (
    (".mha", ".mhd"),
    (".seg.nrrd", ".nrrd", ".nhdr"),
    (".ome.tif", ".ome.tiff", ".tif", ".tiff"),
    (".dcm",),
)
MASK_ENDINGS = (".nii.gz", ".mha", ".nrrd", ".tif", ".png", ".dcm")  # of the masks that are written as a file
PICTURES = (*TIFF, *KINDS)  # each may be a slice of a volume
ENDINGS = (*NIFTI, *META, *NRRD, *PICTURES, *DICOM)


def ending_of(path: Path) -> str:
    """Return the ending that names a file's format, in lower case; empty if it has none of `ENDINGS`."""
    name = path.name.casefold()
    return next((ending for ending in ENDINGS if name.endswith(ending)), "")


def is_image_name(path: Path) -> bool:
    """Return whether a name is that of a visible image or mask (not a ._name file of macOS), by its ending."""
    return bool(ending_of(path)) and not path.name.startswith(".")


def is_image(path: Path) -> bool:
    """Return whether a path is that of an image or mask: a file by its name, or a folder with DICOM files.

    A folder of pictures may be a volume too, or a data set of images: whoever asks knows which (`is_stack`).
    """
    if path.is_dir():
        return not path.name.startswith(".") and bool(dicom_files(path))
    return is_image_name(path)


def stem(path: Path) -> str:
    """Return the name without the ending of its format; of a folder, its name."""
    ending = ending_of(path)
    return path.name[: len(path.name) - len(ending)] if ending and not path.is_dir() else path.name


def exists(path: Path) -> bool:
    """Return whether an image or mask is there: a file, or a folder with a series or slices."""
    return path.is_file() or (path.is_dir() and bool(dicom_files(path) or is_stack(path)))


def files_of(path: Path) -> list[Path]:
    """Return all files that an image or mask consists of. Raises InputError if one is missing.

    An .mhd or .nhdr may have its values in a file beside it, and a series has a file for every slice.
    """
    if path.is_dir():
        return dicom_files(path) or slice_files(path)
    return data_files(path) if ending_of(path) in (*META, *NRRD) else [path]


def open_image(path: Path) -> Volume:
    """Open an image and read only its header. Raises InputError, naming the file, if that is impossible."""
    return _open(Path(path), "image", None)


def open_mask(path: Path, like: Path | None = None) -> Volume:
    """Open a mask and read only its header. Raises InputError, naming the file, if that is impossible.

    Args:
        path: The mask.
        like: The image of the same case, if it is there: a DICOM segmentation may have some of its slices only.
    """
    return _open(Path(path), "mask", None if like is None or not exists(like) else like)


def read_geometry(path: Path) -> Geometry:
    """Read an image's geometry from its header.

    Raises InputError naming the file: absent, unreadable, no volume or picture, or without a valid voxel size.
    """
    return open_image(path).geometry


def count_label_values(path: Path) -> dict[int, int]:
    """Count the voxels of each value in a mask: value -> voxels, by rising value, only values that occur."""
    counts: Counter[int] = Counter()
    for piece in open_mask(path).whole_values():
        count_values(piece, counts)
    return {value: count for value, count in sorted(counts.items()) if count}


def value_names(path: Path) -> dict[int, str]:
    """Return the names that a mask itself gives to its values; none if it has none or cannot be read."""
    try:
        return open_mask(path).names
    except InputError:
        return {}


def mask_ending(image: Path) -> str:
    """Return the ending of masks on the grid of an image: its own format's, or the lossless one next to it.

    JPEG would change the values, and BMP and GIF hold none above 255, so their masks are PNG files. The mask of a
    folder of slices is such a folder, with an empty ending.
    """
    if image.is_dir():
        return ".dcm" if dicom_files(image) else ""
    ending = ending_of(image)
    for own, endings in ((".mha", META), (".nrrd", NRRD), (".tif", TIFF), (".png", tuple(KINDS)), (".dcm", DICOM)):
        if ending in endings:
            return own
    return ".nii.gz"


def write_mask(path: Path, label: Labels, like: Path, names: Mapping[int, str] | None = None) -> None:
    """Write a label map (*shape) of uint8 or uint16 on the grid of an image, in the format of `mask_ending`.

    Args:
        path: The new file, which gets whatever name it has, or the folder for slices, which is there; it may be left
            incomplete if an error is raised.
        label: The values.
        like: The image.
        names: Names of the values, which a DICOM segmentation keeps.
    """
    ending = mask_ending(like)
    if ending == ".dcm":
        write_dicom(path, label, like, names)
    elif ending == "":
        write_slices(path, label, like)
    else:
        writers = {".mha": write_itk, ".nrrd": write_itk, ".tif": write_tiff, ".png": write_picture}
        writers.get(ending, write_nifti)(path, label, like)


def content_digest(path: Path) -> str:
    """Return a digest of an image or mask: of one file that which `b2sum` prints, of several one over all of them.

    Raises InputError if a file cannot be read.
    """
    files = files_of(path)
    digests = [_file_digest(file) for file in files]
    if len(digests) == 1 and not path.is_dir():
        return digests[0]
    text = "".join(f"{digest} {file.name}\n" for digest, file in zip(digests, files, strict=True))
    return hashlib.blake2b(text.encode()).hexdigest()


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except FileNotFoundError:
        raise InputError(absent(path)) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error


def _open(path: Path, role: Role, like: Path | None) -> Volume:
    ending = ending_of(path)
    if (path.is_dir() and dicom_files(path)) or ending in DICOM:
        if role == "mask" and is_segmentation(path):
            return DicomSegmentation(path, None if like is None else read_geometry(like))
        return DicomSeries(path)
    if path.is_dir() and slice_files(path):
        return SliceStack(path, role, like)
    if ending in (*META, *NRRD):
        return ItkVolume(path)
    if ending in KINDS:
        return Picture(path, role)
    if ending in TIFF:
        return TiffVolume(path, role)
    return NiftiVolume(path)
