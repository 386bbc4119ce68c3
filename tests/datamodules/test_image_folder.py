import multiprocessing
import os
import signal
import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from miniatures import write_image_folder
from pictures import one_epoch, write_image

from ssl_modules.augmentations import RandomResizedCrop, Views
from ssl_modules.datamodules import ImageFolderDataModule


@pytest.fixture
def root(tmp_path):
    """Write two classes of mixed sizes, formats and modes."""
    write_image_folder(tmp_path)
    return (tmp_path / "train").rename(tmp_path / "pets")


def data(root, **kwargs):
    return ImageFolderDataModule(root, **{"batch_size": 2, "image_size": 16, "num_workers": 0, **kwargs})


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_mixed_folder_with_classes(root, in_memory, channels):
    module = data(root, test=root.parent / "test", in_memory=in_memory, in_channels=channels)
    one_epoch(module, train=6, labelled=6, test=2)
    assert (module.name, module.class_names, module.num_classes) == ("pets", ("cat", "dog"), 2)
    assert module.train_set.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(module.mean) == channels
    images, _ = next(iter(module.train_dataloader()))
    assert images.shape == (2, channels, *([16, 16] if in_memory else [18, 18]))


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_tree_without_classes(root, in_memory):
    module = data(root.parent, class_folders=False, in_memory=in_memory)
    one_epoch(module, train=8, labelled=0, test=None)
    assert module.target_type == "none"
    assert all((targets == -1).all() for _, targets in module.train_dataloader())
    with pytest.raises(ValueError, match="has no targets"):
        module.probe_train_dataloader()


def test_statistics_are_imagenets_unless_given(root):
    assert data(root).mean == (0.485, 0.456, 0.406)
    assert data(root, in_channels=1).std == pytest.approx((0.226,), abs=1e-3)
    assert data(root, in_channels=1, mean=[0.3], std=[0.2]).mean == (0.3,)


def test_folders_may_be_in_the_home_folder(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    module = data("~/pets", test="~/test")
    assert (module.root, module.test) == (str(root), str(root.parent / "test"))


def test_errors_say_what_is_wrong_with_a_folder(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"root: expected .*nowhere, got no such file or folder"):
        data(tmp_path / "nowhere")
    (tmp_path / "flat").mkdir()
    with pytest.raises(
        ValueError,
        match=r"class_folders: expected folders with images .*flat, got no folders; give the folder that holds",
    ):
        data(tmp_path / "flat")
    with pytest.raises(
        ValueError, match=r"root: expected images \(\.jpg, .*\) in .*flat, got none; give the folder of your images"
    ):
        data(tmp_path / "flat", class_folders=False).setup()
    with pytest.raises(FileNotFoundError, match=r"expected .*missing, got no such file or folder"):
        data(root, test=tmp_path / "missing").setup()
    write_image(root / "album.png" / "1.png")  # a class that is named like a file
    assert data(root).class_names == ("album.png", "cat", "dog")
    write_image(root / "stray.png")
    with pytest.raises(
        ValueError,
        match=r"class_folders: expected all images in class folders, got 1 beside them in .*pets, such as stray.png",
    ):
        data(root)
    with pytest.raises(ValueError, match=r"in_memory: .*decode_size=20"):
        data(root, class_folders=False, in_memory=True, decode_size=20)


def without_warnings(build):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return build()


@pytest.mark.parametrize("place", [".", "cat"])
def test_folders_that_operating_systems_add_are_ignored(root, place):
    paths = data(root).load()[0].names()
    for name in ("__MACOSX/cat/._1.png", "@eaDir/1.png/small.jpg", "$RECYCLE.BIN/1.png", ".cache/1.png"):
        write_image(root / place / name)
    module = without_warnings(lambda: data(root))
    assert module.class_names == ("cat", "dog")
    assert module.load()[0].names() == paths


def test_folders_without_images_are_not_classes(root):
    (root / "bird").mkdir()
    (root / "notes" / "deep").mkdir(parents=True)
    (root / "notes" / "deep" / "a.txt").touch()
    with pytest.warns(UserWarning, match="pets: left out 2 folders without images: bird, notes"):
        module = data(root)
    module.setup()
    assert module.class_names == ("cat", "dog")
    assert len(module.train_set) == 6


def test_a_test_folder_may_lack_classes_and_have_others(root, tmp_path):
    test = tmp_path / "some"
    write_image(test / "dog" / "1.png")
    write_image(test / "wolf" / "1.png")
    (test / "fox").mkdir()
    module = data(root, test=test)
    with pytest.warns(UserWarning, match="some: left out 1 folder without images: fox") as record:
        module.setup()
    found = [str(warning.message) for warning in record]
    assert any("some: left out folders of classes without training images: wolf" in text for text in found)
    assert any("some: 1 of 2 classes have no images: cat" in text for text in found)
    assert module.test_set.targets.tolist() == [1]
    (test / "dog").rename(test / "Dog")
    with pytest.raises(
        ValueError,
        match=r"test: expected folders with the names of the classes in .*, cat, dog, got Dog, wolf in .*; rename",
    ):
        data(root, test=test).setup()
    (test / "Dog").rename(test / "dog")
    data(root, test=test).setup()


def test_links_put_no_image_into_two_classes(root):
    names = data(root).load()[0].names()
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "out").symlink_to(root.parent)
    (root / "cat" / "dogs").symlink_to(root / "dog")
    (root / "cat" / "again").symlink_to(root / "cat")
    (root / "all").symlink_to(root)
    module = without_warnings(lambda: data(root))
    assert module.class_names == ("cat", "dog")
    assert module.load()[0].names() == names
    (root / "hound").symlink_to(root / "dog")
    with pytest.raises(ValueError, match=r"one folder for each class .*, got dog and hound, which are the same folder"):
        data(root)
    (root / "hound").unlink()
    data(root)


def test_a_class_may_be_a_link_to_a_folder_elsewhere(root, tmp_path):
    before = data(root)
    (root / "cat").rename(tmp_path / "cats")
    (root / "cat").symlink_to(tmp_path / "cats")
    (tmp_path / "cats" / "dogs").symlink_to(root / "dog")
    module = data(root)
    assert module.class_names == before.class_names
    assert module.load()[0].targets.tolist() == [0, 0, 0, 1, 1, 1]


def test_one_log_line_counts_the_other_files(root, caplog):
    for name in ("cat/notes.txt", "dog/more.TXT", "dog/film.heic", "cat/LICENSE"):
        (root / name).touch()
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        data(root).setup()
    lines = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert lines == [f"{root}: left out 4 files without an image extension: 2 .txt, 1 no extension, 1 .heic"]


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_relative_root_survives_a_change_of_directory(root, tmp_path, monkeypatch, in_memory):
    monkeypatch.chdir(root.parent)
    module = data(root.name, test="test", in_memory=in_memory)
    assert module.arguments["root"] == root.name
    monkeypatch.chdir(tmp_path.parent)
    one_epoch(module, train=6, labelled=6, test=2)


class Recorder(LightningModule):
    """Keeps the rows of each training step, and calls ``at`` before a given step."""

    def __init__(self, at=None, step=1):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.at, self.step = at, step
        self.seen = []

    def training_step(self, batch, batch_idx):
        views, _, index = batch
        if self.at and self.global_step == self.step:
            self.at()
        self.seen.append((self.current_epoch, index.tolist(), [view.sum().item() for view in views]))
        return self.weight * 1.0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def many(tmp_path):
    for index in range(24):
        write_image(tmp_path / "many" / f"{index:02}.png", value=index * 10)
    return tmp_path / "many"


def fit(many, tmp_path, module, epochs=2, **kwargs):
    views = Views([RandomResizedCrop(8)])
    source = data(many, class_folders=False, image_size=8, return_index=True, augmentation=views, **kwargs)
    trainer = Trainer(
        default_root_dir=tmp_path,
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, source)
    return module.seen


def kill_a_worker():
    """Kill the newest child process."""
    workers = multiprocessing.active_children()
    os.kill(max(worker.pid for worker in workers), signal.SIGKILL)
    for worker in workers:
        worker.join(0.5)


def test_a_killed_worker_loses_no_epoch(many, tmp_path):
    undisturbed = fit(many, tmp_path, Recorder())
    with pytest.warns(UserWarning, match=r"a DataLoader worker died .* at batch \d+ of the epoch"):
        seen = fit(many, tmp_path, Recorder(at=kill_a_worker), num_workers=2)
    assert seen == undisturbed


def test_a_corrupt_file_loses_no_epoch(many, tmp_path):
    path = many / "11.png"
    path.write_bytes(path.read_bytes()[:40])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seen = fit(many, tmp_path, Recorder())
    assert len(seen) == 24
    for epoch in range(2):
        rows = sorted(row for number, index, _ in seen if number == epoch for row in index)
        assert rows == [*range(11), 12, 12, *range(13, 24)]
    told = [str(warning.message) for warning in caught if "could not be read" in str(warning.message)]
    assert len(told) == 1
    assert told[0].startswith("1 of 24 files could not be read and were left out")
    assert str(path) in told[0]
