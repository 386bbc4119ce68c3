"""Measure clips per second on one core with PyAV, torchcodec and decord, and how much of a training step is loading.

    python examples/benchmarks/decoding.py [--videos 4] [--clips 12] [--threads 1]

A clip has 16 frames that are 4 frames apart, and begins at a random place of the video. The videos have ten seconds and
456 x 256 pixels, are encoded as H.264, and show a textured background that moves. They have either only one key frame
or one every 12 frames. The time includes opening the file, seeking, decoding and making the tensor. It is the processor
time on all cores, and values are medians over the videos. Libraries that aren't installed, or don't find FFmpeg, are
left out.

The script also measures how much of SimCLR's training step is loading: with r3d_18 and clips of 112 pixels, and with
r3d_small and clips of 32 pixels. Each video gives two clips of 8 frames. Everything runs in one process.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from timing import machine

from ssl_modules import SimCLR
from ssl_modules.augmentations import ClipViews, SimCLRViews
from ssl_modules.datamodules import VideoFolderDataModule
from ssl_modules.datamodules.clips import read_frames, write_video

FPS, SECONDS, FRAMES, STRIDE = 30, 10, 16, 4
Reader = Callable[[Path, int], Any]  # reads a clip, given the file and the number of the first frame


def write(path: Path, seed: int, group: int) -> None:
    """Write a video of a textured background that moves and changes slowly."""
    generator = torch.Generator().manual_seed(seed)
    ground = torch.rand(1, 3, 40, 70, generator=generator)
    wide = torch.nn.functional.interpolate(ground, (320, 560), mode="bicubic").clamp(0, 1)[0]
    grain = 0.1 * torch.rand(3, 320, 560, generator=generator)
    frames = []
    for number in range(FPS * SECONDS):
        top, left = number % 64, 2 * number % 100
        frames.append((wide + grain)[:, top : top + 256, left : left + 456].clamp(0, 1))
    write_video(path, (torch.stack(frames, 1) * 255).to(torch.uint8), FPS, g=str(group), crf="23", preset="veryfast")


def pyav(path: Path, first: int) -> Any:
    return read_frames(path, [(first + STRIDE * step) / FPS for step in range(FRAMES)])


def torchcodec() -> Reader:
    from torchcodec.decoders import VideoDecoder  # noqa: PLC0415

    def read(path: Path, first: int) -> Any:
        decoder = VideoDecoder(str(path), num_ffmpeg_threads=1)
        return decoder.get_frames_at([first + STRIDE * step for step in range(FRAMES)]).data

    return read


def decord() -> Reader:
    import decord as library  # noqa: PLC0415

    def read(path: Path, first: int) -> Any:
        reader = library.VideoReader(str(path), num_threads=1)
        frames = reader.get_batch([first + STRIDE * step for step in range(FRAMES)]).asnumpy()
        return torch.from_numpy(frames).permute(0, 3, 1, 2)

    return read


def readers() -> dict[str, Reader]:
    found: dict[str, Reader] = {"PyAV": pyav}
    for make in (torchcodec, decord):
        try:
            found[make.__name__] = make()
        except (ImportError, RuntimeError, OSError) as error:
            print(f"{make.__name__} is left out: {str(error).splitlines()[0]}")
    return found


def compare(folder: Path, videos: int, clips: int) -> None:
    """Print clips per second on one core for each library. All libraries read the same clips."""
    library = readers()
    for name, group in (("one key frame", 1000), ("a key frame in 12", 12)):
        paths = [folder / f"{group}-{index}.mp4" for index in range(videos)]
        for index, path in enumerate(paths):
            write(path, index, group)
        starts = torch.randint(FPS * SECONDS - FRAMES * STRIDE, (clips,), generator=torch.Generator().manual_seed(0))
        rates: dict[str, list[float]] = {key: [] for key in library}
        for path in paths:
            for key, read in library.items():
                before = time.process_time()
                for first in starts.tolist():
                    read(path, first)
                rates[key].append(clips / (time.process_time() - before))
        print(f"{name}: " + ", ".join(f"{key} {median(values):.1f}" for key, values in rates.items()), flush=True)


def share(folder: Path, encoder: str, size: int, videos: int, batch_size: int) -> None:
    """Print how much of SimCLR's training step is loading."""
    for index in range(videos):
        path = folder / f"{size}" / f"{index}.mp4"
        path.parent.mkdir(exist_ok=True)
        write(path, index, 12)
    data = VideoFolderDataModule(
        folder / f"{size}", class_folders=False, image_size=size, batch_size=batch_size, num_workers=0
    )
    data.setup()
    view = SimCLRViews(size, views=1)
    module = SimCLR(ClipViews([view, view], clips=(0, 1)), encoder, image_size=size, mean=data.mean, std=data.std)
    loading, all_of_it = 0.0, 0.0
    for _ in range(2):
        before = time.process_time()
        for batch in data.train_dataloader():
            loaded = time.process_time()
            module.training_step(batch, 0)["loss"].backward()
            loading, all_of_it = loading + loaded - before, all_of_it + time.process_time() - before
            before = time.process_time()
    print(f"{encoder}, {size} px: loading takes {100 * loading / all_of_it:.0f} % of a step", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(machine())
    with TemporaryDirectory() as folder:
        compare(Path(folder), given.videos, given.clips)
        share(Path(folder), "r3d_small", 32, 8, 4)
        share(Path(folder), "r3d_18", 112, 8, 4)


if __name__ == "__main__":
    main()
