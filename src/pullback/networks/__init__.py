"""Building blocks of networks."""

from pullback.networks.convolve import channels_last, convolve
from pullback.networks.features import FeatureNet
from pullback.networks.graph import EdgeConvolution, GraphFeatures
from pullback.networks.heads import EmbeddingHead, FieldHead, PoseHead, together
from pullback.networks.network import Network
from pullback.networks.pad import padded
from pullback.networks.swin import Swin
from pullback.networks.trunk import Backbone, Trunk
from pullback.networks.unet import UNet, convolution
from pullback.networks.up import Convolved, Up, batch_norm_relu, instance_norm_leaky

__all__ = [
    "Backbone",
    "Convolved",
    "EdgeConvolution",
    "EmbeddingHead",
    "FeatureNet",
    "FieldHead",
    "GraphFeatures",
    "Network",
    "PoseHead",
    "Swin",
    "Trunk",
    "UNet",
    "Up",
    "batch_norm_relu",
    "channels_last",
    "convolution",
    "convolve",
    "instance_norm_leaky",
    "padded",
    "together",
]
