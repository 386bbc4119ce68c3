# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # First steps
#
# We take a method, change one of its five aspects and one hook, train it on handwritten digits without their labels,
# watch the representation get better, and keep what was learned. It takes less than a minute on a CPU, and downloads
# nothing.
#
# The method is one name. Put another in its place, and the rest of the notebook stays as it is. Only RINCE wants
# more than images, and says so: labels of two levels.

# %%
from functools import partial

import lightning.pytorch as pl
import matplotlib.pyplot as plt
import timm
import torch

from ssl_modules import SimCLR
from ssl_modules.augmentations import Operation, PatchGrid, RandomResizedCrop, RandomShift, Views
from ssl_modules.augmentations.operation import per_image, uniform
from ssl_modules.callbacks import OnlineKNNProbe, OnlineLinearProbe, ViewGrid
from ssl_modules.datamodules import DigitsDataModule
from ssl_modules.encoders import shrink_stem

METHOD = SimCLR

# %% [markdown]
# ## The data
#
# 1,797 digits of 8 x 8 pixels, which come with scikit-learn. A batch is `(images, targets)`, the images as bytes: the
# method makes its own views of them, and never looks at the targets.

# %%
pl.seed_everything(0)
data = DigitsDataModule(batch_size=128)
data.setup()
images, targets = next(iter(data.train_dataloader()))
images.shape, images.dtype, data.mean, data.std

# %% [markdown]
# ## An augmentation of our own
#
# Digits must not be mirrored, and have no colour. But people press their pens differently: we let the strokes of each
# image swell by an amount of its own. An operation draws its parameters, one per image, in `draw`, and applies them to
# the whole batch in `transform`.


# %%
class RandomInk(Operation):
    """Moves every pixel towards the brightest of its 3 x 3 neighbourhood, by a share drawn for each image."""

    def __init__(self, most: float = 0.5) -> None:
        super().__init__()
        self.most = most

    def draw(self, images, generator=None):
        return uniform(0, self.most, images, generator)

    def transform(self, images, parameters):
        swollen = torch.nn.functional.max_pool2d(images, kernel_size=3, stride=1, padding=1)
        return torch.lerp(images, swollen, per_image(parameters))


# %% [markdown]
# ## A method of our own
#
# The augmentation is the one aspect we choose; extraction, similarity and loss stay those of the method's paper. The
# encoder is a very small one of timm's. CPC alone compares the patches of an image, so for it the augmentation ends by
# cutting them. The hook is Lightning's: after every epoch we keep what was logged, and print
# some of it.

# %%
SHOWN = ("train/loss_epoch", "probe/knn_top1", "probe/linear_top1")
PATCHES = [PatchGrid(size=2, overlap=1)] if METHOD.__name__ == "CPC" else []


class InkMethod(METHOD):
    def __init__(self, mean, std, most_ink: float = 0.5, learning_rate: float = 2e-3) -> None:
        super().__init__(
            augmentation=Views(
                [RandomShift(pixels=1), RandomResizedCrop(8, scale=(0.5, 1.0)), RandomInk(most_ink), *PATCHES]
            ),
            encoder="test_resnet",
            image_size=8,
            in_channels=1,
            mean=mean,
            std=std,
            optimizer=partial(torch.optim.AdamW, lr=learning_rate, weight_decay=1e-4),
            base_batch_size=None,  # the learning rate is for this batch size
        )
        self.history: list[dict[str, float]] = []

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        logged = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        self.history.append(logged)
        print(f"epoch {len(self.history):2}", *(f"  {name} {logged[name]:.3f}" for name in SHOWN))


module = InkMethod(data.mean, data.std)

# %% [markdown]
# What the encoder will see: beside each image two views of it. The training makes the views of an image alike, and
# keeps them apart from those of all others.

# %%
ViewGrid(images=6).draw(module, images)

# %% [markdown]
# ## Training, watched by two probes
#
# The probes ask how well labels can be read from the representation: by the labels of the nearest training images, and
# by a linear classifier. They judge after each epoch, and change nothing in the training. First, the untrained encoder.

# %%
knn, linear = OnlineKNNProbe(datamodule=data), OnlineLinearProbe(datamodule=data)
before = knn.evaluate(module) | linear.evaluate(module)
before

# %%
trainer = pl.Trainer(
    max_epochs=10,
    accelerator="cpu",
    callbacks=[knn, linear],
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,  # the hook tells enough
)
trainer.fit(module, data)

# %%
history = [before, *module.history]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
for name in ("probe/knn_top1", "probe/linear_top1"):
    left.plot([epoch[name] for epoch in history], marker=".", label=name)
left.set(xlabel="epoch", ylabel="accuracy on the test digits")
left.legend()
epochs = range(1, len(history))
right.plot(epochs, [epoch["train/loss_epoch"] for epoch in module.history], marker=".", label="train/loss")
right.plot(epochs, [epoch["train/chance"] for epoch in module.history], "--", color="gray", label="train/chance")
right.set(xlabel="epoch", ylabel="loss")
right.legend()
plt.show()

# %% [markdown]
# ## Keep it
#
# A checkpoint holds the arguments that the class was made with, so it loads without being told any, also when the
# class lives in a notebook.

# %%
trainer.save_checkpoint("ink.ckpt")
again = InkMethod.load_from_checkpoint("ink.ckpt", map_location="cpu")

module.eval()
again.eval()
with torch.no_grad():
    same = torch.equal(module(data.test_set.images), again(data.test_set.images))
same

# %% [markdown]
# Those who only want the encoder need little of this package: the weights have timm's own names, and the file says
# what else one must know, such as mean and standard deviation. Up to 64 pixels a ResNet has a stem of its own, which a
# plain one must be given too.

# %%
weights = again.export_encoder("encoder.safetensors")
plain = timm.create_model("test_resnet", in_chans=1, num_classes=0).eval()
shrink_stem(plain)
plain.load_state_dict(weights)

normalised = (images / 255 - data.mean[0]) / data.std[0]
with torch.no_grad():
    torch.testing.assert_close(plain(normalised), again.encoder.network(normalised))
