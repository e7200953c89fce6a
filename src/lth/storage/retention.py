"""Whose trained weights stay on disk (`store.keep`), and which trainings are done again for want of them.

A training without its trained weights is still whole: from its ticket these are made again, to the same bits. All is
asked of the disk when it is asked, so that nothing here grows with the plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lth.config import Experiment
from lth.plan import Training, keeps_trained, readers, reads_trained
from lth.storage import outcomes


@dataclass(frozen=True)
class Retention:
    """Of a call of `lth run`: the experiment `asked` for, and the `whole` that its folder then holds."""

    asked: Experiment
    whole: Experiment
    folder: Path

    def status(self, training_id: str) -> str | None:
        """How a training ended; None where it is to do, be it for its trained weights alone."""
        status = outcomes.status(self.folder, training_id)
        lost = status and status != "diverged" and not outcomes.has_trained(self.folder, training_id)
        return None if lost and self.wanted(training_id) else status

    def wanted(self, training_id: str) -> bool:
        """Whether a training that can still happen is made from its trained weights."""
        return any(
            outcomes.status(self.folder, reader.id) is None
            and all(outcomes.status(self.folder, need) != "diverged" for need in reader.needs)
            for reader in readers(self.asked, training_id)
        )

    def release(self, training_id: str) -> None:
        """Give back the place of its trained weights, unless they stay or are still wanted."""
        stays = keeps_trained(self.asked, training_id) or keeps_trained(self.whole, training_id)
        if not stays and not self.wanted(training_id):
            outcomes.drop_trained(self.folder, training_id)

    def over(self, training: Training) -> None:
        """It was stored, or cannot happen any more."""
        for name in (training.id, reads_trained(training)):
            if name and outcomes.is_done(self.folder, name):
                self.release(name)
