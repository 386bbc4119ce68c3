"""A run saves its config in its folder and never replaces another run's config."""

from pathlib import Path

import pytest
import yaml

from ssl_modules.cli import ContrastiveCLI, main

SMALL = ("--model", "SimCLR", "--model.encoder=test_resnet", "--data", "DigitsDataModule", "--data.val_size=64")
QUIET = (
    *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    *("--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1"),
    *("--trainer.max_epochs=1", "--knn_probe=null", "--linear_probe=null"),
)
FIXED = (
    "--trainer.logger=CSVLogger",
    "--trainer.logger.save_dir=.",
    "--trainer.logger.name=null",
    "--trainer.logger.version=run",
)


def configs():
    return sorted(path.name for path in Path("run").glob("config*"))


@pytest.mark.slow
def test_every_command_works_in_the_folder_of_a_run(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    main(["fit", *SMALL, *QUIET, *FIXED])
    first = Path("run/config.yaml").read_text()
    ckpt = next(path for path in Path("run").rglob("last.ckpt"))
    for command in ("validate", "test", "predict"):
        main([command, "--config", "run/config.yaml", "--ckpt_path", str(ckpt)])
    main(["fit", "--config", "run/config.yaml", "--trainer.max_epochs=2", "--ckpt_path", str(ckpt)])
    assert Path("run/config.yaml").read_text() == first
    assert configs() == ["config.yaml", *(f"config_{number}.yaml" for number in (1, 2, 3))]
    assert yaml.safe_load(Path("run/config_3.yaml").read_text())["trainer"]["max_epochs"] == 2
    main(["fit", "--config", "run/config.yaml", "--trainer.max_epochs=2", "--ckpt_path", str(ckpt)])
    assert len(configs()) == 4  # the config is saved already


@pytest.mark.parametrize("settings", [{}, {"save_config_kwargs": {"overwrite": True}}])
def test_a_config_with_the_same_content_is_not_written_again(tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run/config.yaml").write_text("a: of another tool\n")
    for _ in range(2):
        ContrastiveCLI(args=["fit", *SMALL, *QUIET, *FIXED, "--trainer.max_steps=1"], **settings)
    if settings:
        assert configs() == ["config.yaml"]
        assert "SimCLR" in Path("run/config.yaml").read_text()
    else:
        assert configs() == ["config.yaml", "config_1.yaml"]
        assert Path("run/config.yaml").read_text() == "a: of another tool\n"
        assert "SimCLR" in Path("run/config_1.yaml").read_text()
