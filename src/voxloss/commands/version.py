"""`voxloss --version`: the versions of what decides a study's numbers, and the device."""

import argparse
import platform
from importlib import metadata

import voxloss

PACKAGES = ("torch", "monai", "batchgeneratorsv2", "nibabel", "numpy", "scipy")


class Version(argparse.Action):
    """Print versions and device, and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print them, one a line."""
        import torch  # takes seconds, which no other use of the parser should wait for

        print(f"voxloss {voxloss.__version__}\npython {platform.python_version()}")
        for name in PACKAGES:
            try:
                print(name, metadata.version(name))
            except metadata.PackageNotFoundError:
                print(name, "is not installed")
        cuda = torch.cuda.is_available()
        print("device", torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads")
        parser.exit()
