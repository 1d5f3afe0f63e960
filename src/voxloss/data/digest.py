"""One number for a data set's content, by which two studies can tell whether their images are the same."""

import hashlib

from voxloss.data.case import Dataset


def data_digest(dataset: Dataset) -> str:
    """A digest of every case's id and of the bytes of its images and mask, whatever folder they lie in."""
    digest = hashlib.blake2b(digest_size=16)
    for case in sorted(dataset.cases, key=lambda case: case.case_id):
        digest.update(case.case_id.encode() + b"\0")
        for path in (*case.images, case.label):
            if path is not None:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()
