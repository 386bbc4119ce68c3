"""Data modules read clips of videos from folders and from the official lists of UCF101 and Kinetics."""

import shutil
from pathlib import Path

import miniatures
import pytest
import torch
import videos
from conformance.datamodules import equal
from torch.utils.data import default_collate

from ssl_modules.augmentations import ClipViews, RandomResizedCrop, Views
from ssl_modules.batch import read_batch
from ssl_modules.datamodules import (
    KineticsDataModule,
    UCF101DataModule,
    VideoFiles,
    VideoFolderDataModule,
    write_shards,
)
from ssl_modules.datamodules.batches import BatchedFiles
from ssl_modules.datamodules.clips import read_frames
from ssl_modules.datamodules.video_files import draw_starts, even_starts
from ssl_modules.utils.seeds import derive_generator

CLIPS = {"image_size": 24, "decode_size": 24, "frames": 4, "seconds": 0.6}
FPS = 25


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for number, count in enumerate((50, 60, 5, 90)):  # 2 s, 2.4 s, 0.2 s and 3.6 s
        videos.write(root / f"{number}.mp4", count)
    return root


def files(folder, **given):
    return VideoFiles(folder, [f"{number}.mp4" for number in range(4)], torch.arange(4), **{**CLIPS, **given})


def batch(folder, rows, epoch=0, seed=0, **given):
    data = BatchedFiles(files(folder, **given), training=True, seed=seed, return_index=True)
    data.set_epoch(epoch)
    return data.__getitems__(rows)


def expected_numbers(start: float, count: int) -> list[int]:
    """Return the numbers of four frames over 0.6 seconds; after the end of the video, the last frame is repeated."""
    return [min(int((start + step * 0.2) * FPS + 1e-3), count - 1) for step in range(4)]


def test_a_training_batch_has_the_clips_at_its_times(folder):
    clips, targets, index, times = batch(folder, [3, 0, 1], clips=3)
    assert clips.shape == (3, 3, 3, 4, 24, 24)
    assert clips.dtype == torch.uint8
    assert targets.tolist() == index.tolist() == [3, 0, 1]
    assert times.shape == (3, 3)


def test_the_frames_of_a_clip_are_those_at_its_times(folder):
    whole = files(folder, clips=3, decode_size=48, image_size=48)  # all of a frame's height
    for row, count in enumerate((50, 60, 5, 90)):
        pixels, starts = whole.read(row, training=True, generator=torch.Generator().manual_seed(row))
        assert pixels.shape == (3, 3, 4, 48, 64)
        for clip, start in zip(pixels, starts.double().tolist(), strict=True):  # rounded to single precision
            assert videos.numbers(clip) in [expected_numbers(start + shift, count) for shift in (-1e-4, 1e-4)]


def test_training_clips_are_central_squares(folder):
    clips, _, index, times = batch(folder, [0, 3])
    within = torch.linspace(0, 0.6, 4, dtype=torch.float64)
    for video, row, seconds, count in zip(clips, index, times, (50, 90), strict=True):
        exact = draw_starts(count / FPS - 0.6, 2, None, derive_generator(0, "view", 0, row.item()))
        torch.testing.assert_close(exact.float(), seconds)  # batches have them in single precision only
        for clip, start in zip(video, exact.tolist(), strict=True):
            frames = read_frames(folder / f"{row}.mp4", start + within, 24)  # 32 pixels wide
            assert torch.equal(clip, frames[..., 4:28])


def test_training_clips_have_the_decode_size_and_evaluation_clips_the_image_size(folder):
    clips, *_ = batch(folder, [0, 3], decode_size=28)
    assert clips.shape[-2:] == (28, 28)
    evaluated, _ = files(folder, decode_size=28)[3]
    assert evaluated.shape[-2:] == (24, 24)


def test_a_video_that_is_shorter_than_a_clip_repeats_its_last_frame(folder):
    pixels, starts = files(folder, decode_size=48).read(2, training=True, generator=torch.Generator())
    assert starts.tolist() == [0, 0]
    assert videos.numbers(pixels[0]) == [0, 4, 4, 4]


def test_evaluation_clips_are_evenly_spaced(folder):
    whole = files(folder, decode_size=48, image_size=48, eval_clips=5)
    pixels, starts = whole.read(3, training=False, generator=torch.Generator())
    assert starts.tolist() == pytest.approx([0, 0.75, 1.5, 2.25, 3.0])  # of 3.6 s and clips of 0.6 s
    assert [videos.numbers(clip)[0] for clip in pixels] == [0, 18, 37, 56, 75]
    clips, target = whole[3]
    assert clips.shape == (5, *whole.dims)
    assert target == 3
    assert even_starts(3.0, 1).tolist() == [1.5]
    middle = files(folder, decode_size=48, image_size=48, eval_clips=1)
    assert torch.equal(middle[3][0][0], clips[2])


def test_clips_of_one_frame(folder):
    pixels, starts = files(folder, frames=1, decode_size=48, eval_clips=2).read(0, training=False, generator=None)
    assert pixels.shape == (2, 3, 1, 48, 64)
    assert [videos.numbers(clip) for clip in pixels] == [[0], [49]]
    assert starts.tolist() == pytest.approx([0, 2])


def test_gray_clips(folder):
    clips, *_ = batch(folder, [0], in_channels=1)
    assert clips.shape == (1, 2, 1, 4, 24, 24)


def test_a_draw_depends_only_on_seed_epoch_and_row(folder):
    together = batch(folder, [0, 3, 1], epoch=2)
    for place, row in enumerate([0, 3, 1]):
        alone = batch(folder, [row], epoch=2)
        assert all(torch.equal(whole[place], own[0]) for whole, own in zip(together, alone, strict=True))
    for other in (batch(folder, [0, 3, 1], epoch=3), batch(folder, [0, 3, 1], epoch=2, seed=1)):
        assert not torch.equal(other[3], together[3])


def test_workers_do_not_change_the_clips(folder):
    def epoch(num_workers):
        data = VideoFolderDataModule(
            folder, class_folders=False, batch_size=2, num_workers=num_workers, **CLIPS, augmentation=None
        )
        data.setup()
        return list(data.train_dataloader())

    assert equal(epoch(2), epoch(0))


# ---- where clips start


def starts(count=4000, **given):
    generator = torch.Generator().manual_seed(0)
    return torch.stack([draw_starts(generator=generator, **given) for _ in range(count)])


def test_starts_are_uniform_and_independent():
    drawn = starts(longest=8.0, clips=2, apart=None)
    assert 0 <= drawn.min() < 0.05
    assert 7.95 < drawn.max() <= 8
    for column in drawn.unbind(1):
        counts = torch.histc(column, 8, 0, 8)
        assert (counts - 500).abs().max() < 5 * 500**0.5
    assert abs(torch.corrcoef(drawn.T)[0, 1]) < 0.06


@pytest.mark.parametrize("longest", [4.0, 8.0])
def test_distances_are_within_their_limits_and_equally_often_before_and_after(longest):
    apart = [(0.0, 1.0), (2.0, 3.0), (1.0, None)]
    drawn = starts(longest=longest, clips=4, apart=apart)
    assert drawn.min() >= 0
    assert drawn.max() <= longest
    for (least, most), column in zip(apart, drawn.unbind(1)[1:], strict=True):
        distance = (column - drawn[:, 0]).abs()
        assert distance.min() >= least - 1e-12
        assert distance.max() <= (longest if most is None else most) + 1e-12
    signs = (drawn[:, 1] > drawn[:, 0]).double().mean()
    assert abs(signs - 0.5) < 0.05  # equally often before and after
    near_start = drawn[(drawn[:, 0] > 0.25) & (drawn[:, 0] < 0.3)]
    share = (near_start[:, 1] < near_start[:, 0]).double().mean()
    assert share < 0.4  # of 1.27 possible seconds, 0.27 are before the first clip


def test_a_fixed_distance_is_equally_often_before_and_after():
    first, other = starts(longest=10.0, clips=2, apart=[(1.0, 1.0)]).unbind(1)
    assert (other - first).abs().sub(1).abs().max() < 1e-12
    both = (first >= 1) & (first <= 9)
    assert abs((other > first)[both].double().mean() - 0.5) < 0.05
    assert (other > first)[first < 1].all()
    assert (other < first)[first > 9].all()


def test_if_a_video_is_too_short_the_clip_is_as_far_away_as_possible():
    drawn = starts(count=200, longest=1.0, clips=2, apart=[(2.0, 3.0)])
    first, other = drawn.unbind(1)
    assert torch.equal(other, torch.where(first > 0.5, 0.0, 1.0).double())
    assert starts(count=3, longest=0.0, clips=2, apart=[(1.0, 2.0)]).abs().max() == 0


# ---- views, files that can't be read


def test_workers_make_views_of_whole_frames(folder):
    seen = []

    class Seen(Views):
        def make_views(self, images, generator):
            seen.append(images.shape)
            return super().make_views(images, generator)

    part = Seen([RandomResizedCrop(24)], views=1)
    views, targets, index, times = batch(folder, [1, 0], augmentation=ClipViews([part, part], (0, 1)))
    assert [view.shape for view in views] == [(2, 3, 4, 24, 24)] * 2
    assert {view.dtype for view in views} == {torch.uint8}
    assert set(seen) == {(1, 3, 4, 48, 64)}
    again = batch(folder, [1, 0], augmentation=ClipViews([part, part], (0, 1)))
    assert equal([views, targets, index, times], list(again))


def test_an_unreadable_video_is_replaced_and_reported(folder, tmp_path):
    broken = Path(shutil.copytree(folder, tmp_path / "videos"))
    (broken / "1.mp4").write_bytes((broken / "1.mp4").read_bytes()[:500])
    _, targets, index, _ = batch(broken, [0, 1])
    assert targets.tolist() == index.tolist() == [0, 2]
    data = VideoFolderDataModule(broken, class_folders=False, batch_size=2, num_workers=0, **CLIPS)
    data.setup()
    with pytest.warns(UserWarning, match=r"1 of 4 files could not be read .*1\.mp4"):
        assert len(list(data.train_dataloader())) == 2
    with pytest.raises(OSError, match=r"1\.mp4: can't be read .*unreadable='skip'"):
        batch(broken, [1], unreadable="error")


# ---- data modules


def test_batches_are_read_by_the_methods(folder):
    data = VideoFolderDataModule(folder, class_folders=False, batch_size=2, num_workers=0, **CLIPS)
    data.setup()
    [first, *_] = data.train_dataloader()
    read = read_batch(first, in_channels=3)
    assert read.images.shape == (2, 2, 3, 4, 24, 24)
    assert torch.equal(read.index, first[2])
    assert torch.equal(read.times, first[3])
    as_mapping = read_batch(dict(zip(("clips", "label", "index", "times"), first, strict=True)))
    assert torch.equal(as_mapping.images, read.images)
    assert torch.equal(as_mapping.times, read.times)
    plain = VideoFolderDataModule(folder, class_folders=False, batch_size=2, num_workers=0, return_index=False, **CLIPS)
    plain.setup()
    assert [len(batch) for batch in plain.train_dataloader()] == [2, 2]


def test_a_folder_of_videos_has_its_classes(tmp_path):
    miniatures.write_video_folder(tmp_path)
    data = VideoFolderDataModule(tmp_path / "train", test=tmp_path / "test", batch_size=2, num_workers=0, **CLIPS)
    data.setup()
    assert data.class_names == ("jump", "run")
    assert data.train_set.names() == ["jump/1.mp4", "jump/high/2.avi", "run/3.mkv", "run/short.mp4"]
    assert data.train_set.targets.tolist() == [0, 0, 1, 1]
    assert (data.dims, data.mean, data.std) == ((3, 4, 24, 24), (0.45,) * 3, (0.225,) * 3)
    gray = VideoFolderDataModule(tmp_path / "train", in_channels=1)
    assert (gray.dims, gray.mean, gray.std) == ((1, 8, 112, 112), (0.45,), (0.225,))


def test_a_folder_without_videos_raises_an_error_that_lists_the_extensions(tmp_path):
    (tmp_path / "jump").mkdir()
    (tmp_path / "jump" / "1.png").touch()
    with pytest.raises(ValueError, match=r"folders with videos \(\.mp4, .*\.avi"):
        VideoFolderDataModule(tmp_path)
    data = VideoFolderDataModule(tmp_path, class_folders=False)
    with pytest.raises(ValueError, match=r"root: expected videos \(\.mp4, .*got none"):
        data.setup()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seconds": 0}, "seconds: .*got 0"),
        ({"frames": 0}, "frames: .*got 0"),
        ({"clips": 0}, "clips: .*got 0"),
        ({"eval_clips": 0}, "eval_clips: .*got 0"),
        ({"apart": [(0, 1), (1, 2)]}, r"apart: expected \(least, greatest\) for each of the 1 clips after the first"),
        ({"apart": [(2, 1)]}, r"apart: expected 0 <= least <= greatest, in seconds, got \(2, 1\)"),
    ],
)
def test_wrong_arguments_raise_an_error(given, message, folder):
    for build in (lambda: files(folder, **given), lambda: UCF101DataModule(**given)):
        with pytest.raises(ValueError, match=message):
            build()


@pytest.fixture
def ucf101(tmp_path, monkeypatch):
    miniatures.apply(monkeypatch, miniatures.write_ucf101(tmp_path))
    return tmp_path


def test_ucf101_takes_the_class_from_the_folder(ucf101):
    data = UCF101DataModule(ucf101)
    data.setup()
    assert data.class_names == miniatures.UCF101_CLASSES
    assert data.train_set.names() == [*miniatures.UCF101_TRAIN]
    assert data.train_set.targets.tolist() == [0, 0, 1, 2]
    assert data.test_set.names() == [*miniatures.UCF101_TEST]
    assert data.test_set.targets.tolist() == [1, 2]


def test_ucf101_leaves_out_videos_that_are_missing(ucf101):
    (ucf101 / "UCF-101" / miniatures.UCF101_TRAIN[2]).unlink()
    data = UCF101DataModule(ucf101)
    with pytest.warns(UserWarning, match=r"left out 1 of 4 videos of trainlist01\.txt, .*HandStandPushups_g08_c01"):
        data.setup()
    assert data.train_set.targets.tolist() == [0, 0, 2]
    shutil.rmtree(ucf101 / "UCF-101" / "YoYo")
    shutil.rmtree(ucf101 / "UCF-101" / "HandstandPushups")
    with pytest.raises(FileNotFoundError, match=r"v_HandStandPushups_g01_c01\.avi, got no such file.*testlist01\.txt"):
        UCF101DataModule(ucf101).setup()


def test_ucf101_needs_the_lists_of_its_split(ucf101):
    with pytest.raises(FileNotFoundError, match=r"trainlist03\.txt, got no such file or folder; download UCF101\.rar"):
        UCF101DataModule(ucf101, split=3).setup()
    with pytest.raises(ValueError, match=r"split: .*got 4"):
        UCF101DataModule(ucf101, split=4)
    train = ucf101 / "ucfTrainTestlist" / "trainlist01.txt"
    train.write_text(train.read_text().replace("YoYo_g08_c01.avi 3", "YoYo_g08_c01.avi 2"))
    with pytest.raises(ValueError, match=r"trainlist01\.txt, got another class for YoYo/v_YoYo_g08_c01\.avi"):
        UCF101DataModule(ucf101).setup()
    (ucf101 / "ucfTrainTestlist" / "classInd.txt").write_text("1 ApplyEyeMakeup\n")
    with pytest.raises(ValueError, match=r"3 classes, numbered from 1, in classInd\.txt, got 1"):
        UCF101DataModule(ucf101).setup()


@pytest.mark.parametrize("write", [miniatures.write_kinetics, miniatures.write_kinetics_folders])
def test_kinetics_uses_the_videos_that_exist(write, tmp_path):
    write(tmp_path)
    data = KineticsDataModule(tmp_path, num_classes=2)
    data.setup()
    assert (data.name, data.class_names) == ("kinetics-2", ("abseiling", "playing chess"))
    assert data.train_set.names() == [
        "abseiling/Q1_000000_000010.mp4",
        "playing chess/-0a_bC_000003_000013.mp4",
        "playing chess/zz_000010_000020.mp4",
    ]
    assert data.train_set.targets.tolist() == [0, 1, 1]
    assert data.test_set.targets.tolist() == [0]
    with pytest.raises(ValueError, match=r"num_classes: expected the 2 classes .*got 400; pass num_classes=2"):
        KineticsDataModule(tmp_path).setup()


def test_kinetics_takes_labels_from_its_list_in_any_folder(tmp_path):
    miniatures.write_kinetics(tmp_path)
    for path in [*(tmp_path / "train").rglob("*.mp4")]:
        path.rename(tmp_path / "train" / path.name)
    (tmp_path / "train" / "zz_000010_000020.mp4").rename(tmp_path / "train" / "zz.mp4")
    data = KineticsDataModule(tmp_path, num_classes=2)
    data.setup()
    labels = dict(zip(data.train_set.names(), data.train_set.targets.tolist(), strict=True))
    assert labels == {"-0a_bC_000003_000013.mp4": 1, "Q1_000000_000010.mp4": 0, "zz.mp4": 1}


def test_items_of_videos_collate(folder):
    data = BatchedFiles(files(folder, eval_clips=2), return_index=True)
    assert equal(default_collate([data[0], data[3]]), list(data.__getitems__([0, 3])))


def test_videos_are_not_written_to_shards(folder, tmp_path):
    data = VideoFolderDataModule(folder, class_folders=False, **CLIPS)
    with pytest.raises(ValueError, match=r"data: expected images, got clips of dims \[3, 4, 24, 24\]"):
        write_shards(data, tmp_path / "shards")
