"""`python -m voxloss`, the same as `voxloss`."""

from voxloss.cli import main

if __name__ == "__main__":  # worker processes import this module again
    main()
