"""VGG16 without its classifier, which has 90 % of the weights and is not used by perceptual distances."""

from torch import nn
from torchvision.models.vgg import cfgs, make_layers


def vgg16_features() -> nn.Sequential:
    """The features of torchvision's VGG16, randomly initialized as there, in evaluation mode."""
    features = make_layers(cfgs["D"])
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return features.eval()
