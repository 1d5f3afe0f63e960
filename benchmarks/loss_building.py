"""How long it takes to build each loss: python benchmarks/loss_building.py [--repeats 200]"""

import argparse
import timeit

import voxloss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    repeats = parser.parse_args().repeats
    print(f"{'loss':28}{'build, ms':>10}{'set smooth, ms':>16}")
    for name in voxloss.list_losses():
        loss = voxloss.get_loss(name)
        build = min(timeit.repeat(lambda name=name: voxloss.get_loss(name), number=repeats, repeat=5)) / repeats
        change = min(timeit.repeat(lambda loss=loss: setattr(loss, "smooth", 1e-6), number=repeats, repeat=5)) / repeats
        print(f"{name:28}{build * 1e3:10.3f}{change * 1e3:16.3f}")


if __name__ == "__main__":
    main()
