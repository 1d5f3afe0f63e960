"""Names for types of NumPy arrays, so that a signature says what an array holds."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

AnyArray = NDArray[Any]  # values of any type, for code that only moves, copies or writes them
Mask = NDArray[np.bool_]
ClassIndices = NDArray[np.uint8]  # a label map of the package's own: class 0 is the background
Labels = NDArray[np.integer[Any] | np.bool_]  # a label map of any whole type, as files and callers give them
Integers = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]
Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
