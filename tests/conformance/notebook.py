"""Run as a script: subclasses of each method, defined in ``__main__`` with an own aspect, train, save and load."""

import sys
from pathlib import Path

import torch
from conformance.cases import CASES, digits, trainer

from ssl_modules.similarities import Cosine


class Sharp(Cosine):
    """A user's own aspect."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x, y):
        return self.factor * super().forward(x, y)


def main(folder: Path) -> None:
    for case in CASES:

        class Mine(case.method):
            """A user's own method, as people write it."""

            def __init__(self, margin=0.5, **kwargs):
                super().__init__(**kwargs)
                self.margin = margin

        path = folder / f"{case}.ckpt"
        module = Mine(0.25, **case.small(), similarity=Sharp(2.0))
        t = trainer(max_steps=2)
        t.fit(module, digits())
        t.save_checkpoint(path)
        loaded = Mine.load_from_checkpoint(path)
        assert loaded.margin == 0.25
        assert type(loaded.similarity) is Sharp
        assert loaded.similarity.factor == 2.0
        assert loaded.hparams == module.hparams
        torch.testing.assert_close(loaded.state_dict(), module.state_dict(), rtol=0, atol=0)
        trainer(max_steps=3).fit(Mine(0.25, **case.small(), similarity=Sharp(2.0)), digits(), ckpt_path=path)
        (folder / f"{case}.loaded").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
