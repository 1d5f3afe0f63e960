"""The schedule of the learning rate, the same for every loss."""

import torch

from voxloss.config.settled import SettledConfig


class Schedule:
    """The learning rate of each epoch, polynomial or lowered on a plateau of the training loss.

    Args:
        config: The study's configuration.
        optimizer: Whose learning rate is set.
    """

    def __init__(self, config: SettledConfig, optimizer: torch.optim.Optimizer) -> None:
        self.setting, self.optimizer = config.training, optimizer
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer,
            factor=0.1,
            # Keras's patience 20 and cooldown 1: it lowers at the 20th epoch without improvement and every 20 after.
            # torch waits for one more than its patience, and its cooldown would add another epoch.
            patience=19,
            cooldown=0,
            threshold=1e-4,
            threshold_mode="abs",  # torch's relative one never sees a plateau of a negative loss
            min_lr=config.training.minimum_learning_rate,
        )

    def start(self, epoch: int) -> float:
        """Set the learning rate of an epoch, counted from 0, and return it."""
        if self.setting.schedule == "polynomial":
            rate = self.setting.learning_rate * (1 - epoch / self.setting.epochs) ** 0.9
            for group in self.optimizer.param_groups:
                group["lr"] = max(rate, self.setting.minimum_learning_rate)
        return float(self.optimizer.param_groups[0]["lr"])

    def finish(self, train_loss: float) -> None:
        """Take the training loss of the epoch that ended."""
        if self.setting.schedule == "plateau":
            self.plateau.step(train_loss)
