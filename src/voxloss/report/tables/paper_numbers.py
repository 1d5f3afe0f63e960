"""The results of Yeung et al. 2021 (Tables 1 to 4), for comparison with a reproduction."""

METRICS = ("dice", "precision", "recall")

Result = tuple[float, float]  # mean and the half width of its 95 % interval

# data set -> loss -> one (DSC, precision, recall) per foreground class, in the data set's order
PAPER_RESULTS: dict[str, dict[str, tuple[tuple[Result, Result, Result], ...]]] = {
    "kits19": {
        "focal": (
            ((0.940, 0.020), (0.952, 0.011), (0.935, 0.021)),
            ((0.576, 0.079), (0.718, 0.036), (0.549, 0.086)),
        ),
        "dice": (
            ((0.938, 0.018), (0.948, 0.012), (0.934, 0.019)),
            ((0.695, 0.066), (0.794, 0.034), (0.684, 0.084)),
        ),
        "tversky": (
            ((0.936, 0.018), (0.928, 0.010), (0.949, 0.021)),
            ((0.711, 0.081), (0.754, 0.073), (0.732, 0.084)),
        ),
        "cosine_tversky": (
            ((0.933, 0.013), (0.924, 0.013), (0.947, 0.017)),
            ((0.722, 0.046), (0.742, 0.026), (0.767, 0.066)),
        ),
        "focal_tversky": (
            ((0.943, 0.015), (0.934, 0.011), (0.955, 0.016)),
            ((0.740, 0.061), (0.772, 0.038), (0.764, 0.068)),
        ),
        "combo": (
            ((0.943, 0.014), (0.951, 0.013), (0.938, 0.018)),
            ((0.723, 0.047), (0.794, 0.051), (0.722, 0.051)),
        ),
        "mixed_focal": (
            ((0.945, 0.017), (0.936, 0.012), (0.957, 0.017)),
            ((0.751, 0.057), (0.791, 0.026), (0.778, 0.069)),
        ),
    },
    "brats20": {
        "focal_tversky": (((0.747, 0.050), (0.776, 0.070), (0.765, 0.029)),),
        "combo": (((0.748, 0.032), (0.833, 0.039), (0.716, 0.022)),),
        "mixed_focal": (((0.775, 0.033), (0.798, 0.032), (0.795, 0.027)),),
    },
}

# data set -> the order of its matrix
PAPER_ORDER = {
    "kits19": ("focal", "dice", "tversky", "cosine_tversky", "focal_tversky", "combo", "mixed_focal"),
    "brats20": ("focal_tversky", "combo", "mixed_focal"),
}

# data set -> per foreground class the rows of the lower triangle: Holm-adjusted p of the rank-sum test on DSC
PAPER_P: dict[str, tuple[tuple[tuple[float, ...], ...], ...]] = {
    "kits19": (
        (
            (),
            (1.00,),
            (0.209, 1.00),
            (0.00468, 0.0962, 1.00),
            (1.00, 1.00, 0.0950, 0.00145),
            (1.00, 1.00, 0.165, 0.00249, 1.00),
            (1.00, 0.476, 0.00541, 2.52e-5, 1.00, 1.00),
        ),
        (
            (),
            (0.286,),
            (0.0841, 1.00),
            (0.0841, 1.00, 1.00),
            (8.30e-4, 0.267, 0.757, 0.757),
            (0.0209, 1.00, 1.00, 1.00, 1.00),
            (1.30e-4, 0.0841, 0.331, 0.308, 1.00, 1.00),
        ),
    ),
    "brats20": (((), (0.312,), (0.176, 0.018)),),
}
