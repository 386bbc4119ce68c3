"""Labelled videos in files. A sample holds clips of a video."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_modules.augmentations import Augmentation
from ssl_modules.datamodules.clips import duration, import_av, read_frames
from ssl_modules.datamodules.decoding import crop
from ssl_modules.datamodules.image_files import ImageFiles
from ssl_modules.datamodules.unreadable import Unreadable
from ssl_modules.utils.checks import check_number

Apart = Sequence[tuple[float, float | None]]


class VideoFiles(ImageFiles):
    """Data set of labelled video files, whose samples are clips of ``frames`` frames over ``seconds`` seconds.

    Frames are chosen by time, so the videos may have any frame rate.

    Item ``i`` holds ``eval_clips`` clips of video ``i``, [eval_clips, C, T, image_size, image_size], uint8, not
    augmented, and its target. The clips are evenly spaced over the video. A single clip is the middle of the video. The
    shorter side is scaled to ``decode_size``, then the central square of ``image_size`` is cropped.

    A training sample has ``clips`` clips, sampled uniformly over the video. The clips depend on (seed, epoch, row).
    With ``apart``, each clip after the first lies within a range of distances from the first. All frames of a clip have
    the same crop. A data module makes training batches in one of two ways:

    - Fast mode, the default: workers scale the shorter side to ``decode_size`` and crop the central square. The module
      augments the batch on its device.
    - With ``augmentation``: workers make the views from frames of full size. Batches hold these views as uint8.

    If a video is shorter than a clip, its last frame is repeated.

    Args:
        root: folder that holds the files.
        paths: paths of the files, relative to ``root``.
        targets: integers, [N, ...]; None for no targets.
        frames: number of frames of a clip, T.
        seconds: time from the first to the last frame of a clip; SCE uses 2.53. Not used if ``frames`` is 1.
        clips: number of clips of a training sample, k.
        apart: for each clip after the first, the minimum and maximum distance in seconds between its start and the
            start of the first clip. The clip may lie before or after the first. A maximum of None means no limit. If
            the video is too short for the minimum, the clip lies as far away as possible. None = all clips are sampled
            independently.
        eval_clips: number of clips of a validation or test sample.
        image_size: side length of validation and test clips in pixels.
        decode_size: side length of training clips in fast mode, at least ``image_size``. None = 8/7 of ``image_size``,
            such as 128 for 112.
        in_channels: 3 for colour, 1 for gray.
        augmentation: policy that makes training views in the workers, or its name. None = fast mode.
        unreadable: "skip" leaves out files that can't be read, as :class:`ImageFiles` does; "error" raises an error.

    Raises:
        ModuleNotFoundError: if PyAV isn't installed.
        ValueError: if an argument is out of range, or ``apart`` does not have ``clips - 1`` entries.

    Example:
        >>> from ssl_modules.datamodules.clips import write_video
        >>> write_video("gray.mp4", torch.full((3, 25, 48, 64), 128, dtype=torch.uint8))
        >>> videos = VideoFiles(".", ["gray.mp4"], frames=4, seconds=0.5, eval_clips=3, image_size=28)
        >>> clips, target = videos[0]
        >>> clips.shape, target
        (torch.Size([3, 3, 4, 28, 28]), tensor(-1))
    """

    def __init__(
        self,
        root: str | Path,
        paths: Sequence[str],
        targets: Tensor | np.ndarray | Sequence[Any] | None = None,
        *,
        frames: int = 8,
        seconds: float = 2.53,
        clips: int = 2,
        apart: Apart | None = None,
        eval_clips: int = 10,
        image_size: int,
        decode_size: int | None = None,
        in_channels: int = 3,
        augmentation: str | Augmentation | None = None,
        unreadable: Unreadable = "skip",
    ) -> None:
        check_clips(frames, seconds, clips, apart, eval_clips)
        import_av()
        super().__init__(
            root,
            paths,
            targets,
            image_size=image_size,
            decode_size=decode_size,
            in_channels=in_channels,
            augmentation=augmentation,
            unreadable=unreadable,
        )
        self.frames = frames
        self.seconds = seconds
        self.clips = clips
        self.apart = apart
        self.eval_clips = eval_clips

    @property
    def dims(self) -> tuple[int, ...]:
        """(C, T, H, W) of every clip."""
        return self.in_channels, self.frames, self.image_size, self.image_size

    def read(self, row: int, *, training: bool, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return the clips of a video, [k, C, T, H, W], and their start times in seconds, [k]."""
        path = self.path(row)
        span = self.seconds if self.frames > 1 else 0.0
        longest = max(0.0, duration(path) - span)
        starts = (
            draw_starts(longest, self.clips, self.apart, generator)
            if training
            else even_starts(longest, self.eval_clips)
        )
        within = torch.linspace(0, span, self.frames, dtype=torch.float64)
        size = None if training and self.augmentation is not None else self.decode_size
        clips = [read_frames(path, start + within, size, self.in_channels) for start in starts.tolist()]
        return torch.stack(clips), starts.float()

    def resized(self, pixels: Tensor, *, training: bool) -> Tensor:
        """Return the central square. The shorter side of ``pixels`` already has ``decode_size``."""
        return crop(pixels, self.decode_size if training else self.image_size)


def draw_starts(longest: float, clips: int, apart: Apart | None, generator: torch.Generator) -> Tensor:
    """Sample the start times of clips.

    Each start is sampled uniformly over the video. If ``apart`` is given, it limits the distance of every later clip
    from the first clip.

    Args:
        longest: latest possible start in seconds.
        clips: number of clips.
        apart: minimum and maximum distance from the first clip, for each clip after it. None = any distance.
        generator: source of randomness.

    Returns:
        Start times, [clips], in seconds.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> first, near, far = draw_starts(10.0, 3, [(0, 1), (2, None)], generator).tolist()
        >>> abs(near - first) <= 1, abs(far - first) >= 2
        (True, True)
    """
    drawn = torch.rand(clips, generator=generator, dtype=torch.float64)
    if apart is None:
        return drawn * longest
    first = drawn[0].item() * longest
    others = [
        _at_distance(first, least, longest if most is None else most, longest, share)
        for share, (least, most) in zip(drawn[1:].tolist(), apart, strict=True)
    ]
    return torch.tensor([first, *others], dtype=torch.float64)


def even_starts(longest: float, clips: int) -> Tensor:
    """Return start times that are evenly spaced over the video. A single clip is in the middle.

    Args:
        longest: latest possible start in seconds.
        clips: number of clips.

    Returns:
        Start times, [clips], in seconds.

    Example:
        >>> even_starts(3.0, 4).tolist(), even_starts(3.0, 1).tolist()
        ([0.0, 1.0, 2.0, 3.0], [1.5])
    """
    if clips == 1:
        return torch.tensor([longest / 2], dtype=torch.float64)
    return torch.linspace(0, longest, clips, dtype=torch.float64)


def _at_distance(first: float, least: float, most: float, longest: float, share: float) -> float:
    """Return a start at an allowed distance from the first clip.

    The allowed starts form up to two intervals, one before and one after ``first``. ``share``, in [0, 1), is the
    position in their union. If the video is too short for such a start, return the start that is farthest away.
    """
    before = max(0.0, first - most), first - least
    after = first + least, min(longest, first + most)
    places = [(low, high) for low, high in (before, after) if low <= high]
    if not places:
        return 0.0 if first > longest / 2 else longest
    total = sum(high - low for low, high in places)
    if total == 0:  # single points, such as for apart=[(1, 1)], which are equally likely
        return places[int(share * len(places))][0]
    way = share * total
    low, high = places[0]
    if len(places) > 1 and way > high - low:
        return places[1][0] + way - (high - low)
    return low + way


def check_clips(frames: int, seconds: float, clips: int, apart: Apart | None, eval_clips: int) -> None:
    """Raise a ValueError unless the arguments describe clips; see :class:`VideoFiles`.

    Example:
        >>> check_clips(8, 2.53, clips=3, apart=[(0, 1)], eval_clips=10)
        Traceback (most recent call last):
        ...
        ValueError: apart: expected (least, greatest) for each of the 2 clips after the first, got [(0, 1)]
    """
    for name, value in (("frames", frames), ("clips", clips), ("eval_clips", eval_clips)):
        check_number(name, value, least=1)
    check_number("seconds", seconds, above=0)
    if apart is None:
        return
    if len(apart) != clips - 1 or any(len(pair) != 2 for pair in apart):
        raise ValueError(
            f"apart: expected (least, greatest) for each of the {clips - 1} clips after the first, got {apart}"
        )
    for least, most in apart:
        if not 0 <= least <= (least if most is None else most):
            raise ValueError(f"apart: expected 0 <= least <= greatest, in seconds, got {(least, most)}")
