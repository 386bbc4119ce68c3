# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Comparing runs
#
# We train SimCLR twice on handwritten digits. The runs differ only in the temperature of the loss. Which run learns the
# better representation, and how do the two representations differ? We also compare both with the untrained encoder. We
# save the runs, load their checkpoints, and compare them by metrics and by pictures. This takes less than a minute on a
# CPU and downloads nothing.
#
# To compare other runs, use their checkpoints instead of ours. The cells from "Load the runs" on don't depend on the
# method.

# %%
import logging
from functools import partial

import lightning.pytorch as pl
import matplotlib.pyplot as plt
import torch
from IPython.display import Image, Markdown, display

from ssl_modules import SimCLR, evaluate
from ssl_modules.augmentations import RandomResizedCrop, RandomShift, Views
from ssl_modules.callbacks import EmbeddingPlot, NeighbourGrid, ViewGrid
from ssl_modules.checkpoint import load_module
from ssl_modules.datamodules import DigitsDataModule
from ssl_modules.evaluation import alignment, feature_std, lidar, rankme, similarity_ratio, uniformity
from ssl_modules.evaluation.features import undisturbed
from ssl_modules.losses import InfoNCE

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)

# %% [markdown]
# ## The runs
#
# All runs start from the same weights and train on the same views of the same images in the same order. All differences
# therefore come from the temperature. The untrained encoder is a run of no epochs. It already reaches a high accuracy,
# because a random network preserves much of the information in such small images.
#
# We don't compare the losses, because their scale depends on the temperature. The encoder, `"test_resnet"`, is timm's
# tiny ResNet for tests; we use it because it is fast.

# %%
RUNS = {"untrained": (0.1, 0), "T = 0.1": (0.1, 10), "T = 1": (1.0, 10)}  # temperature and epochs

data = DigitsDataModule(batch_size=128)
data.setup()
augmentation = Views([RandomShift(pixels=1), RandomResizedCrop(8, scale=(0.5, 1.0))])

for name, (temperature, epochs) in RUNS.items():
    pl.seed_everything(0, verbose=False)
    module = SimCLR(
        augmentation=augmentation,
        encoder="test_resnet",
        loss=InfoNCE(temperature),
        image_size=8,
        in_channels=1,
        mean=data.mean,
        std=data.std,
        optimizer=partial(torch.optim.AdamW, lr=2e-3, weight_decay=1e-4),
        base_batch_size=None,  # do not scale the learning rate with the batch size
    )
    grid = ViewGrid(images=4, folder=f"runs/{name}")
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[grid], **QUIET)
    trainer.fit(module, data)
    trainer.save_checkpoint(f"runs/{name}/last.ckpt")

# %% [markdown]
# At the start of a run, `ViewGrid` drew augmented views of a few images. SimCLR makes the embeddings of the two views
# in a row similar. The two views should differ, but both should still show the digit. If you can't recognise the digit,
# the crops are too small.

# %%
Image("runs/T = 0.1/views_epoch0_step0.png")

# %% [markdown]
# ## Load the runs
#
# A checkpoint holds the name and the arguments of its class, so you don't have to pass them.

# %%
modules = {name: load_module(f"runs/{name}/last.ckpt") for name in RUNS}
{name: (type(module).__name__, module.loss.temperature) for name, module in modules.items()}

# %% [markdown]
# ## Evaluate the representations
#
# We use four protocols. They read labels, but don't change the encoder:
#
# - `knn`: the vote of the 20 nearest training images.
# - `linear`: a linear classifier trained with all 1,437 labels.
# - `few-label`: linear classifiers trained with 1 % and with 10 % of the labels. Each is the mean over three random
#   subsets, and `std` is the standard deviation.
# - `retrieval`: each image ranks all others by similarity, and images of its class should come first. `map` is the mean
#   average precision, `curve_ap` the area under the mean precision-recall curve.


# %%
def table(columns, spec):
    rows = list(next(iter(columns.values())))
    lines = [["", *columns], ["---"] + ["---:"] * len(columns)]
    lines += [[row, *(format(column[row], spec) for column in columns.values())] for row in rows]
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))


protocols = {"knn": {"k": 20}, "linear": {}, "few-label": {"shares": (0.01, 0.1)}, "retrieval": {"k": (1,)}}
probes = {}
for name, module in modules.items():
    results = evaluate(module, data, protocols)
    probes[name] = {
        f"{protocol}: {metric}": value
        for protocol, metrics in results.items()
        for metric, value in metrics.items()
        if "top5" not in metric
    }
table(probes, ".1%")

# %% [markdown]
# Which differences mean something? With 360 test images, an accuracy of 95 % has a standard error of 1.1 points.
# Another seed changes it by about as much. Therefore we can't say which run has the better linear classifier. The same
# holds for 1 % of the labels, where the choice of the labels changes the result by several points.
#
# For k-NN, for 10 % of the labels and for all retrieval metrics, the lower temperature is better by 2 to 4 points. A
# single one of these differences would prove little. But they agree, and three other seeds gave the same result.

# %% [markdown]
# ## How the representations use their space
#
# These measures need no labels. We compute them from the features of two views of each training image. The views are
# the same for all runs.

# %%
views = augmentation(data.train_set.images, torch.Generator().manual_seed(0))
measures = {}
for name, module in modules.items():
    with undisturbed(module):  # in eval mode, without gradients
        first, second = (module(view) for view in views)
    measures[name] = {
        "feature std": feature_std(first),
        "RankMe": rankme(first),
        "LiDAR": lidar(torch.stack([first, second], dim=1)),
        "alignment": alignment(first, second),
        "uniformity": uniformity(first),
        "similarity ratio": similarity_ratio(first, second),
    }
table(measures, ".3f")

# %% [markdown]
# - *Feature std* is about 1/√96 = 0.102 if the features spread over all 96 dimensions, and 0 if all features are equal.
# - *RankMe* and *LiDAR* estimate how many of the 96 dimensions are used: RankMe by all features, LiDAR by the
#   differences between images that are not also differences between views of one image. The authors of LiDAR use 50
#   views per image; with two views it is a rough estimate.
# - *Alignment* is the squared distance between two views of an image. Smaller values mean closer views.
# - *Uniformity* is 0 if all features are equal. Smaller values mean that the features are more evenly spread on the
#   sphere.
# - *Similarity ratio* is the cosine of two views of one image, divided by the cosine of two images. Larger is better.
#
# The untrained encoder shows why you shouldn't use a single measure. Its views are by far the closest, because all of
# its features are close to each other. A collapsed representation would have the same alignment.
#
# The two trained encoders differ as follows. With a low temperature, the loss weights the nearest negatives most, so
# with T = 0.1 the features are more evenly spread. With T = 1, two views of an image are closer. T = 0.1 is better by
# uniformity, RankMe and LiDAR. T = 1 is better by alignment and by the similarity ratio. Only labels can show which
# representation is more useful, as in the table above.

# %% [markdown]
# ## Nearest neighbours
#
# For each run, the figure shows the same four test digits and their nearest training images, with class and cosine. The
# class is green if it is right and red if it is wrong. `NeighbourGrid` is a callback that draws while a module trains.
# Here we use it without a Trainer.

# %%
for name, module in modules.items():
    display(Markdown(f"**{name}**"), NeighbourGrid(datamodule=data, queries=4).draw(module))

# %% [markdown]
# Look at the wrong neighbours, in red. A mistake that you might make yourself is less serious than one that you can't
# explain. Look also at the cosines: with the untrained encoder, all are nearly 1. Four digits give an impression, but
# they are too few for a conclusion.

# %% [markdown]
# ## The features in two dimensions
#
# The figure shows the features of the test images, projected by t-SNE. The colours are the classes; t-SNE doesn't use
# them.

# %%
plot = EmbeddingPlot(projection="tsne")
figure, axes = plt.subplots(1, len(modules), figsize=(13, 4.5), layout="constrained")
for axis, (name, module) in zip(axes, modules.items(), strict=True):
    with undisturbed(module):
        points = plot.project(module(data.test_set.images))
    dots = axis.scatter(*points.T, c=data.test_set.targets, cmap="tab10", s=12)
    axis.set(title=name, xticks=[], yticks=[])
figure.legend(*dots.legend_elements(), loc="outside right center", frameon=False)
plt.show()

# %% [markdown]
# A cluster of one colour is a digit that the method separated without labels. In t-SNE, neither the size of a cluster
# nor the distance between clusters means much. Look at which classes overlap, and whether they are the same in both
# runs.

# %% [markdown]
# ## Conclusion
#
# After ten epochs on 1,437 small images, the run with the lower temperature has the better neighbours. Its linear
# classifier is also better, but the difference is too small to be sure from one run. To choose a temperature for your
# own data, train each temperature with a few seeds, and compare the runs on a validation part. For this, use
# `DigitsDataModule(val_size=300)` and `evaluate(..., split="val")`. Use the test images only at the end.
#
# You can also evaluate a checkpoint from the command line:
#
# ssl-modules evaluate --ckpt run.ckpt --data DigitsDataModule --protocol knn linear few-label retrieval
