"""Kinetics, videos of human actions from YouTube."""

import csv
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from ssl_modules.datamodules.finding import VIDEOS, absolute, find_classes, find_files, find_labelled, not_found
from ssl_modules.datamodules.unreadable import read_bytes
from ssl_modules.datamodules.video_files import VideoFiles
from ssl_modules.datamodules.video_folder import ClipDataModule
from ssl_modules.utils.checks import check_number


class KineticsDataModule(ClipDataModule):
    """Kinetics-400, -600 or -700, or a subset: videos of ten seconds that show human actions.

    The official validation videos are the test part. Copies of Kinetics differ, because YouTube no longer has all
    videos. The data module uses the videos that it finds, and a log message counts them. The folder ``root`` may have
    one of two layouts:

    - With the official lists ``root/train.csv`` and ``root/val.csv``, videos may be anywhere in ``root/train`` and
      ``root/val``. The names of the videos are ``<youtube_id>_<start>_<end>`` or ``<youtube_id>``. The lists have the
      columns label, youtube_id, time_start and time_end.
    - Without the lists, ``root/train`` and ``root/val`` have a folder for each class.

    Classes are numbered in alphabetical order.

    :class:`ClipDataModule` describes the batches. :class:`VideoFiles` describes how clips are sampled and resized.

    Source: Kay et al., "The Kinetics Human Action Video Dataset", 2017, arXiv 1705.06950.

    Args:
        root: folder with ``train`` and ``val``.
        num_classes: number of classes in ``root/train`` or ``root/train.csv``.
        return_index: whether batches also hold the row of each video and the start times of its clips.
        settings: keyword arguments of :class:`ClipDataModule`, such as frames, clips and image_size, and of
            :class:`BaseDataModule`, such as batch_size and seed.

    Raises:
        ModuleNotFoundError: if PyAV isn't installed.
        ValueError: if an argument is out of range.

    Example:
        >>> KineticsDataModule(image_size=224).dims
        (3, 8, 224, 224)
    """

    name = "kinetics-400"
    num_classes = 400

    def __init__(
        self,
        root: str | Path = "data/kinetics400",
        *,
        num_classes: int = 400,
        return_index: bool = True,
        **settings: Any,
    ) -> None:
        check_number("num_classes", num_classes, least=1)
        self.num_classes = num_classes
        self.name = f"kinetics-{num_classes}"
        super().__init__(return_index=return_index, **settings)
        self.root = absolute(root)

    def load(self) -> tuple[VideoFiles, VideoFiles]:
        """Find the training and the validation videos.

        Raises:
            FileNotFoundError: if a folder is missing.
            ValueError: if there are no videos, or the number of classes differs from ``num_classes``.
        """
        for part in ("train", "val"):
            if not Path(self.root, part).is_dir():
                raise not_found(Path(self.root, part), "give a root whose train and val hold the videos")
        lists = {part: self._listed(part) for part in ("train", "val")}
        listed = lists["train"]
        names = find_classes(Path(self.root, "train"), VIDEOS) if listed is None else sorted({*listed.values()})
        if len(names) != self.num_classes:
            raise ValueError(
                f"num_classes: expected the {len(names)} classes of {self.root}, got {self.num_classes}; pass "
                f"num_classes={len(names)}"
            )
        self.class_names = tuple(names)
        train, val = (self._part(part, lists[part]) for part in ("train", "val"))
        return train, val

    def _listed(self, part: str) -> dict[str, str] | None:
        """Return the official list, a dict from video name without extension to label, or None without a list."""
        path = Path(self.root, f"{part}.csv")
        if not path.is_file():
            return None
        names = {}
        for row in csv.DictReader(read_bytes(path).decode().splitlines()):
            start, end = (int(float(row[column])) for column in ("time_start", "time_end"))
            names[f"{row['youtube_id']}_{start:06d}_{end:06d}"] = names[row["youtube_id"]] = row["label"]
        return names

    def _part(self, part: str, names: dict[str, str] | None) -> VideoFiles:
        folder = Path(self.root, part)
        paths, targets = self._found(folder, names)
        if not paths:
            raise ValueError(f"root: expected videos of {part}.csv in {folder}, got none; put them there")
        rank_zero_info(f"{folder}: found {len(paths)} videos of {len(targets.unique())} classes")
        return self.videos(folder, paths, targets)

    def _found(self, folder: Path, names: dict[str, str] | None) -> tuple[list[str], Tensor]:
        if names is None:
            return find_labelled(folder, self.class_names, complete=False, kind=VIDEOS)
        paths = [path for path in find_files(folder, VIDEOS) if names.get(Path(path).stem) in self.class_names]
        return paths, torch.tensor([self.class_names.index(names[Path(path).stem]) for path in paths])
