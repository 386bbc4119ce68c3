import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from pictures import one_epoch, site, write_image
from torchvision.models._meta import _COCO_CATEGORIES

from ssl_modules.datamodules import COCODataModule, coco

IDS = [number for number, name in enumerate(_COCO_CATEGORIES) if name not in ("__background__", "N/A")]  # 1 to 90
TRAIN = (9, 25, 30, 34, 581929, 36, 42, 49, 61, 64)
VAL = (139, 285, 632)
UNLABELED = (8, 16, 23, 24)


def name(number):
    return f"{number:012}.jpg"


def write(root, split, ids, file, objects=None):
    for number in ids:
        write_image(root / split / name(number), 40, 30 + number % 7, value=number % 251)
    content = {"images": [{"id": number, "file_name": name(number), "height": 40, "width": 30} for number in ids]}
    categories = [{"id": number, "name": _COCO_CATEGORIES[number], "supercategory": "thing"} for number in IDS]
    content["categories"] = categories[::-1]  # in any order
    if objects is not None:
        content["annotations"] = [
            {"id": row, "image_id": image, "category_id": category, "iscrowd": row % 2, "bbox": [0, 0, 1, 1]}
            for row, (image, category) in enumerate(objects)
        ]
    path = root / "annotations" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path):
    objects = [(TRAIN[index % 9], IDS[index * 11 % 80]) for index in range(40)]  # nothing in the last image
    objects += [objects[0]] * 2
    write(tmp_path, "train2017", TRAIN, "instances_train2017.json", objects)
    write(tmp_path, "val2017", VAL, "instances_val2017.json", [(139, 90), (139, 1), (632, 13)])
    write(tmp_path, "unlabeled2017", UNLABELED, "image_info_unlabeled2017.json")
    return tmp_path


def data(root, **kwargs):
    return COCODataModule(root, **{"batch_size": 2, "image_size": 14, "num_workers": 0, **kwargs})


def ids(part):
    return [int(part.path(row).stem) for row in range(len(part))]


def test_targets_are_what_is_in_the_image(root):
    module = data(root)
    one_epoch(module, train=10, labelled=10, test=3)
    assert module.class_names == tuple(_COCO_CATEGORIES[number] for number in IDS)
    assert ids(module.train_set) == list(TRAIN)
    expected = [[TRAIN[index % 9], IDS[index * 11 % 80]] for index in range(40)]
    found = [[TRAIN[row], IDS[column]] for row, column in module.train_set.targets.nonzero().tolist()]
    assert found == sorted(expected, key=lambda pair: (TRAIN.index(pair[0]), pair[1]))
    assert module.test_set.targets.nonzero().tolist() == [[0, 0], [0, 79], [2, 11]]  # person, toothbrush, stop sign
    images, targets = next(iter(module.test_dataloader()))
    assert images[:, 0, 0, 0].tolist() == [139, 285 % 251]
    assert targets.sum(1).tolist() == [2, 0]


@pytest.mark.parametrize(("split", "size"), [("train", 10), ("unlabeled", 4), ("train+unlabeled", 14)])
def test_splits_to_train_on(root, split, size):
    module = data(root, train_split=split)
    one_epoch(module, train=size, labelled=10, test=3)
    expected = TRAIN * (split != "unlabeled") + UNLABELED * (split != "train")
    assert ids(module.train_set) == list(expected)
    assert (module.train_set.targets[-4:] == -1).all() == (split != "train")
    assert ids(module.labelled_set) == list(TRAIN)


def test_subsets_follow_from_the_seed_and_are_nested(root):
    def subset(size, **kwargs):
        module = data(root, subset=size, **kwargs)
        one_epoch(module, train=size, labelled=10, test=3)
        return ids(module.train_set)

    assert subset(4) == subset(4)
    assert {*subset(4)} < {*subset(7)}
    assert subset(4) != subset(4, seed=1)
    assert subset(10, seed=5) == list(TRAIN)
    assert len({*subset(12, train_split="train+unlabeled")} - {*TRAIN}) >= 2


def test_a_subset_from_a_file_of_names_or_ids(root, tmp_path):
    path = tmp_path / "subset.txt"
    path.write_text(f"36\n{name(25)}\n000000581929\n")
    module = data(root, subset=path)
    one_epoch(module, train=3, labelled=10, test=3)
    assert ids(module.train_set) == [25, 581929, 36]
    path.write_text("36\n8\n")
    with pytest.raises(ValueError, match=r"of the 2 images in .*subset.txt, 1 are not in 'train': \['000000000008'\]"):
        data(root, subset=path).setup()
    with pytest.raises(FileNotFoundError, match=r"subset: expected a number, or a text file .*there is no .*none.txt"):
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
    with pytest.raises(FileNotFoundError, match=r"there is no .*unlabeled2017 "):
        data(root, train_split="unlabeled").setup()
    write(root, "val2017", VAL, "instances_val2017.json", [])
    path = root / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text().replace("toothbrush", "comb"))
    with pytest.raises(ValueError, match=r"instances_val2017.json: its 80 categories are not COCO's 80"):
        data(root).setup()
    write(root, "val2017", VAL, "instances_val2017.json", [])
    for subset in (0, 11):
        with pytest.raises(ValueError, match=f"subset: expected 1 to 10 images, or None for all, but got {subset}"):
            data(root, subset=subset).setup()
    with pytest.raises(ValueError, match=r"train_split: expected .* got 'val'"):
        COCODataModule(train_split="val")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text[:-40],
            r"instances_train2017.json: is no JSON or cut short \(.*; remove it and pass download",
        ),
        (lambda text: "[]", r"instances_train2017.json: expected .* but there is no \['categories', 'images', 'annot"),
        (lambda text: text.replace('"image_id": 30,', '"image_id": 31,'), r"train2017.json: .*image or category 31,"),
        (lambda text: text.replace('"category_id": 1,', '"category_id": 12,'), r"train2017.json: .*category 12, which"),
    ],
    ids=["cut short", "no annotations", "absent image", "absent category"],
)
def test_wrong_annotations_are_named(root, change, message):
    path = root / "annotations" / "instances_train2017.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message):
        data(root).setup()


def test_an_annotated_image_that_is_not_there_is_left_out(root):
    (root / "train2017" / name(30)).unlink()
    module = data(root, batch_size=10, return_index=True)
    module.setup()
    with pytest.warns(UserWarning, match=f"1 of 10 images could not be read .*{name(30)}"):
        ((_, targets, index),) = module.probe_train_dataloader()
    assert index.tolist() == [0, 1, *range(3, 10)]
    assert torch.equal(targets, module.labelled_set.targets[index].long())


def test_downloads_what_is_missing_and_compares_checksums(root, tmp_path, monkeypatch):
    """From the official archives, in each of which is one folder."""
    served = tmp_path / "site"
    archives = {}
    for archive, (_, places) in coco.ARCHIVES.items():
        inner = places[0].partition("/")[0]
        path = Path(shutil.make_archive(str(served / archive.removesuffix(".zip")), "zip", root, inner))
        archives[archive] = (hashlib.md5(path.read_bytes()).hexdigest(), places)
    module = data(tmp_path / "new", download=True)
    with site(served) as address:
        monkeypatch.setattr(coco, "SITE", address)
        with pytest.raises(OSError, match=r"train2017.zip could not be downloaded .*corrupted"):
            module.prepare_data()
        monkeypatch.setattr(coco, "ARCHIVES", archives)
        data(tmp_path / "other").prepare_data()
        assert not (tmp_path / "other").exists()
        one_epoch(module, train=10, labelled=10, test=3)
        assert not (tmp_path / "new" / "unlabeled2017").exists()
        (tmp_path / "new" / "annotations" / "instances_val2017.json").unlink()
        one_epoch(module_again := data(tmp_path / "new", download=True), train=10, labelled=10, test=3)
        assert ids(module_again.test_set) == list(VAL)
        one_epoch(data(tmp_path / "new", download=True, train_split="unlabeled"), train=4, labelled=10, test=3)


def test_known_before_setup():
    module = COCODataModule(subset=5)
    assert (module.target_type, module.num_classes, module.dims) == ("multilabel", 80, (3, 224, 224))
    assert torch.tensor(module.mean).shape == (3,)
