"""Write small videos whose frames show their own number, encoded by PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from ssl_modules.datamodules.clips import write_video

HEIGHT, WIDTH, BITS = 48, 64, 7  # smallest size that FFmpeg's H.264 encoder takes at good quality


def numbered(count: int, first: int = 0) -> Tensor:
    """Return frames uint8 [3, T, H, W] of moving stripes; the upper third shows the frame's number as binary bars."""
    columns = torch.arange(WIDTH)[None, None, :] + 3 * torch.arange(count)[:, None, None]
    stripes = (torch.sin(columns / 5) * 60 + 120).expand(count, HEIGHT, WIDTH).clone()
    for number in range(count):
        for bit in range(BITS):
            stripes[number, : HEIGHT // 3, bit * 9 : bit * 9 + 9] = 255 * ((number + first) >> bit & 1)
    return stripes.to(torch.uint8)[None].expand(3, -1, -1, -1)


def numbers(frames: Tensor) -> list[int]:
    """Read the numbers of frames [ch, T, H, W] of any size."""
    _, count, height, width = frames.shape
    bars = [frames[0, :, height // 6, round((bit * 9 + 4.5) * width / WIDTH)] > 127 for bit in range(BITS)]
    return [sum(int(bar[t]) << bit for bit, bar in enumerate(bars)) for t in range(count)]


def write(path: Path, count: int = 50, fps: int = 25, codec: str = "libx264", **options: str) -> Path:
    """Write a video of numbered frames, with a key frame at least every 12 frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, numbered(count), fps, codec, **{"g": "12", **options})
    return path


def write_at(path: Path, milliseconds: list[int]) -> Path:
    """Write a video whose frames, numbered from 0, begin at the given times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "12", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for pixels, at in zip(numbered(len(milliseconds)).permute(1, 2, 3, 0).numpy(), milliseconds, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = at, stream.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def index_first(path: Path) -> Path:
    """Move the index of an MP4 file to its start, as for streaming."""
    moved = path.with_name("moved.mp4")
    with av.open(str(path)) as old, av.open(str(moved), "w", options={"movflags": "faststart"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return moved.replace(path)


def write_sound(path: Path) -> Path:
    """Write a second of silence, without pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        for start in range(0, 8000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts = 8000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
