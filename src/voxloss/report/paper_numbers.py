"""The paper's results, to stand beside a reproduction's: means from Tables 1 and 3 of Yeung et al. 2021."""

METRICS = ("dice", "precision", "recall")

# data set -> loss -> one (DSC, precision, recall) per foreground class, in the data set's order
PAPER_RESULTS: dict[str, dict[str, tuple[tuple[float, float, float], ...]]] = {
    "kits19": {
        "focal": ((0.940, 0.952, 0.935), (0.576, 0.718, 0.549)),
        "dice": ((0.938, 0.948, 0.934), (0.695, 0.794, 0.684)),
        "tversky": ((0.936, 0.928, 0.949), (0.711, 0.754, 0.732)),
        "cosine_tversky": ((0.933, 0.924, 0.947), (0.722, 0.742, 0.767)),
        "focal_tversky": ((0.943, 0.934, 0.955), (0.740, 0.772, 0.764)),
        "combo": ((0.943, 0.951, 0.938), (0.723, 0.794, 0.722)),
        "mixed_focal": ((0.945, 0.936, 0.957), (0.751, 0.791, 0.778)),
    },
    "brats20": {
        "focal_tversky": ((0.747, 0.776, 0.765),),
        "combo": ((0.748, 0.833, 0.716),),
        "mixed_focal": ((0.775, 0.798, 0.795),),
    },
}
