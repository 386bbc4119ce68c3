"""Writes the features of ``ssl-modules predict``: each batch as it comes, then one file for each process."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from ssl_modules.batch import fields
from ssl_modules.datamodules import ImageFiles
from ssl_modules.encoders.export import checksum
from ssl_modules.evaluation.stored import join, shards, stored_rows, write_arrays
from ssl_modules.utils.files import replacing

_RECORD, _BATCHES = "features.json", "features.batches"


class FeatureWriter(Callback):
    """Writes features, rows and targets of a part of the data, and continues what an earlier call left.

    Each batch is written to the folder ``features.batches`` as it comes. At the end, the batches become one file for
    each process: ``features_0.npz`` and so on, or ``features.npz`` for one process. They hold ``features`` [N, D],
    ``index`` [N], the rows in the part, ``targets`` [N, ...], and for image files ``path`` [N].
    :class:`~ssl_modules.evaluation.StoredFeatures` reads them.

    Args:
        folder: folder to write to. If it has features of the same weights and part, only the other images are
            predicted, with any number of processes. None = the folder of this run.
        part: images to predict; "train" is the labelled training part.

    Raises:
        ValueError: if the folder has features of other weights or of another part.
    """

    def __init__(self, folder: str | None = None, part: Literal["test", "train", "val"] = "test") -> None:
        self.folder = folder
        self.part = part

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have the data give the images whose features the folder does not have."""
        if stage != "predict":
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._to = Path(trainer.strategy.broadcast(self.folder) or trainer.log_dir or ".")
        images = data.labelled_set if self.part == "train" else getattr(data, f"{self.part}_set")
        if images is None:
            raise ValueError(f"features.part: {data.name} has no {self.part} part; give another, or val_size=")
        weights = {name: value.detach().cpu() for name, value in pl_module.state_dict().items()}
        record = {"weights": checksum(weights), "data": data.name, "part": self.part, "images": len(images)}
        self._check(record)
        done = torch.from_numpy(stored_rows([*shards(self._to), *self._batches()]))
        trainer.strategy.barrier()  # all processes have read the folder
        if trainer.is_global_zero and not (self._to / _RECORD).exists():
            with replacing("features", self._to / _RECORD) as file:
                file.write(json.dumps(record, indent=1).encode())
        left = torch.ones(len(images), dtype=torch.bool)
        left[done] = False
        self._rows, self._images = left.nonzero().flatten(), images
        if len(done):
            rank_zero_info(f"features: {self._to} has {len(done)} of {len(images)} images, {len(self._rows)} are left")
        data.predict_on(images, self._rows)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Write the features of a batch."""
        features, index = outputs
        rows = self._rows[index.cpu()]
        arrays = {"features": features.float().cpu().numpy(), "index": rows.numpy()}
        arrays["targets"] = fields(batch)[1].cpu().numpy()
        if isinstance(self._images, ImageFiles):
            arrays["path"] = np.array([str(self._images.path(row)) for row in rows.tolist()])
        write_arrays(self._to / _BATCHES / f"{rows[0]:012}.npz", arrays)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Join the batches of all processes into one file for each process."""
        if stage != "predict":
            return
        trainer.strategy.barrier()  # all batches are written
        old, batches = shards(self._to), self._batches()
        known = set(stored_rows(old).tolist())  # an earlier call may have ended before it deleted its batches
        new = [path for path in batches if int(path.stem) not in known]
        trainer.strategy.barrier()  # all processes have the same lists
        if own := new[trainer.global_rank :: trainer.world_size]:
            number = len(old) + trainer.global_rank
            is_alone = trainer.world_size == 1 and not old
            join(own, self._to / ("features.npz" if is_alone else f"features_{number}.npz"))
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            for path in batches:
                path.unlink()
            if batches:
                (self._to / _BATCHES).rmdir()
            files = shards(self._to)
            names = ", ".join(map(str, files))
            print(f"features of {len(stored_rows(files))} of {len(self._images)} images: {names}")

    def _batches(self) -> list[Path]:
        return sorted((self._to / _BATCHES).glob("*.npz"))

    def _check(self, record: dict[str, Any]) -> None:
        """Raise if the folder has features of something else."""
        path = self._to / _RECORD
        if not path.exists():
            return
        known = json.loads(path.read_text())
        if other := [name for name, value in record.items() if known[name] != value]:
            raise ValueError(
                f"features.folder: {self._to} has features of other {', '.join(other)}, "
                f"{[known[name] for name in other]} instead of {[record[name] for name in other]}; give another folder"
            )
