import json
from collections import OrderedDict
from pathlib import Path

import lightning.pytorch as pl
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from ssl_modules import SimCLR, evaluate
from ssl_modules.augmentations import RandomResizedCrop, Views
from ssl_modules.callbacks import OnlineKNNProbe, OnlineLinearProbe
from ssl_modules.cli import evaluate as cli_evaluate
from ssl_modules.cli import main
from ssl_modules.datamodules import DigitsDataModule, ImageDataModule
from ssl_modules.datamodules.images import TensorImages
from ssl_modules.encoders import shrink_stem
from ssl_modules.evaluation import balanced_rows


def views():
    return Views([RandomResizedCrop(8, scale=(0.7, 1.0))])


def save(module, path):
    trainer = pl.Trainer(barebones=True, accelerator="cpu")
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def module():
    torch.manual_seed(0)
    data = DigitsDataModule()
    return SimCLR(views(), "test_resnet", image_size=8, in_channels=1, mean=data.mean, std=data.std).eval()


def run(*arguments):
    main(["evaluate", "--data", "DigitsDataModule", *arguments])
    return json.loads(Path("evaluation.json").read_text())


def failing(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", *arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_checkpoint_gets_the_results_of_the_probes(module, capsys):
    save(module, "last.ckpt")
    record = run("--ckpt", "last.ckpt", "--protocol", "knn", "linear", "--knn.k=5", "--linear.ridge_penalty=0.1")
    data = DigitsDataModule()
    knn = OnlineKNNProbe(datamodule=data, k=5).evaluate(module)
    linear = OnlineLinearProbe(datamodule=data, penalty=0.1).evaluate(module)
    assert record["results"] == {
        "knn": {"top1": knn["probe/knn_top1"], "top5": knn["probe/knn_top5"]},
        "linear": {"top1": linear["probe/linear_top1"], "top5": linear["probe/linear_top5"]},
    }
    assert f"| knn | top1 | {100 * knn['probe/knn_top1']:.2f} |" in capsys.readouterr().out
    assert record["protocol"]["knn"] == {"k": 5, "temperature": 0.07}
    assert record["protocol"]["linear"]["ridge_penalty"] == 0.1
    assert record["representation"]["ckpt"] == "last.ckpt"
    assert record["representation"]["class_path"].endswith("SimCLR")
    assert record["data"]["init_args"]["image_size"] == 8


def test_an_exported_file_and_a_plain_one_get_the_results_of_their_checkpoint(module):
    save(module, "last.ckpt")
    main(["export", "--ckpt", "last.ckpt", "--out", "encoder.safetensors"])
    plain = timm.create_model("test_resnet", in_chans=1, num_classes=0)
    shrink_stem(plain)
    plain.load_state_dict(load_file("encoder.safetensors"))
    expected = run("--ckpt", "last.ckpt")["results"]
    assert run("--weights", "encoder.safetensors")["results"] == expected
    torch.save(plain.state_dict(), "plain.pt")
    data = DigitsDataModule()
    said = (f"--mean={list(data.mean)}", f"--std={list(data.std)}", "--small_stem=true")
    assert run("--encoder", "test_resnet", "--weights", "plain.pt", *said)["results"] == expected


def test_what_cannot_be_measured_is_null_in_the_file(module, monkeypatch):
    save(module, "last.ckpt")
    monkeypatch.setattr(cli_evaluate, "evaluate", lambda *args, **kwargs: {"retrieval": {"map": float("nan")}})
    assert run("--ckpt", "last.ckpt")["results"] == {"retrieval": {"map": None}}


def test_every_protocol(module):
    save(module, "last.ckpt")
    finetune = ("--finetune.epochs=1", "--finetune.share=0.2", "--finetune.learning_rate=0.01")
    protocols = ("knn", "linear", "few-label", "retrieval", "ood", "finetune")
    few = ("--few_label.shares=[]", "--few_label.per_class=[2]", "--few_label.seeds=[0]")
    outliers = ("--outliers=DigitsDataModule", "--ood.scores=[cosine]")
    record = run("--ckpt", "last.ckpt", *outliers, *few, *finetune, "--protocol", *protocols)
    assert list(record["results"]) == list(record["protocol"])[:-1] == list(protocols)
    assert record["results"]["ood"]["cosine_auroc"] == 0.5  # the outliers are the test images themselves
    assert record["results"]["few-label"].keys() == {f"2 a class/top{k}{end}" for k in (1, 5) for end in ("", "_std")}
    assert record["outliers"]["class_path"].endswith("DigitsDataModule")


def test_fine_tuning_learns_and_leaves_the_module_alone(module):
    data = DigitsDataModule(batch_size=128)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    linear = evaluate(module, data, ["linear"])["linear"]["top1"]
    settings = {"epochs": 6, "learning_rate": 0.2, "augmentation": Views([RandomResizedCrop(8, scale=(0.8, 1.0))], 1)}
    tuned = evaluate(module, data, {"finetune": settings})["finetune"]["top1"]
    assert tuned > linear
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_fine_tuning_on_a_share_sees_that_share_of_each_class(module, monkeypatch):
    data, seen = DigitsDataModule(), []
    original = data.supervised_dataloader
    monkeypatch.setattr(data, "supervised_dataloader", lambda rows: seen.append(rows) or original(rows))
    evaluate(module, data, {"finetune": {"share": 0.1, "epochs": 1, "seed": 3}})
    assert torch.equal(seen[0], balanced_rows(data.labelled_set.targets, share=0.1, seed=3))


def test_fine_tuning_alone_takes_no_features(module, monkeypatch):
    monkeypatch.setattr(module, "forward", None)
    assert evaluate(module, DigitsDataModule(), {"finetune": {"share": 0.1, "epochs": 1}}).keys() == {"finetune"}


def test_hierarchical_targets_are_evaluated_at_each_level(module):
    digits = DigitsDataModule()
    digits.setup()

    def halves(part):
        return TensorImages(part.images, torch.stack([part.targets, part.targets // 5], dim=1))

    data = ImageDataModule(
        halves(digits.train_set),
        halves(digits.test_set),
        num_classes=10,
        target_type="hierarchical",
        levels={"digit": [str(i) for i in range(10)], "half": ["low", "high"]},
    )
    plain = evaluate(module, DigitsDataModule(), ["knn"])["knn"]
    found = evaluate(module, data, ["knn"])["knn"]
    assert found["digit/top1"] == plain["top1"]
    assert found["half/top1"] > plain["top1"]


def test_features_may_come_from_a_submodule():
    network = nn.Sequential(OrderedDict(body=nn.Flatten(), head=nn.Linear(64, 2)))

    def found(module, **given):
        return evaluate(module, DigitsDataModule(), ["knn"], prepare=lambda batch: (batch[0] / 255, batch[1]), **given)

    assert found(network, features="body") == found(nn.Flatten()) != found(network)


def test_the_validation_part_is_evaluated_on_request(module):
    data = DigitsDataModule(val_size=200)
    assert evaluate(module, data, ["knn"], split="val") != evaluate(module, data, ["knn"])
    with pytest.raises(ValueError, match="split: there is no validation part"):
        evaluate(module, DigitsDataModule(), ["knn"], split="val")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "error: give either --ckpt; or --encoder, a timm name; or --weights, with --encoder if it is plain"),
        (("--ckpt", "none.ckpt"), "error: there is no checkpoint none.ckpt"),
        (
            ("--encoder", "test_resnet", "--protocol", "ood"),
            'error: outliers: goes with the protocol "ood": give both, or neither',
        ),
        (
            ("--encoder", "resnet1", "--protocol", "knn"),
            "error: encoder: timm knows no model 'resnet1'; did you mean resnet18",
        ),
    ],
    ids=["nothing", "file", "outliers", "name"],
)
def test_errors_are_one_line(arguments, message, capsys):
    assert failing(capsys, "--data", "DigitsDataModule", *arguments).startswith(message)


def test_fine_tuning_leaves_the_random_state_alone(module):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    evaluate(module, DigitsDataModule(), {"finetune": {"epochs": 1, "share": 0.1}})
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("protocols", "options", "message"),
    [
        ("knn", {}, r"protocols: expected a list such as \['knn'\]"),
        ([], {}, "protocols: expected a list .* got none"),
        (["kn"], {}, "protocols: there is no kn; there are knn, linear"),
        (["knn"], {"split": "train"}, "split: expected one of test, val, got 'train'"),
        ({"knn": {"k": 5000}}, {}, r"knn: k: expected a number from 1 to 1437"),
        ({"knn": {"K": 5}}, {}, "knn: .*unexpected keyword argument 'K'"),
        (["ood"], {"outliers": DigitsDataModule(image_size=16)}, r"outliers: .* got \[1, 16, 16\]"),
    ],
    ids=["string", "nothing", "name", "split", "k", "keyword", "size"],
)
def test_wrong_use_from_python(module, protocols, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(module, DigitsDataModule(), protocols, **options)


def test_a_checkpoint_has_its_own_mean(module, capsys):
    save(module, "last.ckpt")
    found = failing(capsys, "--data", "DigitsDataModule", "--ckpt", "last.ckpt", "--mean=[0.5]")
    assert found == "error: mean: a checkpoint has its own; leave out --mean"


def test_a_folder_for_timm_has_a_card_of_method_data_and_results(module, capsys):
    data = DigitsDataModule()
    module = SimCLR(views(), "test_resnet", image_size=8, in_channels=1, mean=data.mean, std=data.std, small_stem=False)
    trainer = pl.Trainer(max_steps=1, accelerator="cpu", logger=False, barebones=True)
    trainer.fit(module, DigitsDataModule(batch_size=64))
    trainer.save_checkpoint("last.ckpt")
    record = run("--ckpt", "last.ckpt")
    main(["export", "--ckpt", "last.ckpt", "--out", "shared", "--evaluation", "evaluation.json"])
    card = Path("shared/README.md").read_text()
    assert "# test_resnet by SimCLR" in card
    assert "loss: InfoNCE(" in card
    assert "batch_size: 64" in card
    assert f"| knn | top1 | {100 * record['results']['knn']['top1']:.2f} |" in card
    model = timm.create_model("local-dir:shared", pretrained=True).eval()
    images = torch.rand(2, 1, 8, 8)
    mean, std = (torch.tensor(values) for values in (data.mean, data.std))
    torch.testing.assert_close(model((images - mean) / std), module.eval()(images))
    with pytest.raises(SystemExit):
        main(["export", "--ckpt", "last.ckpt", "--out", "encoder.pt2", "--evaluation", "evaluation.json"])
    assert "evaluation: the results go into the model card of a folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["export", "--ckpt", "last.ckpt", "--out", "encoder.pt2", "--frames", "8"])
    assert "frames: expected None, because test_resnet is not for clips, got 8" in capsys.readouterr().err
