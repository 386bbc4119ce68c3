"""``examples/moving.py`` makes videos, trains on them and draws a picture. The configs for videos build."""

import importlib
import json
from pathlib import Path

import miniatures
import pytest
import torch
import videos

from ssl_modules.cli import ContrastiveCLI
from ssl_modules.datamodules.clips import duration

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def moving():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module("moving")


@pytest.fixture(scope="module")
def moving_videos(moving):
    return importlib.import_module("moving_videos")


def knn_accuracy(queries, expected, bank, targets, k=20):
    nearest = torch.cdist(queries, bank).topk(k, largest=False).indices
    return float((targets[nearest].mode(dim=1).values == expected).float().mean())


@pytest.fixture(scope="module")
def folder(tmp_path_factory, moving):
    root = tmp_path_factory.mktemp("moving")
    with pytest.MonkeyPatch.context() as patch:
        miniatures.apply(patch, miniatures.write_fashion_mnist(root))
        moving.make(root / "videos", train=18, test=6, root=str(root))
    return root / "videos"


def test_each_class_has_its_videos(folder, moving):
    for part, count in (("train", 3), ("test", 1)):
        assert sorted(place.name for place in (folder / part).iterdir()) == sorted(moving.MOTIONS)
        assert {len([*place.glob("*.mp4")]) for place in (folder / part).iterdir()} == {count}
    assert duration(next(folder.rglob("*.mp4"))) == pytest.approx(3.0)


def pose(matrices):
    """Return place, size, cosine and sine of the angle of a garment, [T] each."""
    linear, shift = matrices[:, :, :2], matrices[:, :, 2:]
    x, y = (-torch.linalg.solve(linear, shift)[..., 0]).unbind(1)
    size = torch.linalg.det(linear).rsqrt()
    return x, y, size, linear[:, 0, 0] * size, linear[:, 0, 1] * size


@pytest.mark.parametrize("name", ["vertical", "horizontal", "ellipse", "pulse", "spin", "jumps"])
def test_garments_move_as_the_name_of_the_motion_says(name, moving_videos):
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        x, y, size, cos, sin = pose(moving_videos.motion(name, generator))
        turned = torch.atan2(sin, cos).std() > 0.1
        moves = [float(values.max() - values.min()) > 0.1 for values in (x, y, size)]
        assert (*moves, bool(turned)) == {
            "vertical": (False, True, False, False),
            "horizontal": (True, False, False, False),
            "ellipse": (True, True, False, False),
            "pulse": (False, False, True, False),
            "spin": (False, False, False, True),
            "jumps": (True, True, False, False),
        }[name]


def test_the_page_shows_the_measured_values(moving):
    lines = (EXAMPLES / "results" / "moving.jsonl").read_text().splitlines()
    assert moving.table([json.loads(line) for line in lines]) in (EXAMPLES.parent / "docs/howto/videos.md").read_text()


def test_a_single_frame_does_not_show_the_class(moving_videos):
    generator = torch.Generator().manual_seed(0)
    names = [*moving_videos.MOTIONS] * 400
    poses = torch.stack([torch.stack(pose(moving_videos.motion(name, generator)))[:, 20] for name in names])
    features = (poses - poses.mean(0)) / poses.std(0)
    targets = torch.arange(len(names)) % len(moving_videos.MOTIONS)
    train, test = slice(0, 1800), slice(1800, None)
    top1 = knn_accuracy(features[test], targets[test], features[train], targets[train])
    assert top1 == pytest.approx(1 / 6, abs=4 * (1 / 6 * 5 / 6 / 600) ** 0.5)  # four standard deviations


@pytest.mark.slow
def test_a_run_is_measured_and_drawn(folder, moving, tmp_path, monkeypatch):
    options = ["--epochs=1", "--batch-size=6"]
    monkeypatch.setattr("sys.argv", ["moving.py", "train", str(folder), "--seeds=0", *options])
    moving.main()
    moving.main()  # repeats no run
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == ["untrained", *moving.methods(1)]
    assert all(0 <= line[measure] <= 100 for line in lines for measure in ("R@1", "linear"))
    assert all(0 < line["loading"] < 1 for line in lines[1:])
    out = tmp_path / "moving.png"
    monkeypatch.setattr("sys.argv", ["moving.py", "picture", str(folder), f"--out={out}", *options])
    moving.main()
    assert out.stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simclr_moving", "sce_moving", "rince_moving", "rince_ucf101", "sce_kinetics400"])
def test_the_configs_for_videos_build(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part in ("train", "test"):
        for motion in ("ellipse", "spin"):
            videos.write(tmp_path / "data" / "moving" / part / motion / "0.mp4", 3)
    path = EXAMPLES / "configs" / f"{name}.yaml"
    one_cpu = ["--trainer.devices=1", "--trainer.accelerator=cpu", "--trainer.precision=32-true"]
    cli = ContrastiveCLI(run=False, args=["--config", str(path), *one_cpu])
    assert max(cli.model.augmentation.clips) == cli.datamodule.clips - 1
    assert cli.datamodule.eval_clips >= cli.datamodule.clips or not cli.datamodule.val_size
    assert cli.model.encoder.in_channels == cli.datamodule.in_channels
    ranks = cli.model.extraction.arguments.get("view_ranks")
    if ranks:
        assert len(cli.model.loss.arguments["temperatures"]) == max(ranks)
        assert len(cli.datamodule.apart) == cli.datamodule.clips - 1
    assert ("Not run here." in path.read_text()) == (not name.endswith("moving"))
