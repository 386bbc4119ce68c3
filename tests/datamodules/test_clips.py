import builtins
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
import videos

from ssl_modules.datamodules.clips import duration, read_frames
from ssl_modules.datamodules.unreadable import SystemFault

FPS = 25
FORMATS = {
    "closed groups": ("a.mp4", {}),
    "one key frame": ("a.mp4", {"g": "250"}),
    "open groups": ("a.mp4", {"x264-params": "open-gop=1:bframes=3"}),
    "MPEG-4 in MP4": ("a.mp4", {"codec": "mpeg4", "bf": "2"}),
    "QuickTime": ("a.mov", {}),
    "Matroska": ("a.mkv", {}),
    "MPEG-4 in Matroska": ("a.mkv", {"codec": "mpeg4", "bf": "2"}),
    "VP8": ("a.webm", {"codec": "libvpx"}),
    "VP9": ("a.webm", {"codec": "libvpx-vp9", "cpu-used": "8"}),
    "Ogg": ("a.ogv", {"codec": "libvpx"}),
    "MPEG-4 in AVI": ("a.avi", {"codec": "mpeg4"}),
    "MPEG-4 in AVI, with B-frames": ("a.avi", {"codec": "mpeg4", "bf": "2"}),
    "H.264 in AVI, without B-frames": ("a.avi", {"bf": "0"}),
    "H.264 in AVI, with B-frames": ("a.avi", {"bf": "3"}),
    "H.264 in AVI, open groups": ("a.avi", {"x264-params": "open-gop=1:bframes=5:b-pyramid=normal"}),
    "WMV": ("a.wmv", {"codec": "wmv2"}),
    "MPEG-4 in WMV, with B-frames": ("a.wmv", {"codec": "mpeg4", "bf": "2"}),
    "H.264 in WMV, with B-frames": ("a.wmv", {}),
    "Flash": ("a.flv", {"codec": "flv"}),
    "H.264 in Flash": ("a.flv", {}),
    "a program stream of MPEG-1": ("a.mpg", {"codec": "mpeg1video", "bf": "2"}),
    "a program stream of MPEG-2": ("a.mpg", {"codec": "mpeg2video", "bf": "2"}),
    "a program stream without B-frames": ("a.mpg", {"codec": "mpeg2video"}),
    "a program stream of H.264": ("a.mpg", {"x264-params": "open-gop=1:bframes=3"}),
    "a transport stream, whose index is inexact": ("a.ts", {"x264-params": "open-gop=1:bframes=3"}),
    "a transport stream of MPEG-2": ("a.ts", {"codec": "mpeg2video", "bf": "2"}),
    "a raw stream of MPEG-2": ("a.m2v", {"codec": "mpeg2video", "bf": "2"}),
    "a raw stream of H.264": ("a.h264", {"bf": "3"}),
}


@pytest.fixture(scope="module", params=FORMATS)
def video(request, tmp_path_factory):
    name, options = FORMATS[request.param]
    return videos.write(tmp_path_factory.mktemp("videos") / name, **options)


def test_a_seek_gives_the_frame_of_a_full_decode(video):
    for first in range(0, 50, 7):
        times = [frame / FPS for frame in range(first, 50, 5)]
        assert videos.numbers(read_frames(video, times)) == list(range(first, 50, 5))


def test_pixels_equal_those_of_a_full_decode(video):
    with av.open(str(video)) as container:
        whole = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    read = read_frames(video, [0.4, 1.2])
    for frame, row in zip(read.unbind(1), (10, 30), strict=True):
        assert torch.equal(frame, torch.from_numpy(whole[row]).permute(2, 0, 1))


def test_between_two_frames_the_earlier_one_is_shown_and_after_the_end_the_last(video):
    frames = read_frames(video, [0.019, 0.039, 0.041, 0.041, 1.999, 2.0, 60.0])
    assert videos.numbers(frames) == [0, 0, 1, 1, 49, 49, 49]


def test_the_duration_is_that_of_all_frames(video):
    assert duration(video) == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize(("size", "shape"), [(None, (48, 64)), (24, (24, 32)), (60, (60, 80))])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_shorter_side_has_the_size(size, shape, channels, tmp_path):
    frames = read_frames(videos.write(tmp_path / "a.mp4"), [0.4, 0.8], size, channels)
    assert frames.shape == (channels, 2, *shape)
    assert frames.dtype == torch.uint8
    assert videos.numbers(frames) == [10, 20]


def test_a_variable_rate_is_read_by_time(tmp_path):
    path = videos.write_at(tmp_path / "a.mp4", [0, 100, 120, 500, 1400, 1500])
    assert videos.numbers(read_frames(path, [0.05, 0.11, 0.49, 0.5, 1.3, 1.45])) == [0, 1, 2, 3, 3, 4]


@pytest.mark.parametrize("ending", ["mkv", "flv"])
def test_times_and_duration_count_from_the_first_frame(ending, tmp_path):
    path = videos.write_at(tmp_path / f"a.{ending}", list(range(5000, 7000, 40)))
    assert videos.numbers(read_frames(path, [0.0, 0.4, 1.96, 9.0])) == [0, 10, 49, 49]
    assert videos.numbers(read_frames(path, [1.2, 1.96])) == [30, 49]
    assert duration(path) == pytest.approx(2.0, abs=1e-6)


def test_a_video_of_one_frame_repeats_it(tmp_path):
    path = videos.write(tmp_path / "a.mp4", count=1)
    assert videos.numbers(read_frames(path, [0.0, 0.5, 9.0])) == [0, 0, 0]
    assert duration(path) == pytest.approx(1 / FPS)


@pytest.mark.parametrize("start", [0, 5])
def test_a_file_without_a_duration_is_measured(start, tmp_path):
    path = tmp_path / "a.mkv"
    with open(path, "wb") as file, av.open(_Pipe(file), "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = videos.WIDTH, videos.HEIGHT, "yuv420p"
        for number, pixels in enumerate(videos.numbered(50).permute(1, 2, 3, 0).contiguous().numpy()):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number + start * FPS, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert container.duration is None
    assert duration(path) == pytest.approx(2.0, abs=0.05)
    assert videos.numbers(read_frames(path, [0.2, 1.8])) == [5, 45]


class _Pipe:
    """A file that can't seek, so PyAV writes the header without the duration."""

    def __init__(self, file):
        self.file = file

    def write(self, content):
        return self.file.write(content)


def _half(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def _flipped(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 3, len(content) // 2, 50):
        content[place] ^= 0x55
    path.write_bytes(content)
    return path


def _with(content: bytes):
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


BROKEN = {
    "cut before its index": ("a.mp4", lambda path: _half(videos.write(path))),
    "cut after its index": ("a.mp4", lambda path: _half(videos.index_first(videos.write(path)))),
    "AVI, cut": ("a.avi", lambda path: _half(videos.write(path, codec="mpeg4"))),
    "Matroska, cut": ("a.mkv", lambda path: _half(videos.write(path))),
    "flipped bits": ("a.mp4", lambda path: _flipped(videos.write(path, g="250"))),
    "empty": ("a.mp4", _with(b"")),
    "text": ("a.mp4", _with(b"no video")),
    "a web page": ("a.mp4", _with(b"<!DOCTYPE html><html>Sign in</html>" * 50)),
    "only sound": ("a.mp4", videos.write_sound),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_raises_an_error_with_its_path(kind, tmp_path):
    name, make = BROKEN[kind]
    path = make(tmp_path / name)
    with pytest.raises(OSError, match=r"a\.(mp4|avi|mkv): ") as caught:
        read_frames(path, [0.0, 1.9])
    assert not isinstance(caught.value, SystemFault)
    assert caught.value.errno is None


def _damaged_frames(path: Path) -> int:
    """Count the frames that FFmpeg decodes but marks as damaged."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return sum(frame.is_corrupt for frame in container.decode(video=0))


def test_a_frame_that_is_decoded_but_damaged_raises_an_error(tmp_path):
    path = videos.write(tmp_path / "a.mpg", codec="mpeg2video")
    content = path.read_bytes()
    places = range(len(content) // 4, len(content), 97)
    assert read_frames(path, [1.9]).shape[1] == 1
    for place in places:
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        if _damaged_frames(path):
            break
    with pytest.raises(OSError, match=r"a\.mpg: has a damaged frame"):
        read_frames(path, [0.0, 1.9])


def test_a_missing_file_raises_file_not_found(tmp_path):
    for read in (duration, lambda path: read_frames(path, [0.0])):
        with pytest.raises(FileNotFoundError, match=r"none\.mp4"):
            read(tmp_path / "none.mp4")


def test_an_error_of_the_system_is_not_an_error_of_the_file(tmp_path, monkeypatch):
    path, opened = videos.write(tmp_path / "a.mp4"), builtins.open

    def refused(file, *arguments, **options):
        if file == path:
            raise OSError(24, "Too many open files")
        return opened(file, *arguments, **options)

    monkeypatch.setattr(builtins, "open", refused)
    with pytest.raises(SystemFault, match="ulimit"):
        read_frames(path, [0.0])


@pytest.mark.parametrize("times", [[], [-0.1], [1.0, 0.5]])
def test_times_are_checked(times, tmp_path):
    with pytest.raises(ValueError, match="times: expected one or more seconds from 0 on, in ascending order, got"):
        read_frames(tmp_path / "a.mp4", times)


def test_without_the_library_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ssl-modules\[video\]'"):
        duration(tmp_path / "a.mp4")
