"""UCF101, videos of 101 human actions."""

from itertools import compress
from pathlib import Path
from typing import Any

import torch

from ssl_modules.datamodules.finding import absolute, not_found, present
from ssl_modules.datamodules.unreadable import read_bytes
from ssl_modules.datamodules.video_files import VideoFiles
from ssl_modules.datamodules.video_folder import ClipDataModule
from ssl_modules.utils.checks import check_choice

VIDEOS, LISTS = "UCF-101", "ucfTrainTestlist"
HOW_TO_GET = (
    "download UCF101.rar (6.5 GB) and UCF101TrainTestSplits-RecognitionTask.zip from crcv.ucf.edu/data/UCF101.php and "
    f"unpack both, which gives the folders {VIDEOS} and {LISTS}"
)


class UCF101DataModule(ClipDataModule):
    """UCF101, 13,320 videos of 101 human actions, 320 x 240 pixels at 25 frames per second.

    Split 1 has 9,537 training videos. The files are ``root/UCF-101/<Class>/v_<Class>_gNN_cNN.avi``. The official lists
    are in ``root/ucfTrainTestlist``. Classes are numbered as in ``classInd.txt``. The class of a video is the name of
    its folder, because the video names of HandstandPushups have another spelling. Videos with the same gNN come from
    one recording, and the official lists put them all into the same part. Listed videos that are missing are left out,
    with a warning.

    :class:`ClipDataModule` describes the batches. :class:`VideoFiles` describes how clips are sampled and resized.

    Source: Soomro, Zamir and Shah, "UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild", 2012,
    arXiv 1212.0402.

    Args:
        root: folder with ``UCF-101`` and ``ucfTrainTestlist``.
        split: number of the official split into training and test videos: 1, 2 or 3.
        return_index: whether batches also hold the row of each video and the start times of its clips.
        settings: keyword arguments of :class:`ClipDataModule`, such as frames, clips and image_size, and of
            :class:`BaseDataModule`, such as batch_size and seed.

    Raises:
        ModuleNotFoundError: if PyAV isn't installed.
        ValueError: if an argument is out of range.

    Example:
        >>> data = UCF101DataModule(split=2)
        >>> data.num_classes, data.dims
        (101, (3, 8, 112, 112))
    """

    name = "ucf101"
    num_classes = 101

    def __init__(
        self, root: str | Path = "data/ucf101", *, split: int = 1, return_index: bool = True, **settings: Any
    ) -> None:
        check_choice("split", split, (1, 2, 3))
        super().__init__(return_index=return_index, **settings)
        self.root = absolute(root)
        self.split = split

    def load(self) -> tuple[VideoFiles, VideoFiles]:
        """Find the training and the test videos of the split.

        Raises:
            FileNotFoundError: if a list is missing, or all videos of a part are missing.
            ValueError: if a list does not have the form of the official one.
        """
        numbers = dict(line.split(maxsplit=1)[::-1] for line in self._lines("classInd.txt"))
        if [*numbers.values()] != [str(number) for number in range(1, self.num_classes + 1)]:
            raise ValueError(
                f"root: expected {self.num_classes} classes, numbered from 1, in classInd.txt, got {len(numbers)}; "
                f"{HOW_TO_GET}"
            )
        self.class_names = tuple(numbers)
        train = [line.rsplit(maxsplit=1) for line in self._lines(f"trainlist{self.split:02d}.txt")]
        wrong = [path for path, number in train if numbers.get(_folder(path)) != number]
        if wrong:
            raise ValueError(
                f"root: expected the classes of the folders in trainlist{self.split:02d}.txt, got another class for "
                f"{wrong[0]}; {HOW_TO_GET}"
            )
        return self._part("trainlist", [path for path, _ in train]), self._part("testlist")

    def _part(self, name: str, paths: list[str] | None = None) -> VideoFiles:
        source, folder = f"{name}{self.split:02d}.txt", Path(self.root, VIDEOS)
        if not folder.is_dir():
            raise not_found(folder, HOW_TO_GET)
        paths = self._lines(source) if paths is None else paths  # test lists have no class numbers
        paths = [*compress(paths, present(folder, paths, source))]
        targets = [self.class_names.index(_folder(path)) for path in paths]
        return self.videos(folder, paths, torch.tensor(targets))

    def _lines(self, name: str) -> list[str]:
        path = Path(self.root, LISTS, name)
        if not path.is_file():
            raise not_found(path, HOW_TO_GET)
        return [line.strip() for line in read_bytes(path).decode().splitlines() if line.strip()]


def _folder(path: str) -> str:
    return path.split("/", maxsplit=1)[0]
