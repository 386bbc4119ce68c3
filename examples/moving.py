"""Train methods on videos whose class is the kind of motion, and draw the results.

examples/moving_videos.py describes the videos.

    python examples/moving.py make data/moving
    python examples/moving.py train data/moving --rows simclr rince --seeds 0 1 --epochs 10
    python examples/moving.py picture data/moving --row rince --out moving.png

``train`` appends a line of JSON for each run to ``results.jsonl`` in the folder, unless the file already has the run.
Then it prints a table of all runs with the same options. The table in docs/howto/videos.md comes from
examples/results/moving.jsonl.

The script needs PyAV, Fashion-MNIST and, for the picture, matplotlib. ``--root`` is the folder of Fashion-MNIST, where
missing files are downloaded.
"""

import argparse
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from moving_videos import MOTIONS, make
from torch import Tensor, nn

from ssl_modules import RINCE, SCE, ContrastiveModule, SimCLR
from ssl_modules.augmentations import Augmentation, ClipViews, MoCoViews, SCEViews, SimCLRViews
from ssl_modules.callbacks import OnlineProbe
from ssl_modules.datamodules import VideoFolderDataModule
from ssl_modules.encoders import SmallR3D
from ssl_modules.evaluation import retrieval
from ssl_modules.evaluation.protocols import Labelled, linear_protocol
from ssl_modules.extractions import Queue
from ssl_modules.losses import RINCELoss, SCELoss

CLIP: dict[str, Any] = {"frames": 8, "seconds": 7 / 6, "image_size": 32, "decode_size": 36}
APART: list[tuple[float, float | None]] = [(0.0, 0.4), (1.0, None)]  # seconds between RINCE's first and other clips
SIZE = CLIP["image_size"]
NAMES = {
    "untrained": "untrained, on clips",
    "simclr-frames": "SimCLR on single frames",
    "simclr": "SimCLR on clips",
    "sce": "SCE on clips",
    "rince": "RINCE on clips, three ranks",
    "rince-one-rank": "RINCE on clips, one rank",
}


def clip_views(part: Augmentation, other: Augmentation | None = None) -> ClipViews:
    return ClipViews([part, part if other is None else other], clips=(0, 1))


def methods(keys: int) -> dict[str, tuple[type[ContrastiveModule], dict[str, Any], dict[str, Any]]]:
    """Return for each row its method, the method's arguments and the arguments of the data module."""
    one, scale = partial(SimCLRViews, SIZE, views=1, strength=0.5, blur=False), (0.4, 1.0)
    plain = one(min_scale=scale[0])
    ranked = [MoCoViews(SIZE, views, blur=False, min_scale=scale[0]) for views in (2, 1, 1)]
    teacher: dict[str, Any] = {"size": keys, "momentum": 0.99}
    return {
        "simclr-frames": (SimCLR, {"augmentation": clip_views(plain)}, {"frames": 1, "eval_clips": 6}),
        "simclr": (SimCLR, {"augmentation": clip_views(plain)}, {}),
        "sce": (
            SCE,
            {
                "augmentation": clip_views(*(SCEViews(SIZE, [kind], scale) for kind in ("weak", "strong"))),
                "extraction": Queue(batch_norm=True, reference=True, **teacher),
                "loss": SCELoss(temperature=0.1, teacher_temperature=0.07),
            },
            {},
        ),
        "rince": (
            RINCE,
            {
                "augmentation": ClipViews([*ranked], clips=(0, 1, 2)),
                "extraction": Queue(view_ranks=(1, 2, 3), **teacher),
                "loss": RINCELoss((0.1, 0.225, 0.35)),
            },
            {"clips": 3, "apart": APART},
        ),
        "rince-one-rank": (
            RINCE,
            {
                "augmentation": ClipViews([*ranked], clips=(0, 1, 2)),
                "extraction": Queue(view_ranks=(1, 1, 1), **teacher),
                "loss": RINCELoss((0.1,)),
            },
            {"clips": 3, "apart": APART},
        ),
    }


def data_of(folder: Path, seed: int, batch_size: int, **given: Any) -> VideoFolderDataModule:
    settings = {**CLIP, "clips": 2, "eval_clips": 2, "in_channels": 1, "num_workers": 0, **given}
    data = VideoFolderDataModule(
        folder / "train", test=folder / "test", seed=seed, batch_size=batch_size, mean=[0.2], std=[0.25], **settings
    )
    data.setup()
    return data


def build(row: str, data: VideoFolderDataModule, seed: int, lr: float) -> ContrastiveModule:
    pl.seed_everything(seed, verbose=False)
    keys = max(len(data.train_set) // 4, 3 * data.batch_size)  # the keys of a batch of three views must fit
    method, arguments, _ = methods(keys)[row]
    return method(
        encoder=SmallR3D(in_channels=1, width=8),
        image_size=SIZE,
        in_channels=1,
        mean=data.mean,
        std=data.std,
        optimizer=partial(torch.optim.AdamW, lr=lr, weight_decay=1e-4),
        base_batch_size=None,
        **arguments,
    )


@torch.no_grad()
def features(network: nn.Module, loader: Any) -> Labelled:
    network.eval()
    made = [(network(clips), targets) for clips, targets, *_ in loader]
    return Labelled(*(torch.cat(parts) for parts in zip(*made, strict=True)))


def measure(module: nn.Module, data: VideoFolderDataModule) -> dict[str, float]:
    """Return R@1 of test videos among the training videos, and the accuracy of a linear classifier, in %."""
    train, test = (features(module, loader) for loader in (data.probe_train_dataloader(), data.test_dataloader()))
    found = retrieval(*test, *train, k=(1,), centre=True)
    return {"R@1": 100 * found["recall@1"], "linear": 100 * linear_protocol(train, test)["top1"]}


class Clock(pl.Callback):
    """Measures the processor time of loading and of the whole training, in seconds."""

    def __init__(self) -> None:
        self.loading = self.started = self.before = 0.0

    def on_train_start(self, *_: Any) -> None:
        self.started = self.before = time.process_time()

    def on_train_batch_start(self, *_: Any) -> None:
        self.loading += time.process_time() - self.before

    def on_train_batch_end(self, *_: Any) -> None:
        self.before = time.process_time()


def train(row: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate a row; return its metrics."""
    folder, epochs, batch_size, lr = given.folder, given.epochs, given.batch_size, given.lr
    torch.set_num_threads(1)
    is_untrained = row == "untrained"
    settings = {} if is_untrained else methods(1)[row][2]
    data = data_of(folder, seed, batch_size, **settings)
    module = build("simclr" if is_untrained else row, data, seed, lr)
    clock = Clock()
    if not is_untrained:
        quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        run = pl.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, callbacks=[clock], **quiet)
        run.fit(module, datamodule=data)
    seconds = time.process_time() - clock.started if clock.started else 0.0
    options = {} if is_untrained else {"epochs": epochs, "batch_size": batch_size, "lr": lr}
    measures = {"row": row, "seed": seed, **options, "videos": len(data.train_set)}
    share = clock.loading / seconds if seconds else 0.0
    hardware = f"1 thread, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    return {**measures, **measure(module, data), "cpu_seconds": seconds, "loading": share, "hardware": hardware}


def table(runs: list[dict[str, Any]]) -> str:
    """Return the metrics of each row as Markdown, with the values of all seeds."""
    lines = ["| representation | R@1 | linear | CPU seconds |", "|---|---|---|---|"]
    for row, name in NAMES.items():
        found = sorted((run for run in runs if run["row"] == row), key=lambda run: run["seed"])
        if found:
            cells = [" / ".join(f"{run[metric]:.1f}" for run in found) for metric in ("R@1", "linear")]
            seconds = "" if row == "untrained" else f"{sum(run['cpu_seconds'] for run in found) / len(found):.0f}"
            lines.append(f"| {name} | {' | '.join(cells)} | {seconds} |")
    return "\n".join(lines)


class Curve(OnlineProbe):
    """Stores R@1 after each epoch."""

    def measure(self, module: Any, trainer: Any) -> dict[str, float]:
        train, test = self.read("train", module, trainer), self.read("test", module, trainer)
        self.curve = [*getattr(self, "curve", []), retrieval(*test, *train, k=(1,), centre=True)["recall@1"]]
        return {"recall_at_1": self.curve[-1]}


def picture(given: argparse.Namespace) -> None:
    """Draw clips, their views, nearest neighbours of test videos, and R@1 after each epoch."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    row, folder, epochs, batch_size, lr = given.row, given.folder, given.epochs, given.batch_size, given.lr
    torch.set_num_threads(1)
    data = data_of(folder, 0, batch_size, **methods(1)[row][2])
    module = build(row, data, 0, lr)
    curve = Curve(datamodule=data)
    before = curve.evaluate(module)["probe/recall_at_1"]
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    pl.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, callbacks=[curve], **quiet).fit(module, data)

    train, test = (features(module, loader) for loader in (data.probe_train_dataloader(), data.test_dataloader()))
    centred = [F.normalize(part.features - part.features.mean(0)) for part in (test, train)]
    nearest = (centred[0] @ centred[1].T).argmax(1)
    figure = Figure(figsize=(12, 10), layout="constrained")
    left, right = figure.subfigures(1, 2)
    strips(left, *examples(data, module), "Clips, and the first three of their views")
    chosen = [(test.targets == label).nonzero()[0].item() for label in range(len(MOTIONS))]
    upper, lower = right.subfigures(2, 1, height_ratios=(3, 2))
    rows, names = [], []
    for query in chosen:
        for part, index, what in ((data.test_set, query, "query"), (data.train_set, nearest[query].item(), "nearest")):
            clips, target = part[index]
            rows.append(clips[0])
            names.append(f"{what}: {data.class_names[target]}")
    strips(upper, rows, names, "Test videos and their nearest training videos")
    axes = lower.subplots()
    axes.plot(range(len(curve.curve)), [100 * value for value in [before, *curve.curve[-epochs:]]][: len(curve.curve)])
    axes.set(xlabel="epoch", ylabel="R@1 in %", title=f"{row}: R@1, chance {100 / len(MOTIONS):.0f} %")
    figure.savefig(given.out, dpi=110)


def examples(data: VideoFolderDataModule, module: ContrastiveModule) -> tuple[list[Tensor], list[str]]:
    clips, targets, *_ = next(iter(data.train_dataloader()))
    views = module.augmentation(clips[:3], torch.Generator().manual_seed(0))[:3]
    rows, names = [], []
    for index in range(3):
        rows += [clips[index, 0] / 255, *(view[index] for view in views)]
        names += [data.class_names[targets[index]], *(f"view {number}" for number in range(1, len(views) + 1))]
    return rows, names


def strips(figure: Any, clips: list[Tensor], names: list[str], title: str) -> None:
    """Draw each clip [ch, T, H, W] as a strip of its frames."""
    figure.suptitle(title)
    for axes, clip, name in zip(figure.subplots(len(clips), 1), clips, names, strict=True):
        axes.imshow(clip[0].transpose(0, 1).flatten(1).float(), cmap="gray")  # [H, T W]
        axes.set_axis_off()
        axes.set_title(name, fontsize=8, loc="left")


def jobs(arguments: argparse.Namespace) -> Iterator[tuple[str, int]]:
    yield from ((row, seed) for seed in arguments.seeds for row in arguments.rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making, training, drawing = (commands.add_parser(name) for name in ("make", "train", "picture"))
    rows = list(NAMES)
    making.add_argument("--train", type=int, default=1800)
    making.add_argument("--test", type=int, default=600)
    making.add_argument("--root", default="data")
    training.add_argument("--rows", nargs="+", choices=rows, default=rows)
    training.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    drawing.add_argument("--row", choices=rows[1:], default="rince")
    drawing.add_argument("--out", type=Path, default=Path("moving.png"))
    for command in (making, training, drawing):
        command.add_argument("folder", type=Path)
    for command in (training, drawing):
        command.add_argument("--epochs", type=int, default=20)
        command.add_argument("--batch-size", type=int, default=64)
        command.add_argument("--lr", type=float, default=2e-3)
    given = parser.parse_args()
    if given.command == "make":
        make(given.folder, given.train, given.test, given.root)
    elif given.command == "picture":
        picture(given)
    else:
        path = given.folder / "results.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        options = {name: getattr(given, name) for name in ("epochs", "batch_size", "lr")}
        runs = [run for run in map(json.loads, lines) if run["row"] == "untrained" or options.items() <= run.items()]
        for row, seed in jobs(given):
            if any((run["row"], run["seed"]) == (row, seed) for run in runs):
                continue
            runs.append(train(row, seed, given))
            print(json.dumps(runs[-1]), flush=True)
            with path.open("a") as file:
                file.write(json.dumps(runs[-1]) + "\n")
        print(table(runs))


if __name__ == "__main__":
    main()
