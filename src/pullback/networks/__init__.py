"""Building blocks of networks."""

from pullback.networks.convolve import channels_last, convolve
from pullback.networks.features import FeatureNet
from pullback.networks.graph import EdgeConvolution, GraphFeatures
from pullback.networks.heads import EmbeddingHead, FieldHead, PoseHead, together
from pullback.networks.pad import padded
from pullback.networks.swin import Swin
from pullback.networks.unet import UNet, convolution
from pullback.networks.up import Convolved, Up, batch_norm_relu

__all__ = [
    "Convolved",
    "EdgeConvolution",
    "EmbeddingHead",
    "FeatureNet",
    "FieldHead",
    "GraphFeatures",
    "PoseHead",
    "Swin",
    "UNet",
    "Up",
    "batch_norm_relu",
    "channels_last",
    "convolution",
    "convolve",
    "padded",
    "together",
]
