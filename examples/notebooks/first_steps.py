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
# In this notebook we change one of the five aspects and one hook of a method. We train the method on handwritten digits
# without their labels, measure how the representation improves, and save it. This takes less than a minute on a CPU and
# downloads nothing.
#
# To try another method, change only the name `METHOD`. RINCE is the only exception: it needs labels of two levels, and
# raises an error without them.

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
# The data are 1,797 digits of 8 x 8 pixels, which come with scikit-learn. A batch is `(images, targets)` with images of
# type uint8. The method makes views of the images, and doesn't read the targets.

# %%
pl.seed_everything(0)
data = DigitsDataModule(batch_size=128)
data.setup()
images, targets = next(iter(data.train_dataloader()))
images.shape, images.dtype, data.mean, data.std

# %% [markdown]
# ## Our own augmentation
#
# We don't mirror digits, and they have no colour. But their strokes differ in width, because people press their pens
# differently. Our operation makes the strokes of each image wider by a random amount. An operation draws its parameters
# in `draw`, one per image, and applies them to the whole batch in `transform`.


# %%
class RandomInk(Operation):
    """Moves each pixel towards the brightest pixel of its 3 x 3 neighbourhood, by a random share for each image."""

    def __init__(self, most: float = 0.5) -> None:
        super().__init__()
        self.most = most

    def draw(self, images, generator=None):
        return uniform(0, self.most, images, generator)

    def transform(self, images, parameters):
        swollen = torch.nn.functional.max_pool2d(images, kernel_size=3, stride=1, padding=1)
        return torch.lerp(images, swollen, per_image(parameters))


# %% [markdown]
# ## Our own method
#
# We choose augmentation and encoder. Extraction, similarity and loss are those of the method's paper. The encoder,
# `"test_resnet"`, is timm's tiny ResNet for tests; we use it because it is fast. CPC compares patches of an image, so
# its augmentation also cuts patches. We override Lightning's hook `on_train_epoch_end`: after each epoch, it stores all
# logged values and prints some of them.

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
            base_batch_size=None,  # do not scale the learning rate with the batch size
        )
        self.history: list[dict[str, float]] = []

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        logged = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        self.history.append(logged)
        print(f"epoch {len(self.history):2}", *(f"  {name} {logged[name]:.3f}" for name in SHOWN))


module = InkMethod(data.mean, data.std)

# %% [markdown]
# The figure shows each image with two of its views, which are the encoder's input. Training makes the embeddings of the
# two views of an image similar, and different from those of other images.

# %%
ViewGrid(images=6).draw(module, images)

# %% [markdown]
# ## Training with two probes
#
# The probes measure how well a k-NN classifier and a linear classifier predict the labels from the representation. They
# run after each epoch, and don't change the training. We first evaluate the untrained encoder.

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
    enable_progress_bar=False,  # the hook prints the progress
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
# ## Save and load
#
# A checkpoint holds the arguments of the class, so you can load it without passing any. This also works for a class
# that is defined in a notebook.

# %%
trainer.save_checkpoint("ink.ckpt")
again = InkMethod.load_from_checkpoint("ink.ckpt", map_location="cpu")

module.eval()
again.eval()
with torch.no_grad():
    same = torch.equal(module(data.test_set.images), again(data.test_set.images))
same

# %% [markdown]
# To use only the encoder, you need little of this package. The weights have timm's own names, and the file also holds
# mean, standard deviation and similar facts. For images up to 64 pixels, our ResNet has a smaller stem, so the plain
# timm network needs this stem too.

# %%
weights = again.export_encoder("encoder.safetensors")
plain = timm.create_model("test_resnet", in_chans=1, num_classes=0).eval()
shrink_stem(plain)
plain.load_state_dict(weights)

normalised = (images / 255 - data.mean[0]) / data.std[0]
with torch.no_grad():
    torch.testing.assert_close(plain(normalised), again.encoder.network(normalised))
