import csv
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ssl_modules import SimCLR
from ssl_modules.cli import ContrastiveCLI, main
from ssl_modules.cli.parser import short_error
from ssl_modules.datamodules import DigitsDataModule


def config(**changes):
    """Return the config of a run of seconds. Names in ``changes`` are dotted keys, with __ for the dots."""
    c = {
        "model": {
            "class_path": "SimCLR",
            "init_args": {
                "augmentation": {"class_path": "SimCLRViews", "init_args": {"size": 8, "blur": False}},
                "encoder": "test_resnet",
                "extraction": {"class_path": "AllViews", "init_args": {"out_dim": 16}},
                "similarity": {"class_path": "Cosine"},
                "loss": {"class_path": "InfoNCE", "init_args": {"temperature": 0.2}},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.002}},
            },
        },
        "data": {"class_path": "DigitsDataModule", "init_args": {"batch_size": 32}},
        "trainer": {
            "max_epochs": 2,
            "limit_train_batches": 3,
            "log_every_n_steps": 1,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
        "knn_probe": {"bank_size": 100},
        "linear_probe": {"bank_size": 100},
    }
    for key, value in changes.items():
        *path, last = key.split("__")
        place = c
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return c


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(c, name="config.yaml"):
    Path(name).write_text(yaml.safe_dump(c))
    return name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model__init_args__loss__init_args__temprature": 0.1},
            "model > SimCLR > loss > InfoNCE: option 'temprature' is not accepted; did you mean 'temperature'?",
        ),
        ({"model__init_args__los": None}, "model > SimCLR: option 'los' is not accepted; did you mean 'loss'?"),
        (
            {"data__init_args__batchsize": 3},
            "data > DigitsDataModule: option 'batchsize' is not accepted; did you mean 'batch_size'?",
        ),
        (
            {"model__init_args__optimizer__init_args__weight_dekay": 0.1},
            "model > SimCLR > optimizer > AdamW: option 'weight_dekay' is not accepted; did you mean 'weight_decay'?",
        ),
        (
            {
                "model__init_args__augmentation": {
                    "class_path": "Views",
                    "init_args": {"transforms": [{"class_path": "RandomResizedCrop", "init_args": {"siz": 8}}]},
                }
            },
            "model > SimCLR > augmentation > Views > transforms > RandomResizedCrop: option 'siz' is not accepted; "
            "did you mean 'size'?",
        ),
        (
            {"trainer__max_epoch": 3},
            "Subcommand 'fit' does not accept option 'trainer.max_epoch'; did you mean 'trainer.max_epochs'?",
        ),
        ({"modle": 3}, "Subcommand 'fit' does not accept option 'modle'; did you mean 'model'?"),
        ({"model__class_path": "SimCRL"}, "model: there is no class 'SimCRL'; did you mean 'SimCLR'?"),
        (
            {"model__init_args__loss__class_path": "InfoNEC"},
            "model > SimCLR > loss: there is no class 'InfoNEC'; did you mean 'InfoNCE'?",
        ),
        ({"data__class_path": "Digits"}, "data: there is no class 'Digits'; did you mean 'DigitsDataModule'?"),
        (
            {"model__init_args__loss__init_args__temperature": "warm"},
            "model > SimCLR > loss > InfoNCE > temperature: expected float. Got value: warm",
        ),
        ({"model__init_args__loss__init_args__temperature": -1}, "temperature: expected a positive number, got -1.0"),
        (
            {"model__init_args__augmentation__init_args__size": 16},
            "augmentation: makes views of [16] pixels, but image_size=8; give both the same size",
        ),
    ],
    ids=lambda x: "" if isinstance(x, str) else next(iter(x)),
)
def test_an_error_is_one_line_that_says_where_and_what_would_be_right(changes, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", write(config(**changes))])
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {message}"


def test_an_error_of_another_form_is_left_as_it_is():
    assert short_error("something else went wrong") == "something else went wrong"


def test_help_of_a_method_is_readable(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--model.help", "SimCLR"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name in ("augmentation", "encoder", "extraction", "similarity", "loss", "optimizer", "image_size"):
        assert f"--model.{name} " in text
    assert "ssl_modules.losses.InfoNCE" in text  # lists the known losses, but not all of torch's modules
    assert "torch.nn" not in text
    assert len(text) < 12_000  # a list of torch's modules would be much longer


def test_a_run_leaves_config_metrics_and_checkpoints_and_resumes_from_them():
    main(["fit", "--config", write(config())])
    run = Path("lightning_logs/version_0")
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["model"]["init_args"]["loss"]["init_args"]["temperature"] == 0.2
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = ["train/loss", "train/loss_epoch", "train/chance", "lr-AdamW/pg1", "lr-AdamW/pg2"]
    columns += ["probe/knn_top1", "probe/knn_top5", "probe/linear_top1", "probe/linear_top5"]
    columns += ["repr/std", "repr/rankme", "repr/uniformity"]
    for column in columns:
        assert any(row[column] for row in rows), column
    knn = [float(row["probe/knn_top1"]) for row in rows if row["probe/knn_top1"]]
    assert len(knn) == 2
    best, last = (torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert (best["epoch"], last["epoch"]) == (knn.index(max(knn)), 1)

    again = ["--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints/last.ckpt")]
    main(["fit", *again, "--trainer.max_epochs", "3"])
    resumed = torch.load("lightning_logs/version_1/checkpoints/last.ckpt", weights_only=True)
    assert (resumed["epoch"], resumed["global_step"]) == (2, 9)
    assert resumed["ssl_modules"]["seed"] == last["ssl_modules"]["seed"]
    main(["test", *again])
    module = SimCLR.load_from_checkpoint(run / "checkpoints/best.ckpt")
    assert module.loss.temperature == 0.2
    assert module.hparams["in_channels"] == 1


def test_the_optimiser_of_the_command_line_goes_to_the_module():
    with pytest.raises(SystemExit):  # Lightning's own --optimizer would replace configure_optimizers
        main(["fit", "--config", write(config()), "--optimizer", "SGD"])


def test_it_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["__main__.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("ssl_modules", run_name="__main__")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "fit" in text
    assert text.startswith("usage: ssl-modules")


def test_validation_needs_a_validation_part(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["validate", "--config", write(config())])
    assert stop.value.code == 2
    assert "error: validate: the data have no validation part; give data val_size=" in capsys.readouterr().err
    main(["validate", "--config", write(config()), "--data.val_size", "40"])
    assert "val/contrast_top1" in capsys.readouterr().out


def test_flags_that_leave_a_callback_nothing_to_do_take_it_away():
    main(["fit", "--config", write(config(trainer__logger=False, trainer__enable_checkpointing=False))])


def test_predict_writes_features_with_their_rows():
    main(["predict", "--config", write(config(trainer__limit_predict_batches=2))])
    [path] = Path().rglob("features.npz")
    arrays = np.load(path)
    assert arrays["features"].shape == (64, 96)
    assert arrays["index"].tolist() == list(range(64))


def test_predict_names_the_files_and_leaves_out_what_it_could_not_read():
    for i in range(5):
        path = Path("images", "train" if i < 2 else "test", "kind", f"{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 50 * i).save(path)
    Path("images/test/kind/3.png").write_bytes(b"not an image")
    data = {"root": "images/train", "test": "images/test", "image_size": 8, "in_channels": 1, "num_workers": 0}
    c = config(data__class_path="ImageFolderDataModule", data__init_args=data)
    with pytest.warns(UserWarning, match=r"3\.png"):
        main(["predict", "--config", write(c)])
    [path] = Path().rglob("features.npz")
    arrays = np.load(path)
    assert arrays["index"].tolist() == [0, 2]
    assert [Path(path).name for path in arrays["path"]] == ["2.png", "4.png"]
    assert not np.array_equal(*arrays["features"])


def test_data_without_labels_train_without_probes(monkeypatch):
    without = property(lambda self: "none", lambda self, value: None)
    monkeypatch.setattr(DigitsDataModule, "target_type", without, raising=False)
    main(["fit", "--config", write(config())])
    [metrics] = Path().rglob("metrics.csv")
    assert "probe" not in metrics.read_text()
    assert list(Path().rglob("last.ckpt"))


def folder(*classes):
    """A folder of 40 images, and the config of its data."""
    for i in range(40):
        path = Path("images", classes[i % len(classes)], f"{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 6 * i).save(path)
    given = {"root": "images", "image_size": 8, "in_channels": 1, "batch_size": 8, "num_workers": 0, "val_size": 8}
    return config(data__class_path="ImageFolderDataModule", data__init_args=given)


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_images_of_one_class_need_no_probes(command, caplog):
    with caplog.at_level("INFO", logger="lightning.pytorch"):  # the docstring examples change its level
        main([command, "--config", write(folder("all"))])
    assert "no probes: images has one class, all" in caplog.messages
    if command == "fit":
        assert [path.name for path in Path().rglob("*.ckpt")] == ["last.ckpt"]


def test_a_probe_of_ones_own_for_one_class_is_refused_before_the_first_step(capsys):
    c = folder("all")
    c["trainer"]["callbacks"] = [
        {"class_path": "ssl_modules.callbacks.OnlineLinearProbe", "init_args": {"name": "own"}}
    ]
    with pytest.raises(SystemExit):
        main(["fit", "--config", write(c)])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: own: expected samples of two or more classes, got 32, all of class 0; ")
    assert "class_folders=False" in error
    assert not list(Path().rglob("metrics.csv"))
    c["data"]["init_args"]["class_folders"] = False
    del c["trainer"]["callbacks"]
    main(["fit", "--config", write(c)])


OFF = ["--knn_probe", "null", "--linear_probe=null", "--collapse_monitor", "null", "--lr_monitor", "null"]


@pytest.mark.parametrize("by", ["options", "file"])
def test_a_default_callback_can_be_switched_off_and_stays_off_in_the_saved_config(by, capsys):
    c, options = config(), OFF
    if by == "file":
        c, options = (
            c | {name.lstrip("-"): None for name in ("knn_probe", "linear_probe", "collapse_monitor")},
            OFF[-2:],
        )
    main(["fit", "--config", write(c), *options])
    [metrics] = Path().rglob("metrics.csv")
    assert not {"probe", "repr", "lr-"} & {name.partition("/")[0] for name in metrics.read_text().split(",")}
    assert [path.name for path in Path().rglob("*.ckpt")] == ["last.ckpt"]  # no metric for the best one to monitor

    [saved] = Path().rglob("*/config.yaml")
    again = yaml.safe_load(saved.read_text())
    assert [again[name] for name in ("knn_probe", "linear_probe", "collapse_monitor", "lr_monitor")] == [None] * 4
    again["trainer"]["default_root_dir"] = "again"
    main(["fit", "--config", write(again)])
    assert [path.name for path in Path("again").rglob("*.ckpt")] == ["last.ckpt"]

    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["fit", "--config", write(c), *options, "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert [printed[name] for name in ("knn_probe", "linear_probe", "collapse_monitor", "lr_monitor")] == [None] * 4


def test_one_probe_may_be_switched_off_alone_and_on_again():
    c = {**config(), "linear_probe": None}
    main(["fit", "--config", write(c), "--knn_probe", "null", "--knn_probe.k=3"])
    [metrics] = Path().rglob("metrics.csv")
    assert "probe/knn_top1" in metrics.read_text()
    assert "probe/linear_top1" not in metrics.read_text()
    assert sorted(path.name for path in Path().rglob("*.ckpt")) == ["best.ckpt", "last.ckpt"]


def test_the_checkpoints_can_be_switched_off():
    main(["fit", "--config", write(config()), "--best_checkpoint", "null", "--last_checkpoint.filename=mine"])
    assert [path.name for path in Path().rglob("*.ckpt")] == ["mine.ckpt"]


def test_the_last_checkpoint_is_that_of_the_last_epoch_though_another_was_best():
    c = config(trainer__max_epochs=3, best_checkpoint__monitor="train/chance")  # has the same value in every epoch
    main(["fit", "--config", write(c)])
    epochs = {path.stem: torch.load(path, weights_only=True)["epoch"] for path in Path().rglob("*.ckpt")}
    assert epochs == {"best": 0, "last": 2}


@pytest.mark.parametrize("fixed", [False, True])
def test_the_class_of_the_command_works_in_a_script_of_ones_own(fixed):
    c = config()
    if fixed:  # fixed classes, as in many scripts of Lightning users
        c["model"], c["data"] = (
            {**c["model"]["init_args"], "loss": {"init_args": {"temperature": 0.4}}},
            c["data"]["init_args"],
        )
    classes = (SimCLR, DigitsDataModule) if fixed else ()
    cli = ContrastiveCLI(*classes, run=False, args=["--config", write(c)])
    assert type(cli.model) is SimCLR
    assert (cli.model.encoder.image_size, cli.model.encoder.in_channels) == (8, 1)  # linked to the data
    assert cli.model.loss.temperature == (0.4 if fixed else 0.2)
    option = "--model.optimizer=Adam" if fixed else "--model.init_args.optimizer=Adam"  # AdamW's arguments are dropped
    swapped = ContrastiveCLI(*classes, run=False, args=["--config", "config.yaml", option])
    assert swapped.model.optimizer(swapped.model.param_groups()).param_groups[0]["lr"] == 0.001
