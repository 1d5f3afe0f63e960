"""`python -m voxloss`, the same as `voxloss`."""

from voxloss.commands.main import main

if __name__ == "__main__":  # worker processes import this module again
    main()
