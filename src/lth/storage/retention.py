"""Which trained weights stay on disk (`store.keep`), and which trainings are repeated because theirs are needed again.

A training without its trained weights is complete: they can be made again from its ticket, to the same bits. The state
is read from the disk each time, so that memory does not grow with the plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lth.config import Experiment
from lth.plan import Training, keeps_trained, readers, reads_trained
from lth.storage import outcomes


@dataclass(frozen=True)
class Retention:
    """For one call of `lth run`: the requested experiment `asked`, and the experiment `whole` that the folder then
    holds.
    """

    asked: Experiment
    whole: Experiment
    folder: Path

    def status(self, training_id: str) -> str | None:
        """How a training ended; None if it is pending, or must be repeated for its trained weights."""
        status = outcomes.status(self.folder, training_id)
        lost = status and status != "diverged" and not outcomes.has_trained(self.folder, training_id)
        return None if lost and self.wanted(training_id) else status

    def wanted(self, training_id: str) -> bool:
        """Return whether a pending training reads the trained weights of this one."""
        return any(
            outcomes.status(self.folder, reader.id) is None
            and all(outcomes.status(self.folder, need) != "diverged" for need in reader.needs)
            for reader in readers(self.asked, training_id)
        )

    def release(self, training_id: str) -> None:
        """Delete the trained weights of a training unless they stay or a pending training reads them."""
        stays = keeps_trained(self.asked, training_id) or keeps_trained(self.whole, training_id)
        if not stays and not self.wanted(training_id):
            outcomes.drop_trained(self.folder, training_id)

    def over(self, training: Training) -> None:
        """Return whether the training is stored or can no longer be carried out."""
        for name in (training.id, reads_trained(training)):
            if name and outcomes.is_done(self.folder, name):
                self.release(name)
