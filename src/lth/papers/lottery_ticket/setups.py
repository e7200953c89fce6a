"""The paper's networks and experiments by name."""

from __future__ import annotations

from lth.papers.setups import Setup, setup

NETWORKS = {"Conv-2": "conv2", "Conv-4": "conv4", "Conv-6": "conv6", "Resnet-18": "resnet18", "VGG-19": "vgg19"}
DEEP = {  # network, learning rate, warmup -> preset
    ("resnet18", 0.1, 0): "resnet18",
    ("resnet18", 0.01, 0): "resnet18-lr0.01",
    ("resnet18", 0.03, 20000): "resnet18-warmup",
    ("vgg19", 0.1, 0): "vgg19",
    ("vgg19", 0.01, 0): "vgg19-lr0.01",
    ("vgg19", 0.1, 10000): "vgg19-warmup",
}
LENET, ONESHOT, CONTINUED = Setup("lenet"), Setup("lenet-oneshot"), Setup("lenet-continued")
CONV2, CONV4, CONV6 = Setup("conv2"), Setup("conv4"), Setup("conv6")
DROPOUT = {of: Setup(f"{of.preset}-dropout") for of in (CONV2, CONV4, CONV6)}
VGG, VGG_LOW, VGG_WARM = Setup("vgg19"), Setup("vgg19-lr0.01"), Setup("vgg19-warmup")
RESNET, RESNET_LOW, RESNET_WARM = Setup("resnet18"), Setup("resnet18-lr0.01"), Setup("resnet18-warmup")


def deep(network: str, lr: float, warmup: int = 0, layerwise: bool = False) -> Setup:
    """A deep network's preset with this learning rate and warmup, or else another preset with changed settings."""
    scope = {"prune.scope": "layerwise"} if layerwise else {}
    if preset := DEEP.get((network, lr, warmup)):
        return setup(preset, scope)
    return setup(network, scope | {"recipe.lr": lr, "recipe.warmup": warmup})


def lenet_sgd() -> Setup:
    """LeNet trained by SGD, as in appendix F."""
    return setup("lenet", {"recipe.optimizer": "sgd", "recipe.lr": 0.8})


def dense_of(of: Setup) -> Setup | None:
    """The experiment of strategy 1 for one of strategy 2: the figures plot the unpruned network once for both."""
    if of == CONTINUED:
        return LENET
    rest = tuple(setting for setting in of.settings if setting != ("strategy", "continued"))
    return Setup(of.preset, rest) if rest != of.settings else None
