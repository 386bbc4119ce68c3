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
    """Base class of data modules of videos: batches hold clips, and frames are chosen by time.

    A training batch is ``(clips, targets, index, times)``: clips are uint8 [N, clips, C, T, H, W]; index holds the
    videos' rows, by which a queue recognises a video; times holds the seconds at which clips start, [N, clips].
    Evaluation has ``eval_clips`` clips in place of ``clips``: a module's representation is the mean over them.
    :class:`VideoFiles` describes how clips are drawn and resized.

    A batch of 64 videos has 50 MB of pixels with 2 clips of 8 frames and a ``decode_size`` of 128, and 201 MB with 256.

    Args:
        frames: number of frames of a clip, T.
        seconds: time from the first to the last frame of a clip.
        clips: number of clips of a training sample.
        apart: least and greatest distance in seconds from the first clip to each other one, such as [(0, 1), (1,
            None)]; None for any.
        eval_clips: number of clips of a validation or test sample.
        return_index: whether batches also hold the row of each image, here of each video, and the times of its clips.
        settings: keyword arguments of :class:`~ssl_modules.datamodules.base.BaseDataModule` and image_size,
            decode_size, augmentation and unreadable.

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
        """A part of the data set, with this module's settings.

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
    """Videos in a folder, of any size, length and frame rate: MP4, AVI, Matroska, WebM, MPEG and others.

    Folders and classes are found as :class:`ImageFolderDataModule` finds them: with ``class_folders``, each folder in
    ``root`` is a class; without it, all videos in ``root`` and its subfolders are used, without targets.
    Reading videos needs PyAV: ``pip install 'ssl-modules[video]'``.

    A training batch is ``(clips, targets, index, times)``: clips are uint8 [N, clips, C, T, H, W]; index holds the
    videos' rows, by which a queue recognises a video; times holds the seconds at which clips start, [N, clips].
    Evaluation has ``eval_clips`` clips in place of ``clips``: a module's representation is the mean over them.
    :class:`VideoFiles` describes how clips are drawn and resized.

    Args:
        root: folder of the training videos.
        test: folder of the test videos, with class folders of the same names; None if there is none.
        class_folders: whether the folders in ``root`` are classes.
        in_channels: 3 for colour, 1 for gray; other videos are converted.
        mean: mean of each channel, for pixels in [0, 1]; None for 0.45.
        std: standard deviation of each channel; None for 0.225.
        return_index: whether batches also hold the row of each image, here of each video, and the times of its clips.
        settings: keyword arguments of :class:`ClipDataModule`: frames, seconds, clips, apart, eval_clips, image_size,
            decode_size, augmentation, unreadable, and those of :class:`BaseDataModule`.

    Raises:
        FileNotFoundError: if ``root`` is missing.
        ModuleNotFoundError: if PyAV isn't installed.
        ValueError: if there are no class folders, videos lie beside them, or an argument is out of range.

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
