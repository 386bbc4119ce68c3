import warnings
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from pictures import assert_same_levels, write_image
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import functional as reference

from ssl_modules.augmentations import RandomResizedCrop, SimCLRViews, Views
from ssl_modules.datamodules import ImageDataModule, ImageFiles, batches
from ssl_modules.datamodules.batches import BatchedFiles, read_all
from ssl_modules.datamodules.decoding import read_image
from ssl_modules.datamodules.finding import find_files, find_labelled
from ssl_modules.datamodules.loader import available_workers

COUNT = 13


@pytest.fixture
def folder(tmp_path):
    """Write images of different sizes and colours."""
    for index in range(COUNT):
        write_image(tmp_path / f"{index:02}.png", 30 + index, 40 - index, value=index * 10)
    return tmp_path


def files(folder, **kwargs):
    names = find_files(folder)
    return ImageFiles(folder, names, torch.arange(len(names)), **{"image_size": 14, **kwargs})


def module(part, **kwargs):
    options = {"num_classes": COUNT, "dims": part.dims, "mean": (0.5,) * 3, "std": (0.5,) * 3, "batch_size": 4}
    data = ImageDataModule(part, part, return_index=True, **{**options, **kwargs})
    data.setup()
    return data


def rows(loader):
    return [index.tolist() for *_, index in loader]


def equal(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return len(first) == len(second) and all(equal(a, b) for a, b in zip(first, second, strict=True))


def break_file(path):
    path.write_bytes(path.read_bytes()[:-30])


def test_an_evaluated_image_is_the_centre_of_the_scaled_one(tmp_path):
    write_image(tmp_path / "x.png", 50, 70)
    image, _ = files(tmp_path, image_size=21, decode_size=24)[0]
    whole = reference.crop(read_image(tmp_path / "x.png"), 0, 10, 50, 50)
    assert_same_levels(image, reference.center_crop(reference.resize(whole, [24, 24], antialias=True), [21, 21]))


def test_the_default_is_256_for_224(tmp_path):
    write_image(tmp_path / "x.png")
    assert files(tmp_path, image_size=224).decode_size == 256


def test_training_batches_are_larger_squares_and_evaluation_is_not(folder):
    data = module(files(folder))
    images, targets, index = next(iter(data.train_dataloader()))
    assert images.shape == (4, 3, 16, 16)
    assert images.is_contiguous()
    assert torch.equal(targets, index)
    assert torch.equal(images[:, 0, 0, 0], (index * 10).to(torch.uint8))
    for loader in (data.test_dataloader(), data.probe_train_dataloader()):
        images, targets, index = (torch.cat(parts) for parts in zip(*loader, strict=True))
        assert images.shape == (COUNT, 3, 14, 14)
        assert index.tolist() == targets.tolist() == list(range(COUNT))
        assert torch.equal(images[:, 2, 5, 5], (index * 10).to(torch.uint8))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("augmentation", [None, "views"], ids=["fast", "in workers"])
def test_batches_do_not_depend_on_workers(folder, augmentation, workers):
    """Batches don't depend on unfinished epochs or on resuming either. Different epochs and seeds give others."""
    if augmentation:
        augmentation = Views([RandomResizedCrop(8)])
    part = files(folder, image_size=8, augmentation=augmentation)

    def epochs(**kwargs):
        loader = module(part, **kwargs).train_dataloader()
        made = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            made.append(list(loader))
        return made

    alone = epochs()
    assert equal(alone, epochs())
    assert equal(alone, epochs(num_workers=workers))
    assert not equal(alone[0][0], alone[1][0])
    assert not equal(alone[0][0], epochs(seed=1)[0][0])
    loader = module(part, num_workers=workers).train_dataloader()
    loader.load_state_dict({"epoch": 1, "images": loader.batch_size})
    assert equal(list(loader), alone[1][1:])
    loader.sampler.set_epoch(0)
    assert equal(next(iter(loader)), alone[0][0])  # persistent workers still hold batches of this epoch
    loader.sampler.set_epoch(1)
    assert equal(list(loader), alone[1])


def test_views_of_an_image_differ_between_epochs_and_seeds_alone(tmp_path):
    write_image(tmp_path / "x.png")
    batches = BatchedFiles(files(tmp_path, image_size=8, augmentation=Views([RandomResizedCrop(8)])), training=True)
    first, again = batches[0], batches[0]
    assert equal(first, again)
    assert not equal(first[0][0], first[0][1])
    batches.set_epoch(1)
    assert not equal(first[0], batches[0][0])
    other = BatchedFiles(batches.files, training=True, seed=1)
    assert not equal(first[0], other[0][0])


def test_views_in_workers_are_drawn_from_the_whole_image(tmp_path):
    write_image(tmp_path / "x.jpg", 90, 120)
    crop = RandomResizedCrop(8, scale=(1.0, 1.0), ratio=(120 / 90, 120 / 90))
    part = files(tmp_path, image_size=8, augmentation=Views([crop], views=3))
    views, _ = BatchedFiles(part, training=True)[0]
    expected = reference.resize(read_image(tmp_path / "x.jpg").float(), [8, 8], antialias=True)
    assert len(views) == 3
    for view in views:
        assert view.dtype == torch.uint8
        assert (view - expected).abs().max() <= 0.5 + 1e-3  # rounded to the nearest level


def test_a_policy_may_be_named(tmp_path):
    write_image(tmp_path / "x.png")
    assert isinstance(files(tmp_path, image_size=32, augmentation="simclr").augmentation, SimCLRViews)


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_files_are_replaced_in_training_and_left_out_of_evaluation(folder, workers):
    break_file(folder / "03.png")
    (folder / "12.png").write_text("no image")
    (folder / "00.png").unlink()
    part = ImageFiles(folder, [f"{index:02}.png" for index in range(COUNT)], torch.arange(COUNT), image_size=14)
    data = module(part, batch_size=13, num_workers=workers)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (batch,) = data.train_dataloader()
        (again,) = data.train_dataloader()
    assert equal(batch, again)
    images, targets, index = batch
    assert sorted(index.tolist()) == [1, 1, 1, 2, 4, 4, 5, 6, 7, 8, 9, 10, 11]  # the next readable image replaces each
    assert torch.equal(targets, index)
    assert torch.equal(images[:, 0, 0, 0], (index * 10).to(torch.uint8))
    (message,) = [str(warning.message) for warning in caught if "could not be read" in str(warning.message)]  # once
    assert message.startswith("3 of 13 files could not be read")
    assert all(str(folder / name) in message for name in ("00.png", "03.png", "12.png"))
    assert rows(data.test_dataloader()) == [[1, 2, 4, 5, 6, 7, 8, 9, 10, 11]]
    assert data.labelled_targets().tolist() == list(range(COUNT))  # still one target per row


def test_what_was_not_yet_told_is_told_at_the_end_of_the_run(folder):
    break_file(folder / "03.png")
    data = module(files(folder))
    next(iter(data.probe_train_dataloader()))  # a probe reads only a part of an epoch
    with pytest.warns(UserWarning, match=r"1 of 13 files could not be read.*03\.png"):
        data.teardown("fit")


def test_many_paths_are_not_all_shown(folder):
    names = [f"{index}.png" for index in range(30)]
    part = ImageFiles(folder, names, image_size=14)
    part.unread[:] = True
    with pytest.warns(UserWarning, match="30 of 30 files could not be read.* and 10 more"):
        part.report()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_on_request(folder, workers):
    break_file(folder / "03.png")
    data = module(files(folder, unreadable="error"), num_workers=workers)
    with pytest.raises(OSError, match=r"03\.png: can't be read \(.*\); remove it, or pass unreadable='skip'"):
        list(data.test_dataloader())


def test_a_batch_is_never_empty(folder):
    break_file(folder / "03.png")
    part = files(folder)
    assert rows(module(part, batch_size=1).test_dataloader()) == [[row] for row in (0, 1, 2, 0, *range(4, COUNT))]


def test_nothing_to_read_is_an_error(folder):
    for path in folder.iterdir():
        path.write_text("no image")
    data = module(files(folder))
    for loader in (data.train_dataloader(), data.test_dataloader()):
        with pytest.raises(
            ValueError, match=r"expected images in .*, got 13 files that can't be read; unreadable='error' says why"
        ):
            list(loader)


def test_errors_of_an_augmentation_are_no_unreadable_files(folder):
    class Broken(Views):
        def make_views(self, images, generator):
            raise ValueError("a mistake")

    part = files(folder, image_size=8, augmentation=Broken([RandomResizedCrop(8)]))
    with pytest.raises(ValueError, match="a mistake"):
        BatchedFiles(part, training=True)[0]


def test_in_memory_holds_what_files_hold(folder):
    part = files(folder, decode_size=14)
    for workers in (0, 1):
        held = read_all(part, workers)
        for row in range(COUNT):
            assert equal(held[row], part[row])
    break_file(folder / "03.png")
    with pytest.warns(UserWarning, match="1 of 13"):
        assert read_all(files(folder)).targets.tolist() == [0, 1, 2, *range(4, COUNT)]


@pytest.mark.parametrize("broken", [[0, 1], [4, 5], [12], [0, 1, 12], list(range(12))])
def test_in_memory_holds_no_image_twice(folder, monkeypatch, broken):
    """No image occurs twice, even if no image of a batch can be read."""
    monkeypatch.setattr(batches, "IN_MEMORY_BATCH", 2)
    for row in broken:
        break_file(folder / f"{row:02}.png")
    with pytest.warns(UserWarning, match=f"{len(broken)} of 13"):
        assert read_all(files(folder)).targets.tolist() == [row for row in range(COUNT) if row not in broken]


def test_a_part_is_selected_by_rows(folder):
    part = files(folder, image_size=7, decode_size=9, unreadable="error")
    some = part.select(torch.tensor([5, 2]))
    assert [equal(some[0], part[5]), equal(some[1], part[2]), len(some)] == [True, True, 2]
    assert (some.image_size, some.decode_size, some.unreadable) == (7, 9, "error")
    data = module(part, val_size=3)
    parts = [data.labelled_set.targets.tolist(), data.val_set.targets.tolist()]
    assert sorted(parts[0] + parts[1]) == list(range(COUNT))
    assert len(parts[1]) == 3


@pytest.mark.parametrize("augmentation", [None, Views([RandomResizedCrop(8)])], ids=["fast", "in workers"])
def test_processes_share_the_epoch_and_make_the_same_views(folder, augmentation):
    part = files(folder, image_size=8, augmentation=augmentation)
    whole = module(part, batch_size=12).train_dataloader()
    ((views, _, index),) = whole
    for rank in range(2):
        loader = module(part, batch_size=6).train_dataloader()
        loader.sampler.num_replicas, loader.sampler.rank, loader.sampler.total_size = 2, rank, 12
        ((own, _, own_index),) = loader
        assert torch.equal(own_index, index[rank::2])
        torch.testing.assert_close(own, [view[rank::2] for view in views] if augmentation else views[rank::2])


def test_workers_of_any_kind_share_epoch_and_unread(folder):
    """Pickles the data set, as spawned workers receive it. Forked workers are copies of the process instead."""
    batches = BatchedFiles(files(folder, augmentation="simclr", image_size=32), training=True)
    sent = ForkingPickler.loads(ForkingPickler.dumps(batches))
    batches.set_epoch(3)
    sent.files.unread[4] = True
    assert int(sent.epoch) == 3
    assert batches.files.unread[4]
    assert equal(sent[2], batches[2])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"image_size": 0}, "image_size: expected a number of at least 1, got 0"),
        ({"decode_size": 13}, "decode_size: expected at least image_size=14, got 13"),
        ({"in_channels": 4}, "in_channels: expected 1 .* or 3 .*, got 4"),
        (
            {"augmentation": SimCLRViews(32)},
            r"augmentation: expected views of image_size=14 pixels, got views of \[32\]",
        ),
        ({"unreadable": "ignore"}, "unreadable: expected 'skip' or 'error', got 'ignore'"),
    ],
)
def test_bad_arguments_are_named(folder, kwargs, message):
    with pytest.raises(ValueError, match=message):
        files(folder, **kwargs)


def test_paths_and_targets_must_agree(folder):
    with pytest.raises(ValueError, match="paths: expected at least one image in"):
        ImageFiles(folder, [], image_size=8)
    with pytest.raises(ValueError, match="targets: expected one for each of 1 images, got 2"):
        ImageFiles(folder, ["00.png"], torch.zeros(2, dtype=torch.int64), image_size=8)
    with pytest.raises(TypeError, match=r"targets: expected integers, got torch.float32"):
        ImageFiles(folder, ["00.png"], torch.zeros(1), image_size=8)
    with pytest.raises(ValueError, match=r"train: expected images of dims \[3, 16, 16\], got \[3, 14, 14\]"):
        module(files(folder), dims=(3, 16, 16))
    with pytest.raises(ValueError, match=r"train: expected targets from 0 to below \[3\]"):
        module(files(folder), num_classes=3)


def test_folders_are_searched_as_torchvision_does(tmp_path):
    for name in ("b/2.JPG", "b/deep/er/1.png", "a/3.jpeg", "a/x é.webp"):
        write_image(tmp_path / name)
    reference_set = ImageFolder(str(tmp_path))
    for name in ("b/.hidden.png", "b/.cache/1.png", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    paths, targets = find_labelled(tmp_path, ["a", "b"])
    found = {(str(tmp_path / path), target) for path, target in zip(paths, targets.tolist(), strict=True)}
    assert found == set(reference_set.samples)
    assert find_files(tmp_path) == sorted(paths)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "animation.gif").touch()
    with pytest.raises(
        ValueError, match=r"c: expected images of class 'c' \(\.jpg, .*\), got none; add some, or remove the folder"
    ):
        find_labelled(tmp_path, ["a", "c"])
    with pytest.raises(FileNotFoundError, match="expected a folder of class 'd', got none"):
        find_labelled(tmp_path, ["a", "d"])


def test_links_folders_and_names_of_all_kinds(tmp_path):
    inside = tmp_path / "inside"
    write_image(inside / "a" / "1.jpg")
    write_image(inside / "a" / "1.png")  # same stem
    write_image(inside / "a" / "猫 ñ.jpg")
    write_image(inside / "album.jpg" / "2.jpg")  # in a folder whose name has an image extension
    write_image(tmp_path / "outside" / "3.jpg")
    (inside / "linked.jpg").symlink_to(tmp_path / "outside" / "3.jpg")
    (inside / "linked").symlink_to(tmp_path / "outside")
    (inside / "again").symlink_to(inside / "a")
    (inside / "a" / "up").symlink_to(inside)  # a cycle
    found = find_files(inside)
    assert found == ["a/1.jpg", "a/1.png", "a/猫 ñ.jpg", "album.jpg/2.jpg", "linked.jpg", "linked/3.jpg"]
    part = ImageFiles(inside, found, image_size=8, unreadable="error")
    assert part.names() == found
    assert [part[row][0].shape for row in range(len(part))] == [(3, 8, 8)] * 6
    (inside / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert "broken.jpg" in find_files(inside)  # found, so that reading it can warn


def test_workers_are_as_many_as_cores_but_no_more_than_8():
    assert 1 <= available_workers() <= 8
