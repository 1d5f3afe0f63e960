"""Time and memory of the boundary, Hausdorff, top-k and Lovász losses beside Dice + cross entropy and others' code.

    python benchmarks/distances.py --lesions 20 --size 96

On the CPU. One volume of `--classes` classes with boxes as in benchmarks/lesions.py. The implementations take turns;
what is measured is the time of the process, so that other work on the machine counts less; memory is the peak beyond
the inputs. Others' code that is not installed is left out; `make test-peers` makes an environment with nnU-Net, MONAI
and segmentation_models.pytorch. The boundary loss of its authors is one line, which is written here. Making the maps is
measured alone, by torch and by SciPy.
"""

import argparse
import importlib.util
import statistics
import sys
from collections.abc import Callable

import torch
from lesions import seconds, volume
from torch import Tensor

import voxloss
from losses import peak_extra
from voxloss.transforms import DistanceMaps

REFERENCE = "dice_cross_entropy"
Loss = Callable[[Tensor, Tensor], Tensor]


def implementations(labels: Tensor, classes: int) -> dict[str, Loss]:
    """Name -> loss of logits and labels."""
    maps = voxloss.distance_maps(labels, classes)
    losses: dict[str, Loss] = {
        REFERENCE: voxloss.get_loss(REFERENCE),
        "boundary, maps given": lambda x, y: voxloss.functional.boundary_loss(x, y, distances=maps),
        "boundary of its authors, maps given": lambda x, y: (x.softmax(1)[:, 1:] * maps).mean(),
        "boundary": voxloss.get_loss("boundary"),
        "mixed_focal + boundary, maps given": lambda x, y: compound(x, y, distances=maps),
        "hausdorff": voxloss.get_loss("hausdorff"),
        "topk": voxloss.get_loss("topk"),
        "dice_topk": voxloss.get_loss("dice_topk"),
        "lovasz": voxloss.get_loss("lovasz"),
    }
    compound = voxloss.Compound(["mixed_focal", "boundary"], [1, 0.01])
    for make in (_nnunet, _smp, _monai):
        try:
            losses |= make()
        except ImportError as error:
            print(f"left out: {error}", file=sys.stderr)
    return losses


def _nnunet() -> dict[str, Loss]:
    from nnunetv2.training.loss.robust_ce_loss import TopKLoss

    loss = TopKLoss(k=10)
    return {"topk of nnU-Net": lambda x, y: loss(x, y[:, None])}


def _monai() -> dict[str, Loss]:
    from monai.losses import HausdorffDTLoss

    loss = HausdorffDTLoss(to_onehot_y=True, softmax=True)
    return {"hausdorff of MONAI": lambda x, y: loss(x, y[:, None])}


def _smp() -> dict[str, Loss]:
    """The authors' code as segmentation_models.pytorch has it; the package itself imports torchvision."""
    found = importlib.util.find_spec("segmentation_models_pytorch")
    if found is None or not found.submodule_search_locations:
        raise ImportError("segmentation_models_pytorch is not installed")
    folder = f"{found.submodule_search_locations[0]}/losses"
    spec = importlib.util.spec_from_file_location(
        "smp_losses", f"{folder}/__init__.py", submodule_search_locations=[folder]
    )
    assert spec is not None and spec.loader is not None
    module = sys.modules["smp_losses"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loss = module.LovaszLoss("multiclass")
    return {"lovasz of its authors": lambda x, y: loss(x.flatten(2, 3), y.flatten(1, 2))}  # which takes images


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lesions", type=int, default=20)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    classes = arguments.classes
    labels = volume(arguments.size, arguments.lesions)
    labels *= 1 + torch.arange(arguments.size) % (classes - 1)
    logits = torch.randn(1, classes, *labels.shape[1:], generator=torch.Generator().manual_seed(1))
    losses = implementations(labels, classes)
    print(f"{arguments.size}³ voxels, {classes} classes, one thread, torch {torch.__version__}")

    def step(loss: Loss) -> None:
        loss(logits.detach().requires_grad_(), labels).backward()

    times: dict[str, list[float]] = {name: [] for name in losses}
    for turn in range(arguments.rounds + 1):
        for name, loss in losses.items():
            taken = seconds(lambda loss=loss: step(loss))  # type: ignore[misc]
            if turn:  # the first warms up
                times[name].append(taken)
    size = logits.numel() * logits.element_size()
    for name, taken_each in times.items():
        ratio = statistics.median(a / b for a, b in zip(taken_each, times[REFERENCE], strict=True))
        extra = peak_extra(losses[name], logits, labels, backward=True)
        memory = "" if extra is None else f"   {extra / size:5.2f} × the logits"
        print(f"{name:36} {1e3 * statistics.median(taken_each):8.1f} ms   {ratio:6.2f} × {REFERENCE}{memory}")
    loader = DistanceMaps(classes=classes)
    for name, run in {
        "distance_maps, torch": lambda: voxloss.distance_maps(labels, classes),
        "DistanceMaps, SciPy": lambda: loader({"label": labels[0]}),
    }.items():
        print(f"{name:36} {1e3 * seconds(run):8.1f} ms")


if __name__ == "__main__":
    main()
