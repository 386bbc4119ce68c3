"""Read frames of video files by time. Needs PyAV: pip install 'ssl-modules[video]'.

FFmpeg guesses the times that a container doesn't store, and some guesses are wrong. We handle these containers:

- AVI and ASF (WMV) store when a packet is decoded, not when its frame is shown. These times differ only if the video
  has B-frames, which are decoded after a frame that is shown later. Even then, the decoder returns frames in the order
  of display. Each frame gets the decoding time of the packet that completed it, minus the decoding time of the first
  frame.
- MPEG program streams (MPG) store the times of some frames only. FFmpeg finds the other times correctly only if it
  decodes from the start. After a seek, these times are wrong. FFmpeg also gives a wrong length for the video.
- A raw stream stores no times, so we count the frames.
"""

import errno
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_modules.datamodules.unreadable import retried
from ssl_modules.utils.checks import check_choice, check_number

FORMATS = {1: "gray", 3: "rgb24"}  # FFmpeg's names of pixel formats
ROUNDING = 1e-4  # ticks added to each time, so that rounding does not select the previous frame
TIMES_OF_DECODING = ("avi", "asf")  # FFmpeg's names of the containers that are described above
SOME_TIMES = ("mpeg",)  # containers with the times of some frames only
WRONG_LENGTH = ("mpeg", "flv")  # an FLV file's length includes the delay of B-frames
TOLERANCE = 0.5  # seconds that may be missing at the end, because the lengths in headers are not exact


def read_frames(
    path: str | Path, times: Sequence[float] | Tensor, size: int | None = None, channels: int = 3
) -> Tensor:
    """Read the frames that a video shows at given times, in one pass over the file.

    Time 0 is the first frame. A frame is shown until the next frame begins. After the end of the video, the last frame
    is still shown. Frames are therefore read at the same times for any frame rate, even if the rate varies. A rotation
    in the metadata is ignored.

    Args:
        path: path of the file.
        times: [T], in seconds, at least 0, in ascending order.
        size: length of the shorter side in pixels. None = the size of the video.
        channels: 3 for colour, 1 for gray.

    Returns:
        uint8 [channels, T, H, W].

    Raises:
        ModuleNotFoundError: if PyAV isn't installed.
        OSError: if the file is missing, is not a video or is damaged. This includes a file that ends more than half a
            second before the last time, although its header gives a greater length.
        ValueError: if the times are empty, negative or not in ascending order.

    Example:
        >>> write_video("gray.mp4", torch.full((3, 10, 48, 64), 128, dtype=torch.uint8), fps=10)
        >>> read_frames("gray.mp4", [0.0, 0.45, 0.9], size=24).shape
        torch.Size([3, 3, 24, 32])
    """
    seconds = torch.as_tensor(times, dtype=torch.float64).tolist()
    if not seconds or seconds[0] < 0 or any(after < before for before, after in pairwise(seconds)):
        raise ValueError(f"times: expected one or more seconds from 0 on, in ascending order, got {seconds}")
    if size is not None:
        check_number("size", size, least=1)
    check_choice("channels", channels, tuple(FORMATS))
    return retried(path, lambda: _read(path, seconds, size, channels))


def duration(path: str | Path) -> float:
    """Return the length of a video in seconds, from its header, or from its packets if the header has no length.

    Args:
        path: path of the file.

    Raises:
        ModuleNotFoundError: if PyAV isn't installed.
        OSError: if the file is missing, is damaged or is not a video.

    Example:
        >>> write_video("short.mp4", torch.zeros(3, 5, 48, 64, dtype=torch.uint8), fps=10)
        >>> duration("short.mp4")
        0.5
    """

    def read() -> float:
        with _opened(path) as (container, stream):
            return float(_length(container, stream) or _measured(path, container, stream))

    return retried(path, read)


def write_video(path: str | Path, frames: Tensor, fps: int = 25, codec: str = "libx264", **options: str) -> None:
    """Write frames to a video file.

    Args:
        path: path of the file. Its extension determines the format.
        frames: uint8 [3, T, H, W], with even H and W.
        fps: frames per second.
        codec: name of FFmpeg's encoder.
        options: options of the encoder, such as crf="18".

    Example:
        >>> write_video("noise.mp4", torch.randint(256, (3, 4, 48, 64), dtype=torch.uint8), fps=10, crf="30")
        >>> read_frames("noise.mp4", [0.3]).shape
        torch.Size([3, 1, 48, 64])
    """
    av = import_av()
    _, _, height, width = frames.shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for pixels in frames.permute(1, 2, 3, 0).contiguous().numpy():  # [T, H, W, 3]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def import_av() -> Any:
    """Import and return PyAV, an optional dependency.

    Raises:
        ModuleNotFoundError: if PyAV isn't installed. The message says how to install it.

    Example:
        >>> import_av().__name__
        'av'
    """
    try:
        import av  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("videos need PyAV: pip install 'ssl-modules[video]', or pip install av") from error
    return av


def _read(path: str | Path, seconds: list[float], size: int | None, channels: int) -> Tensor:
    for seek in (True, False):
        with _opened(path) as (container, stream):
            ticks = [math.floor(second / stream.time_base + ROUNDING) for second in seconds]
            has_times = _has_times(container, stream)
            if seek and has_times and ticks[0] > 0:
                container.seek(stream.start_time + ticks[0], stream=stream)  # to the last key frame before this tick
            frames = _timed(path, container, stream)
            first = next(frames, None)
            if first is None:
                continue
            start = stream.start_time if has_times else first[0]
            if first[0] - start <= ticks[0] or ticks[0] == 0 or not seek:
                ticks = [start + tick for tick in ticks]
                shown, end = _shown(chain([first], frames), ticks, _Converter(size, channels))
                if end is not None:
                    _check_end(path, end - start, ticks[-1] - start, container, stream)
                return shown
        # The seek missed the frame, so the file's index is wrong. Decode from the start.
    raise OSError(f"{path}: has no frames that can be decoded")


def _shown(
    frames: Iterable[tuple[int, int, Any]], ticks: list[int], converted: "_Converter"
) -> tuple[Tensor, int | None]:
    """Return the frames shown at the ticks, [channels, T, H, W], and the end of the last frame.

    The end is None unless all frames were read.
    """
    shown: list[Tensor] = []
    current, end = None, None
    for tick, after, frame in frames:
        while ticks[len(shown)] < tick:
            shown.append(converted(frame if current is None else current))
            if len(shown) == len(ticks):
                return torch.stack(shown, dim=1), None
        current, end = frame, after
    return torch.stack(shown + [converted(current)] * (len(ticks) - len(shown)), dim=1), end


def _check_end(path: str | Path, end: int, wanted: int, container: Any, stream: Any) -> None:
    """Raise an error if the file ends long before a wanted frame, but the header gives a greater length.

    Decoders don't report that a file ends too early.
    """
    length = _length(container, stream)
    base = stream.time_base
    if length is not None and min(wanted * base, length) - end * base > TOLERANCE:
        raise OSError(
            f"{path}: ends at {float(end * base):.2f} s, but its header says {float(length):.2f} s; the file is cut"
        )


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """Open a file; yield its container and video stream. Errors of FFmpeg become an OSError without an errno."""
    av = import_av()
    try:
        # Python reads the file, because FFmpeg reports a failing disk and damaged content by the same errno.
        with open(path, "rb") as file, av.open(file, metadata_errors="ignore") as container:
            videos = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            if not videos:
                raise OSError(f"{path}: has no video stream")
            videos[0].codec_context.thread_count = 1  # workers share the cores, so each decodes in one thread
            yield container, videos[0]
    except av.FFmpegError as error:
        raise OSError(f"{path}: can't be decoded ({error.strerror})") from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # a damaged file makes FFmpeg seek to a position that can't exist
            raise OSError(f"{path}: can't be decoded (it refers to positions outside the file)") from error
        raise


def _has_times(container: Any, stream: Any) -> bool:
    """Return whether the file stores when frames are shown, so that a seek finds a frame by its time."""
    name = container.format.name
    if stream.start_time is None or name in SOME_TIMES:
        return False
    return name not in TIMES_OF_DECODING or not stream.codec_context.has_b_frames


def _timed(path: str | Path, container: Any, stream: Any) -> Iterator[tuple[int, int, Any]]:
    """Yield the ticks at which each frame begins and ends, and the frame.

    A frame without a time begins when the previous frame ends.
    """
    by_decoding = container.format.name in TIMES_OF_DECODING
    follows = stream.start_time or 0
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise OSError(f"{path}: has a damaged frame")
        time = frame.dts if by_decoding else frame.pts
        at = follows if time is None else time
        follows = at + (frame.duration or _usual_length(stream))
        yield at, follows, frame


def _usual_length(stream: Any) -> int:
    """Return the length of a frame in ticks, for frames and packets that have no length of their own."""
    return round(1 / ((stream.average_rate or 25) * stream.time_base))


def _length(container: Any, stream: Any) -> Fraction | None:
    """Return the length of the video in seconds from the header, or None if the header has no length or a wrong one."""
    if container.format.name in WRONG_LENGTH or stream.start_time is None:
        return None
    if stream.duration is not None:
        return stream.duration * stream.time_base
    # In Matroska, this tag holds the end of the stream. The container's duration is the end of its longest stream.
    said = stream.metadata.get("DURATION", "")
    if said.count(":") == 2:
        hours, minutes, seconds = said.split(":")
        end = Fraction(hours) * 3600 + Fraction(minutes) * 60 + Fraction(seconds)
    elif container.duration is not None:
        end = Fraction(container.duration, 1_000_000)
    else:
        return None
    length = end - stream.start_time * stream.time_base
    return length if length > 0 else None


def _measured(path: str | Path, container: Any, stream: Any) -> Fraction:
    """Return the length of the video in seconds from its packets."""
    has_times = _has_times(container, stream)
    starts, end, follows = [], 0, 0
    for packet in container.demux(stream):
        if packet.size == 0:  # the last packet only tells the decoder to return its remaining frames
            continue
        time = packet.pts if has_times else packet.dts
        starts.append(follows if time is None else time)
        follows = starts[-1] + (packet.duration or _usual_length(stream))
        end = max(end, follows)
    if not starts:
        raise OSError(f"{path}: neither its header nor its packets give a length")
    return (end - min(starts)) * stream.time_base


class _Converter:
    """Converts decoded frames to uint8 [channels, H, W] of one size. A frame that is shown twice is converted once."""

    def __init__(self, size: int | None, channels: int) -> None:
        self.reformatter = import_av().video.reformatter.VideoReformatter()
        self.size = size
        self.channels = channels
        self.last: tuple[Any, Tensor] | None = None

    def __call__(self, frame: Any) -> Tensor:
        if self.last is None or self.last[0] is not frame:
            scale = 1 if self.size is None else self.size / min(frame.width, frame.height)
            width, height = round(frame.width * scale), round(frame.height * scale)
            rgb = self.reformatter.reformat(frame, width, height, FORMATS[self.channels], interpolation="BILINEAR")
            pixels = torch.from_numpy(rgb.to_ndarray()).view(height, width, self.channels)
            self.last = frame, pixels.permute(2, 0, 1)
        return self.last[1]
