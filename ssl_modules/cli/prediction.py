"""Callback that writes the features of ``ssl-modules predict`` to files."""

import json
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from ssl_modules.batch import fields
from ssl_modules.datamodules import ImageFiles
from ssl_modules.datamodules.identity import changed, identity
from ssl_modules.encoders.export import checksum
from ssl_modules.evaluation.stored import RECORD, join, next_number, shards, stored_rows, write_arrays
from ssl_modules.utils.files import replacing

_BATCHES = "features.batches"


class FeatureWriter(Callback):
    """Writes features, rows and targets of a part of the data. A repeated call continues an interrupted one.

    The callback writes each batch to the folder ``features.batches``. At the end, it joins the batches into one file
    for each process: ``features_0.npz``, ``features_1.npz``, ..., or ``features.npz`` for one process.
    :class:`~ssl_modules.evaluation.StoredFeatures` reads these files. The files contain these arrays:

    - ``features`` [N, D];
    - ``index`` [N], the rows of the images in the part;
    - ``targets`` [N, ...];
    - ``path`` [N], only for image files.

    Args:
        folder: folder to write to. If it already has features of the same weights, data and part, only images without
            features are predicted. These include images that could not be read before. The number of processes may have
            changed. None = the folder of this run.
        part: part of the data to predict. "train" is the labelled training part.

    Raises:
        ValueError: if the folder has features of other weights, of other data or of another part.
    """

    def __init__(self, folder: str | None = None, part: Literal["test", "train", "val"] = "test") -> None:
        self.folder = folder
        self.part = part

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the data module load only the images whose features are not in the folder yet."""
        if stage != "predict":
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._to = Path(trainer.strategy.broadcast(self.folder) or trainer.log_dir or ".")
        images = data.labelled_set if self.part == "train" else getattr(data, f"{self.part}_set")
        if images is None:
            raise ValueError(
                f"features.part: {data.name} has no {self.part} part; give another part, or set the data's val_size"
            )
        weights = {name: value.detach().cpu() for name, value in pl_module.state_dict().items()}
        record = {"weights": checksum(weights), "part": self.part, "images": len(images), **identity(data)}
        record["levels"] = list(data.level_names) or None
        self._check(record)
        done = torch.from_numpy(stored_rows([*shards(self._to), *self._batches()]))
        trainer.strategy.barrier()  # wait until all processes have read the folder
        if trainer.is_global_zero and not (self._to / RECORD).exists():
            with replacing("features", self._to / RECORD) as file:
                file.write(json.dumps(record, indent=1).encode())
        left = torch.ones(len(images), dtype=torch.bool)
        left[done] = False
        self._rows, self._images = left.nonzero().flatten(), images
        if len(done):
            rank_zero_info(f"features: {self._to} has {len(done)} of {len(images)} images, {len(self._rows)} remain")
            if isinstance(images, ImageFiles) and len(self._rows) and not _any_readable(images.select(self._rows)):
                self._rows = self._rows[:0]
        data.predict_on(images, self._rows)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Write the features of a batch."""
        features, index = outputs
        index, processes = index.cpu(), trainer.world_size
        # A batch without a readable image holds an image of another batch, which is dropped here.
        batch_size = trainer.datamodule.batch_size  # type: ignore[attr-defined]
        own = index // processes // batch_size == batch_idx
        own &= index % processes == trainer.global_rank
        if not own.any():
            return
        rows = self._rows[index[own]]
        arrays = {"features": features.float().cpu()[own].numpy(), "index": rows.numpy()}
        arrays["targets"] = fields(batch)[1].cpu()[own].numpy()
        if isinstance(self._images, ImageFiles):
            arrays["path"] = np.array([str(self._images.path(row)) for row in rows.tolist()])
        write_arrays(self._to / _BATCHES / f"{rows[0]:012}.npz", arrays)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Join the batches of all processes into one file for each process."""
        if stage != "predict":
            return
        trainer.strategy.barrier()  # wait until all batches are written
        old, batches = shards(self._to), self._batches()
        known = set(stored_rows(old).tolist())  # an earlier call may have stopped before it deleted its batches
        new = [path for path in batches if int(path.stem) not in known]
        trainer.strategy.barrier()  # wait until all processes have listed the same files
        if own := new[trainer.global_rank :: trainer.world_size]:
            number = next_number(old) + trainer.global_rank
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
        """Raise an error if the folder has features of other weights, of other data or of another part."""
        path = self._to / RECORD
        if not path.exists():
            return
        known, record = json.loads(path.read_text()), json.loads(json.dumps(record))
        if other := changed(known, record):
            raise ValueError(
                f"features.folder: expected features of the same {', '.join(other)}, "
                f"{[record.get(name) for name in other]}, got {[known.get(name) for name in other]} in {self._to}; "
                "give another folder"
            )


def _any_readable(files: ImageFiles) -> bool:
    """Return whether any of the files can be read; warn if there is none."""
    for row in range(len(files)):
        read = partial(files.read, row, training=False, generator=torch.Generator())
        if files.unreadable_files.read(row, files.path(row), read) is not None:
            return True
    files.report()
    return False
