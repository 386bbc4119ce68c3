"""``ssl-modules predict`` writes each batch at once, continues after an interruption, and its files can be read."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from miniatures import apply, write_fashion_mnist
from pictures import write_image
from processes import run_in_processes
from torch import nn

from ssl_modules import SimCLR
from ssl_modules.augmentations import RandomResizedCrop, Views
from ssl_modules.callbacks import OnlineKNNProbe
from ssl_modules.cli import main
from ssl_modules.cli.prediction import FeatureWriter
from ssl_modules.datamodules import DigitsDataModule, FashionMNISTDataModule
from ssl_modules.downstream import evaluate_features
from ssl_modules.evaluation import StoredFeatures
from ssl_modules.evaluation.protocols import Labelled, knn_protocol, linear_protocol
from ssl_modules.evaluation.stored import join, write_arrays

TEST = 360  # digits in the test part


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def predict(folder, *options, seed=0):
    main(
        [
            "predict",
            "--model=SimCLR",
            "--model.encoder=test_resnet",
            "--data=DigitsDataModule",
            "--data.batch_size=32",
            f"--seed_everything={seed}",
            "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false",
            "--trainer.logger=false",
            f"--features.folder={folder}",
            *options,
        ]
    )
    return StoredFeatures(folder)


def digits():
    data = DigitsDataModule()
    data.setup()
    return data


def equal(x, y):
    np.testing.assert_array_equal(x.index, y.index)
    torch.testing.assert_close(x.features, y.features, rtol=1e-5, atol=1e-5)
    assert torch.equal(x.targets, y.targets)


def test_each_part_is_written_with_its_rows_and_targets():
    test, train = predict("test"), predict("train", "--features.part=train")
    data = digits()
    assert len(test) == TEST
    assert torch.equal(test.targets, data.test_set.targets)
    assert torch.equal(train.targets, data.labelled_set.targets)
    assert sorted(path.name for path in Path("test").iterdir()) == ["features.json", "features.npz"]
    features = {"x": nn.functional.normalize(train.features), "y": nn.functional.normalize(test.features)}
    nearest = train.targets[(features["y"] @ features["x"].T).argmax(1)]
    accuracy = (nearest == test.targets).float().mean().item()
    probe = OnlineKNNProbe(train=train, test=test, k=1)
    assert probe.evaluate(nn.Identity())["probe/knn_top1"] == pytest.approx(accuracy)
    assert knn_protocol(train.labelled, test.labelled, k=1)["top1"] == pytest.approx(accuracy)


def test_a_second_call_continues(monkeypatch, capsys):
    whole = predict("whole")
    assert len(predict("rest", "--trainer.limit_predict_batches=2")) == 64
    write, written = FeatureWriter.on_predict_batch_end, []

    def stop(self, *args):
        write(self, *args)
        written.append(args)
        if len(written) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(FeatureWriter, "on_predict_batch_end", stop)
    with pytest.raises(SystemExit):
        predict("rest")
    assert len(StoredFeatures("rest")) == 64
    predict("rest")
    assert len(written) == 4 + -(-(TEST - 6 * 32) // 32)
    monkeypatch.setattr(FeatureWriter, "on_predict_batch_end", write)
    equal(predict("rest"), whole)
    predict("rest")  # no features are missing
    assert f"features of {TEST} of {TEST} images" in capsys.readouterr().out
    assert not Path("rest/features.batches").exists()


def predict_in_two(rank, folder):
    os.environ["LOCAL_RANK"] = str(rank)
    predict(folder, "--trainer.devices=2", "--trainer.strategy=ddp")


@pytest.mark.slow
def test_two_processes_write_two_files_and_one_continues_them(tmp_path):
    whole = predict("whole")
    run_in_processes(predict_in_two, tmp_path / "two")
    assert sorted(path.name for path in Path("two").glob("*.npz")) == ["features_0.npz", "features_1.npz"]
    equal(StoredFeatures("two"), whole)
    Path("two/features_0.npz").unlink()
    equal(predict("two"), whole)
    assert sorted(path.name for path in Path("two").glob("*.npz")) == ["features_1.npz", "features_2.npz"]


def test_evaluating_features_gives_the_results_of_evaluating_the_checkpoint():
    trainer = Trainer(barebones=True, accelerator="cpu")
    trainer.strategy.connect(SimCLR(Views([RandomResizedCrop(8)]), "test_resnet", image_size=8, in_channels=1))
    trainer.save_checkpoint("last.ckpt")
    for part in ("train", "test"):
        predict(part, "--ckpt_path=last.ckpt", f"--features.part={part}")
    protocols = ("--protocol", "knn", "linear", "few-label", "retrieval", "ood", "--knn.k=5")
    data = ("--data=DigitsDataModule", "--data.batch_size=32", "--outliers=DigitsDataModule", "--ckpt=last.ckpt")
    main(["evaluate", *data, "--out=images.json", *protocols])
    features = ("--features.train=train", "--features.test=test", "--features.outliers=test")
    main(["evaluate", *features, "--out=features.json", *protocols])
    expected, record = (json.loads(Path(f"{name}.json").read_text()) for name in ("images", "features"))
    assert record["protocol"] == expected["protocol"]
    assert record["data"]["train"] == {"path": "train", **json.loads(Path("train/features.json").read_text())}
    for name, metrics in expected["results"].items():
        assert record["results"][name] == pytest.approx(metrics, abs=1 / TEST), name  # rounding may change one image


def test_features_of_hierarchical_targets_are_evaluated_at_each_level():
    torch.manual_seed(0)
    for part in ("train", "test"):
        features, fine = torch.randn(60, 8), torch.arange(60) % 6
        Path(part).mkdir()
        arrays = {"features": features.numpy(), "index": np.arange(60)}
        write_arrays(Path(part, "features.npz"), {**arrays, "targets": torch.stack([fine, fine // 2], 1).numpy()})
        record = {"weights": "same", "part": part, "images": 60, "levels": ["class", "superclass"]}
        Path(part, "features.json").write_text(json.dumps(record))
    train, test = StoredFeatures("train"), StoredFeatures("test")
    results = evaluate_features(train, test, ["linear"])
    for level, name in enumerate(("class", "superclass")):
        expected = linear_protocol(*(Labelled(part.features, part.targets[:, level]) for part in (train, test)))
        assert {k: v for k, v in results["linear"].items() if k.startswith(f"{name}/")} == {
            f"{name}/{metric}": value for metric, value in expected.items()
        }


def test_predict_stores_the_levels_of_hierarchical_targets(tmp_path, monkeypatch):
    apply(monkeypatch, write_fashion_mnist(tmp_path / "data"))
    options = ("--data=FashionMNISTDataModule", "--data.root=data", "--data.coarse=true")
    data = FashionMNISTDataModule("data", coarse=True)
    assert predict("test", *options).levels == data.level_names
    assert len(data.level_names) == 2


def stored(folder, rows=30, width=4, **record):
    Path(folder).mkdir()
    arrays = {"features": np.eye(rows, width, dtype=np.float32), "index": np.arange(rows)}
    write_arrays(Path(folder, "features.npz"), {**arrays, "targets": np.arange(rows) % 3})
    record = {"weights": "same", "part": folder, "images": rows, "levels": None, **record}
    Path(folder, "features.json").write_text(json.dumps(record))
    return StoredFeatures(folder)


def test_features_that_do_not_fit_together_are_refused():
    train, test = stored("train"), stored("test")
    with pytest.raises(ValueError, match="outliers: expected features of width 4, as in train, got 5"):
        evaluate_features(train, test, ["ood"], outliers=stored("wide", width=5))
    with pytest.raises(ValueError, match="test: these features come from other weights than those of train"):
        evaluate_features(train, stored("other", weights="other"), ["knn"])
    with pytest.raises(ValueError, match="test: expected features of other images than train"):
        evaluate_features(train, train, ["knn"])
    with pytest.raises(ValueError, match="finetune: this protocol trains on images"):
        evaluate_features(train, test, ["finetune"])
    with pytest.warns(UserWarning, match="test: 30 of 40 images have features"):
        evaluate_features(train, stored("incomplete", images=40), ["knn"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "data is missing; give --data, such as --data DigitsDataModule, or --features.train and --features.test"),
        (("--features.outliers=x",), "features.train is missing"),
        (("--features.train=x",), "features.test is missing"),
        (
            ("--features.train=x", "--features.test=x", "--split=val", "--ckpt=x"),
            "split, ckpt: these options need images, not features; leave out --split --ckpt",
        ),
        (("--features.train=x", "--features.test=x"), "features.train: expected files features*.npz, got none in x"),
    ],
)
def test_options_of_evaluate_that_do_not_fit_features_are_named(options, message, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", *options])
    assert f"error: {message}" in capsys.readouterr().err


def test_features_of_other_weights_are_not_mixed():
    predict("here", "--trainer.limit_predict_batches=1")
    with pytest.raises(SystemExit):
        predict("here", seed=1)
    assert json.loads(Path("here/features.json").read_text())["images"] == TEST
    with pytest.raises(SystemExit):
        predict("here", "--features.part=train")


@pytest.fixture
def pictures(tmp_path):
    """Write 9 pictures, of which the last cannot be read."""
    for number in range(9):
        write_image(tmp_path / "pictures" / "a" / f"{number}.png", value=number * 10)
    (tmp_path / "pictures" / "a" / "8.png").write_bytes(b"no image")
    return tmp_path / "pictures"


def predict_pictures(root, *options):
    of_data = ["--data=ImageFolderDataModule", f"--data.root={root}", "--data.batch_size=4", "--data.num_workers=0"]
    return predict("here", *of_data, "--data.image_size=32", "--features.part=train", *options)


def test_images_that_cannot_be_read_are_left_out_until_they_can(pictures):
    for _ in range(3):  # the last batch has no readable image
        with pytest.warns(UserWarning, match=r"1 of \d files could not be read"):
            found = predict_pictures(pictures)
        assert found.index.tolist() == list(range(8))
    write_image(pictures / "a" / "8.png", value=80)
    assert predict_pictures(pictures).index.tolist() == list(range(9))


def test_a_first_batch_without_a_readable_image_is_left_out(pictures):
    for number in range(4):
        (pictures / "a" / f"{number}.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match="5 of 9 files could not be read"):
        assert predict_pictures(pictures).index.tolist() == [4, 5, 6, 7]


def test_features_of_other_data_are_not_mixed(pictures, tmp_path, capsys):
    with pytest.warns(UserWarning, match="could not be read"):
        predict_pictures(pictures)
    shutil.copytree(pictures, tmp_path / "copy" / "pictures")
    with pytest.raises(SystemExit):
        predict_pictures(tmp_path / "copy" / "pictures")
    assert "features.folder: expected features of the same root" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        predict_pictures(pictures, "--data.decode_size=48")
    assert "features.folder: expected features of the same decode_size, [48], got [None]" in capsys.readouterr().err


def test_batches_that_were_joined_already_are_not_joined_again():
    whole = predict("here")
    content = np.load("here/features.npz")
    rows = content["index"][:32]
    write_arrays(Path(f"here/features.batches/{rows[0]:012}.npz"), {name: content[name][:32] for name in content})
    equal(predict("here"), whole)


def test_files_are_joined_in_blocks(monkeypatch, tmp_path):
    monkeypatch.setattr("ssl_modules.evaluation.stored._BLOCK", 100)
    rng = np.random.default_rng(0)
    parts = []
    for number, paths in enumerate((["a", "bcd"], ["ä" * 40], ["x"] * 70)):
        part = {
            "features": rng.normal(size=(len(paths), 5)).astype(np.float32),
            "index": np.arange(len(paths)) + 100 * number,
            "path": np.array(paths),
        }
        write_arrays(tmp_path / f"{number}.npz", part)
        parts.append(part)
    join(sorted(tmp_path.glob("?.npz")), tmp_path / "features.npz")
    joined = np.load(tmp_path / "features.npz")
    assert set(joined) == set(parts[0])
    for name in joined:
        np.testing.assert_array_equal(joined[name], np.concatenate([part[name] for part in parts]))


def test_missing_and_mixed_files_raise_an_error():
    with pytest.raises(ValueError, match=r"expected files features\*.npz, got none in here"):
        StoredFeatures("here")
    part = {"features": np.zeros((1, 2), np.float32), "index": np.zeros(1, int), "targets": np.zeros(1, int)}
    for name in ("features_0", "features_1"):
        write_arrays(Path(f"{name}.npz"), part)
    with pytest.raises(ValueError, match="has a row twice"):
        StoredFeatures(".")
