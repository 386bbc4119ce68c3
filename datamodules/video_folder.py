"""A folder of your own videos, with or without one folder per class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ssl_modules.datamodules.class_folders import ClassFolders
from ssl_modules.datamodules.clips import import_av
from ssl_modules.datamodules.finding import VIDEOS
from ssl_modules.datamodules.from_files import FilesDataModule
from ssl_modules.datamodules.video_files import Apart, VideoFiles, check_clips


class ClipDataModule(FilesDataModule):
    """Base class of data modules for videos. Batches hold clips, and frames are chosen by time.

    A training batch is ``(clips, targets, index, times)``. ``clips`` is uint8 [N, clips, C, T, H, W]. ``index`` [N]
    holds the rows of the videos. A queue identifies videos by their rows. ``times`` [N, clips] holds the start times of
    the clips in seconds. A validation or test batch holds ``eval_clips`` clips of each video. A module's representation
    of a video is the mean over its clips. :class:`VideoFiles` describes how clips are sampled and resized.

    With 2 clips of 8 frames, a batch of 64 videos has 50 MB of pixels for a ``decode_size`` of 128, and 201 MB for 256.

    Args:
        frames: number of frames of a clip, T.
        seconds: time from the first to the last frame of a clip.
        clips: number of clips of a training sample.
        apart: for each clip after the first, the minimum and maximum distance in seconds from the first clip, such as
            [(0, 1), (1, None)]. None = any distance.
        eval_clips: number of clips of a validation or test sample.
        return_index: whether batches also hold the row of each video and the start times of its clips.
        settings: the arguments image_size, decode_size, augmentation and unreadable of :class:`VideoFiles`, and keyword
            arguments of :class:`~ssl_modules.datamodules.base.BaseDataModule`.

    Raises:
        ModuleNotFoundError: if PyAV isn't installed.
        ValueError: if an argument is out of range.
    """

    dims = (3, 8, 112, 112)
    mean: tuple[float, ...] = (0.45, 0.45, 0.45)
    std: tuple[float, ...] = (0.225, 0.225, 0.225)

    def __init__(
        self,
        *,
        frames: int = 8,
        seconds: float = 2.53,
        clips: int = 2,
        apart: Apart | None = None,
        eval_clips: int = 10,
        image_size: int = 112,
        return_index: bool = True,
        **settings: Any,
    ) -> None:
        check_clips(frames, seconds, clips, apart, eval_clips)
        import_av()
        self.dims = (self.dims[0], frames, image_size, image_size)
        super().__init__(image_size=image_size, return_index=return_index, **settings)
        self.frames = frames
        self.seconds = seconds
        self.clips = clips
        self.apart = apart
        self.eval_clips = eval_clips

    def videos(self, folder: str | Path, paths: Sequence[str], targets: Tensor | None = None) -> VideoFiles:
        """Return a part of the data set, with the settings of this data module.

        Args:
            folder: folder that holds the files.
            paths: paths of the files, relative to ``folder``.
            targets: integers, [N, ...]; None for no targets.
        """
        return VideoFiles(
            folder,
            paths,
            targets,
            frames=self.frames,
            seconds=self.seconds,
            clips=self.clips,
            apart=self.apart,
            eval_clips=self.eval_clips,
            image_size=self.image_size,
            decode_size=self.decode_size,
            in_channels=self.in_channels,
            augmentation=self.augmentation,
            unreadable=self.unreadable,
        )


class VideoFolderDataModule(ClassFolders, ClipDataModule):
    """Videos in a folder, of any size, length and frame rate, such as MP4, AVI, Matroska, WebM or MPEG.

    With ``class_folders``, each folder in ``root`` is a class. Without it, all videos in ``root`` and its subfolders
    are used, without targets. :class:`ImageFolderDataModule` finds images in the same way.
    Reading videos needs PyAV: ``pip install 'ssl-modules[video]'``.

    :class:`ClipDataModule` describes the batches. :class:`VideoFiles` describes how clips are sampled and resized.

    Args:
        root: folder of the training videos.
        test: folder of the test videos, with class folders of the same names. None = no test videos.
        class_folders: whether the folders in ``root`` are classes.
        in_channels: 3 for colour, 1 for gray. Videos with another number of channels are converted.
        mean: mean of each channel, for pixels in [0, 1]; None for 0.45.
        std: standard deviation of each channel; None for 0.225.
        return_index: whether batches also hold the row of each video and the start times of its clips.
        settings: keyword arguments of :class:`ClipDataModule`, such as frames, clips and image_size, and of
            :class:`BaseDataModule`, such as batch_size and seed.

    Raises:
        FileNotFoundError: if ``root`` is missing.
        ModuleNotFoundError: if PyAV isn't installed.
        ValueError: if there are no class folders, ``root`` itself has videos, or an argument is out of range.

    Example:
        >>> import torch
        >>> from ssl_modules.datamodules.clips import write_video
        >>> for name in ("jump", "run"):
        ...     Path("sport", name).mkdir(parents=True)
        ...     write_video(f"sport/{name}/1.mp4", torch.zeros(3, 25, 48, 64, dtype=torch.uint8))
        >>> data = VideoFolderDataModule("sport", frames=4, seconds=0.5, image_size=28, batch_size=2, num_workers=0)
        >>> data.setup()
        >>> clips, targets, index, times = next(iter(data.train_dataloader()))
        >>> data.class_names, clips.shape, times.shape
        (('jump', 'run'), torch.Size([2, 2, 3, 4, 32, 32]), torch.Size([2, 2]))
    """

    kind = VIDEOS

    def __init__(
        self,
        root: str | Path,
        *,
        test: str | Path | None = None,
        class_folders: bool = True,
        in_channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        return_index: bool = True,
        **settings: Any,
    ) -> None:
        self.read_facts(root, test, class_folders, in_channels=in_channels, mean=mean, std=std)
        super().__init__(return_index=return_index, **settings)

    def data_set(self, folder: Path, paths: Sequence[str], targets: Any) -> VideoFiles:
        """Return the videos of a part."""
        return self.videos(folder, paths, targets)
