"""Saves a run's config in its folder, even if the folder already holds another run's config."""

import os
from itertools import count
from typing import Any

from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_info


class SavedConfig(SaveConfigCallback):
    """Lightning's callback that saves the config, changed so that it never replaces another file.

    If ``config.yaml`` exists already, the callback writes ``config_1.yaml``, or the next free name, and logs the name.
    If a file has the same content, the callback writes nothing.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder: Any = trainer.log_dir  # in all processes, because reading it broadcasts between them
        if not (self.already_saved or self.overwrite):
            name = self._free_name(folder) if trainer.is_global_zero else None
            name = trainer.strategy.broadcast(name)
            self.already_saved = name is None
            self.config_filename = name or self.config_filename
        super().setup(trainer, pl_module, stage)

    def _free_name(self, folder: str) -> str | None:
        """Return the first unused file name; None if a file with the same content exists under an earlier name."""
        files, config = get_filesystem(folder), self.parser.dump(self.config, skip_none=False)
        stem, ending = os.path.splitext(self.config_filename)
        for number in count():
            name = f"{stem}_{number}{ending}" if number else self.config_filename
            path = os.path.join(folder, name)
            if not files.isfile(path):
                break
            with files.open(path, "r") as file:
                if file.read() == config:
                    return None
        if number:
            rank_zero_info(f"config: saved as {path}, because another run has {self.config_filename}")
        return name
