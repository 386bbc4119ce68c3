import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from miniatures import (
    COCO_IDS,
    COCO_OBJECTS,
    COCO_TRAIN,
    COCO_UNLABELED,
    COCO_VAL,
    coco_name,
    write_coco,
    write_coco_split,
)
from pictures import one_epoch, site
from torchvision.models._meta import _COCO_CATEGORIES

from ssl_modules.datamodules import COCODataModule


@pytest.fixture
def root(tmp_path):
    write_coco(tmp_path)
    return tmp_path


def data(root, **kwargs):
    return COCODataModule(root, **{"batch_size": 2, "image_size": 14, "num_workers": 0, **kwargs})


def ids(part):
    return [int(part.path(row).stem) for row in range(len(part))]


def test_targets_are_what_is_in_the_image(root):
    module = data(root)
    one_epoch(module, train=10, labelled=10, test=3)
    assert module.class_names == tuple(_COCO_CATEGORIES[number] for number in COCO_IDS)
    assert ids(module.train_set) == list(COCO_TRAIN)
    expected = [list(pair) for pair in COCO_OBJECTS[:40]]
    found = [[COCO_TRAIN[row], COCO_IDS[column]] for row, column in module.train_set.targets.nonzero().tolist()]
    assert found == sorted(expected, key=lambda pair: (COCO_TRAIN.index(pair[0]), pair[1]))
    assert module.test_set.targets.nonzero().tolist() == [[0, 0], [0, 79], [2, 11]]  # person, toothbrush, stop sign
    images, targets = next(iter(module.test_dataloader()))
    assert images[:, 0, 0, 0].tolist() == [139, 285 % 251]
    assert targets.sum(1).tolist() == [2, 0]


@pytest.mark.parametrize(("split", "size"), [("train", 10), ("unlabeled", 4), ("train+unlabeled", 14)])
def test_splits_to_train_on(root, split, size):
    module = data(root, train_split=split)
    one_epoch(module, train=size, labelled=10, test=3)
    expected = COCO_TRAIN * (split != "unlabeled") + COCO_UNLABELED * (split != "train")
    assert ids(module.train_set) == list(expected)
    assert (module.train_set.targets[-4:] == -1).all() == (split != "train")
    assert ids(module.labelled_set) == list(COCO_TRAIN)


def test_subsets_follow_from_the_seed_and_are_nested(root):
    def subset(size, **kwargs):
        module = data(root, subset=size, **kwargs)
        one_epoch(module, train=size, labelled=10, test=3)
        return ids(module.train_set)

    assert subset(4) == subset(4)
    assert {*subset(4)} < {*subset(7)}
    assert subset(4) != subset(4, seed=1)
    assert subset(10, seed=5) == list(COCO_TRAIN)
    assert len({*subset(12, train_split="train+unlabeled")} - {*COCO_TRAIN}) >= 2


def test_a_subset_from_a_file_of_names_or_ids(root, tmp_path):
    path = tmp_path / "subset.txt"
    path.write_text(f"36\n{coco_name(25)}\n000000581929\n")
    module = data(root, subset=path)
    one_epoch(module, train=3, labelled=10, test=3)
    assert ids(module.train_set) == [25, 581929, 36]
    path.write_text("36\n8\n")
    with pytest.raises(
        ValueError,
        match=r"subset: expected images of 'train', got 2 in .*subset.txt, of which 1 are others: \['000000000008'\]",
    ):
        data(root, subset=path).setup()
    with pytest.raises(
        FileNotFoundError, match=r"subset: expected a number, or a text file .*got '.*none.txt', which is no file"
    ):
        data(root, subset=tmp_path / "none.txt").setup()


def test_a_validation_part_is_not_trained_on(root):
    module = data(root, val_size=3, train_split="train+unlabeled")
    one_epoch(module, train=11, labelled=7, test=3)
    assert not {*ids(module.val_set)} & {*ids(module.train_set)}


def test_missing_or_wrong_files_are_named(root, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        data(tmp_path / "nowhere").setup()
    for expected in ("nowhere/annotations/instances_train2017.json", "download=True", "20 GB", "cocodataset.org"):
        assert expected in str(error.value)
    shutil.rmtree(root / "unlabeled2017")
    with pytest.raises(FileNotFoundError, match=r"root: expected .*unlabeled2017, got no such file or folder"):
        data(root, train_split="unlabeled").setup()
    write_coco_split(root, "val2017", COCO_VAL, "instances_val2017.json", [])
    path = root / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text().replace("toothbrush", "comb"))
    with pytest.raises(
        ValueError, match=r"instances_val2017.json: expected COCO's 80 categories, got 80, or others; remove"
    ):
        data(root).setup()
    write_coco_split(root, "val2017", COCO_VAL, "instances_val2017.json", [])
    for subset in (0, 11):
        with pytest.raises(ValueError, match=f"subset: expected a number .*, got {subset}$"):
            data(root, subset=subset).setup()
    with pytest.raises((TypeError, ValueError), match=r"train_split: expected .*got 'val'"):
        COCODataModule(train_split="val")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text[:-40],
            r"instances_train2017.json: expected JSON, got an error \(.*; remove it and pass download",
        ),
        (lambda text: "[]", r"instances_train2017.json: expected .* got no \['categories', 'images', 'annot"),
        (lambda text: text.replace('"image_id": 30,', '"image_id": 31,'), r"train2017.json: .*image or category 31;"),
        (lambda text: text.replace('"category_id": 1,', '"category_id": 12,'), r"train2017.json: .*category 12;"),
    ],
    ids=["cut short", "no annotations", "absent image", "absent category"],
)
def test_wrong_annotations_are_named(root, change, message):
    path = root / "annotations" / "instances_train2017.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message):
        data(root).setup()


def test_an_annotated_image_that_is_not_there_is_left_out(root):
    (root / "train2017" / coco_name(30)).unlink()
    module = data(root, batch_size=10, return_index=True)
    module.setup()
    with pytest.warns(UserWarning, match=f"1 of 10 files could not be read .*{coco_name(30)}"):
        ((_, targets, index),) = module.probe_train_dataloader()
    assert index.tolist() == [0, 1, *range(3, 10)]
    assert torch.equal(targets, module.labelled_set.targets[index].long())


def test_downloads_what_is_missing_and_compares_checksums(root, tmp_path, monkeypatch):
    """Downloads the official archives; each holds one folder."""
    served = tmp_path / "site"
    archives = {}
    for archive, (_, places) in COCODataModule.archives.items():
        inner = places[0].partition("/")[0]
        path = Path(shutil.make_archive(str(served / archive.removesuffix(".zip")), "zip", root, inner))
        archives[archive] = (hashlib.md5(path.read_bytes()).hexdigest(), places)
    module = data(tmp_path / "new", download=True)
    with site(served) as address:
        monkeypatch.setattr(COCODataModule, "url", address)
        with pytest.raises(OSError, match=r"train2017.zip could not be downloaded .*corrupted"):
            module.prepare_data()
        monkeypatch.setattr(COCODataModule, "archives", archives)
        data(tmp_path / "other").prepare_data()
        assert not (tmp_path / "other").exists()
        one_epoch(module, train=10, labelled=10, test=3)
        assert not (tmp_path / "new" / "unlabeled2017").exists()
        (tmp_path / "new" / "annotations" / "instances_val2017.json").unlink()
        one_epoch(module_again := data(tmp_path / "new", download=True), train=10, labelled=10, test=3)
        assert ids(module_again.test_set) == list(COCO_VAL)
        one_epoch(data(tmp_path / "new", download=True, train_split="unlabeled"), train=4, labelled=10, test=3)
