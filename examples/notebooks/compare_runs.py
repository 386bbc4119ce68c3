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
# Two runs of SimCLR on handwritten digits, alike but for the temperature of the loss, and beside them the untrained
# encoder: which learned the better representation, and how do the two differ? We save them, load them as one would
# last week's checkpoints, and judge them by numbers and by eye. It takes less than a minute on a CPU, and downloads
# nothing.
#
# To compare other runs, put their checkpoints in place of ours: from "The runs, read back" on, nothing depends on the
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
# All start from the same weights and see the same views of the same images in the same order: what differs in the end
# comes from the temperature alone. The untrained encoder is a run of no epochs. It is the floor, and not a low one: a
# random network keeps much of what so small an image holds.
#
# We don't compare their losses, which have another scale at each temperature.

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
        base_batch_size=None,  # the learning rate is for this batch size
    )
    grid = ViewGrid(images=4, folder=f"runs/{name}")
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[grid], **QUIET)
    trainer.fit(module, data)
    trainer.save_checkpoint(f"runs/{name}/last.ckpt")

# %% [markdown]
# As a run began, `ViewGrid` drew what the augmentation makes of a few images. The two views of a row are what SimCLR
# pulls together. They should differ in whatever doesn't make the image the digit that it is, and still show this digit:
# where you can't tell it any more, the crops cut too much away.

# %%
Image("runs/T = 0.1/views_epoch0_step0.png")

# %% [markdown]
# ## The runs, read back
#
# A checkpoint knows its class and its arguments, and needs to be told neither.

# %%
modules = {name: load_module(f"runs/{name}/last.ckpt") for name in RUNS}
{name: (type(module).__name__, module.loss.temperature) for name, module in modules.items()}

# %% [markdown]
# ## What can be read from the representations
#
# Four protocols, which read labels and leave the encoder as it is: the vote of the 20 nearest training images; a linear
# classifier from all 1,437 labels; one from 1 % and one from 10 % of them, each with three choices of these, whose
# standard deviation is `std`; and retrieval, which asks how early the images of one's own class come among all others:
# `map` is the mean average precision, `curve_ap` the area under the mean curve of precision and recall.


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
# How far apart must two numbers be? Of 360 test images an accuracy of 95 % has a standard error of 1.1 points, and
# another seed moves it by as much again. So the two linear classifiers are too close to call, and those from 1 % of the
# labels as well, where the choice of labels alone moves the result by several points.
#
# In k-NN, with 10 % of the labels and in all of retrieval the lower temperature is ahead by 2 to 4 points. None of
# these alone would be proof. But they agree, and with three other seeds they said the same.

# %% [markdown]
# ## How the representations use their space
#
# These measures need no labels. They are of the features of two views of each training image, the same for all runs.

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
# - *Feature std*: about 1/√96 = 0.102 where features spread over all of their 96 dimensions, 0 where they are all the
#   same.
# - *RankMe* and *LiDAR*: how many of the 96 dimensions are used, RankMe by the features, LiDAR by what tells images
#   apart but not the views of one. (Its authors take 50 views of an image. From two it is a rough guess.)
# - *Alignment*: the squared distance of two views of an image; smaller is closer.
# - *Uniformity*: 0 where features are all the same; the smaller, the more evenly they lie on the sphere.
# - *Similarity ratio*: the cosine of two views of one image, divided by that of two images; larger is better.
#
# The untrained encoder shows why none of them is to be read alone. Its views are the closest by far, because in it
# everything is close to everything: a collapsed representation would look the same.
#
# The trained two have made a trade. A low temperature pushes hardest against the nearest negatives, so at T = 0.1
# features fill the sphere more evenly; at T = 1 two views of an image are closer. Uniformity and the ranks favour the
# one, alignment and the similarity ratio the other. Which is worth more only labels could tell us, above.

# %% [markdown]
# ## Nearest neighbours
#
# The same four test digits for each run, and beside them the training images nearest to them, with class and cosine:
# green where the class is right, red where it is wrong. `NeighbourGrid` is a callback, which draws while a module
# trains, and here without a Trainer.

# %%
for name, module in modules.items():
    display(Markdown(f"**{name}**"), NeighbourGrid(datamodule=data, queries=4).draw(module))

# %% [markdown]
# Look at the red ones: a mistake that you might have made yourself says less against a representation than one that you
# can't explain. And look at the cosines, which are all nearly 1 in the untrained encoder. Four digits are to get a
# feeling for, not to judge by.

# %% [markdown]
# ## From above
#
# The test images laid out in the plane by t-SNE, which doesn't know of the classes that colour them.

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
# A cluster of one colour is a digit that was found without labels. In t-SNE neither the sizes of clusters nor the
# distances between them mean much. Ask which classes run into each other, and whether they are the same in both runs.

# %% [markdown]
# ## What we know now
#
# After ten epochs on 1,437 small images, the lower temperature has given the better neighbours, and a linear classifier
# that is better by less than one run can tell. To choose for your own data, train a few seeds of each, and compare them
# on a validation part, by `DigitsDataModule(val_size=300)` and `evaluate(..., split="val")`: the test images are for
# the end.
#
# The numbers of a checkpoint can be had from the command line, too:
#
#     ssl-modules evaluate --ckpt run.ckpt --data DigitsDataModule --protocol knn linear few-label retrieval
