"""nnU-Net's trainer with a loss of the catalogue, one class per loss."""

from pathlib import Path
from typing import Any, ClassVar

from batchgeneratorsv2.transforms.base.basic_transform import SegOnlyTransform
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

import voxloss
from voxloss.losses.compound import set_epoch
from voxloss.nnunet.loss import nnunet_loss
from voxloss.nnunet.maps import TargetMaps, WithMaps
from voxloss.nnunet.names import OWN_PREFIX, RECORD, trainer_name
from voxloss.nnunet.parameters import check_unchanged, read_parameters
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import write_json
from voxloss.utilities.imports import import_attribute


class AddMaps(SegOnlyTransform):  # type: ignore[misc]  # batchgeneratorsv2 has no types
    """Add the maps that a loss needs to the target of one sample."""

    def __init__(self, maps: TargetMaps) -> None:
        super().__init__()
        self.maps = maps

    def _apply_to_segmentation(self, segmentation: Tensor, **_: Any) -> Tensor:
        return self.maps.add(segmentation)


class VoxlossTrainer(nnUNetTrainer):  # type: ignore[misc]  # nnU-Net has no types
    """nnU-Net's trainer with another loss for every output of the network.

    The weights of deep supervision, network, optimiser, schedule and data are nnU-Net's. Regions, the ignore label,
    batch Dice and several processes reach the loss by `nnunet_loss`.
    """

    voxloss_name: ClassVar[str]
    _maps: TargetMaps | None = None  # that the loss needs

    def _build_loss(self) -> nn.Module:
        folder = self.preprocessed_dataset_folder_base
        parameters = read_parameters(self.voxloss_name, None if folder is None else Path(folder))
        labels = self.label_manager
        loss = nnunet_loss(
            self.voxloss_name,
            parameters,
            regions=labels.num_segmentation_heads if labels.has_regions else None,
            ignore_label=labels.ignore_label,
            batch_dice=self.configuration_manager.batch_dice,
            several_processes=self.is_ddp,
            classes=labels.num_segmentation_heads,
            spacing=tuple(self.configuration_manager.spacing),
        )
        self._maps = loss.maps if isinstance(loss, WithMaps) else None
        self._record(parameters)
        self.print_to_log_file(f"Loss: {loss}")
        theirs = super()._build_loss()
        if not isinstance(theirs, DeepSupervisionWrapper):
            return loss
        theirs.loss = loss  # and their weights stay
        with_supervision: nn.Module = theirs
        return with_supervision

    def on_train_epoch_start(self) -> None:
        """Begin an epoch; weights that follow a schedule are those of this epoch, also in a resumed training."""
        super().on_train_epoch_start()
        set_epoch(self.loss, self.current_epoch)

    def get_training_transforms(self, *arguments: Any, **named: Any) -> Any:
        """Return nnU-Net's transforms, with the maps that the loss needs made after the last that moves voxels.

        Those of validation stay nnU-Net's own, as it counts the channels of the target there.
        """
        transforms = super().get_training_transforms(*arguments, **named)
        if self._maps is not None:
            parts = transforms.transforms
            resized = bool(parts) and isinstance(parts[-1], DownsampleSegForDSTransform)
            parts.insert(len(parts) - resized, AddMaps(self._maps))
        return transforms

    def _record(self, parameters: dict[str, Any]) -> None:
        """Write the loss into the fold's folder; a resumed training must have the same loss."""
        path = Path(self.output_folder) / RECORD
        record = {"loss": self.voxloss_name, "parameters": parameters, "voxloss": voxloss.__version__}
        if any(path.parent.glob("checkpoint_*.pth")):
            check_unchanged(path, record)
        if self.local_rank == 0:
            write_json(path, record)


def make_trainer(loss: str) -> type[VoxlossTrainer]:
    """Return the trainer class of a loss, named as `trainer_name` says."""
    content: dict[str, Any] = {
        "voxloss_name": loss,
        "__doc__": f"nnU-Net's trainer with voxloss's {loss}.",
        "__module__": __name__,
    }
    return type(trainer_name(loss), (VoxlossTrainer,), content)


TRAINERS: dict[str, type[VoxlossTrainer]] = {
    trainer_name(loss): make_trainer(loss) for loss in [*voxloss.list_losses(), "compound"]
}
globals().update(TRAINERS)  # so that they can be imported, and pickled, by name


def own_trainer(name: str) -> type[VoxlossTrainer]:
    """Return the trainer of a user's own loss by its name, nnUNetTrainerVoxloss_ and the loss's import path.

    nnU-Net looks for trainers with getattr, which takes any text.

    Raises:
        AttributeError: Another name.
        InputError: The loss cannot be imported.
    """
    path = name.removeprefix(OWN_PREFIX)
    if path == name or "." not in path:
        raise AttributeError(name)
    if "__" in path:
        raise InputError(f"nnU-Net divides folders' names at '__', so the loss {path} needs a path without it.")
    import_attribute(path, "the loss")  # now, and not after the data were unpacked
    return make_trainer(path)
