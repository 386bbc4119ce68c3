"""Helpers that read shards."""

import torch

from ssl_modules.datamodules import (
    StreamingDataModule,
)


def stream(url, **settings):
    data = StreamingDataModule(url, **{"batch_size": 32, "num_workers": 0, "return_index": True, **settings})
    data.setup()
    return data


def rows(loader):
    return torch.cat([batch[2] for batch in loader])
