"""The command's progress bar."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import CustomBarColumn, RichProgressBarTheme


class ProgressBar(RichProgressBar):
    """Lightning's progress bar, which fits into a terminal of 80 columns and shows each metric on its own line.

    It shows only the part of a metric's name after the last slash, unless two metrics would then have the same name. It
    leaves out the number of the run's folder, and its bar is shorter.
    """

    def __init__(self) -> None:
        super().__init__(theme=RichProgressBarTheme(metrics_text_delimiter="\n"))

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        """Return Lightning's columns, with a bar of ten characters."""
        columns = super().configure_columns(trainer)
        for column in columns:
            if isinstance(column, CustomBarColumn):
                column.bar_width = 10
        return columns

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the bar's metrics under their short names."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return shortened(metrics)


def shortened(metrics: dict[str, Any]) -> dict[str, Any]:
    """Shorten each metric's name to its last part, unless two metrics would then have the same name.

    Args:
        metrics: names to values.

    Example:
        >>> shortened({"train/loss": 4.0, "probe/knn_top1": 0.9, "ema/knn_top1": 0.8})
        {'loss': 4.0, 'probe/knn_top1': 0.9, 'ema/knn_top1': 0.8}
    """
    last = [name.rpartition("/")[2] for name in metrics]
    return {
        short if last.count(short) == 1 else name: value
        for short, (name, value) in zip(last, metrics.items(), strict=True)
    }
