"""VGG16 without its classifier, which has nine tenths of the weights and which no perceptual distance uses."""

from torch import nn
from torchvision.models.vgg import cfgs, make_layers


def vgg16_features() -> nn.Sequential:
    """The features of torchvision's VGG16, with random weights of its own initialization, in evaluation mode."""
    features = make_layers(cfgs["D"])
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return features.eval()
