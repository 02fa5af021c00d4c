"""Building blocks of networks."""

from pullback.networks.across_phases import AcrossPhases
from pullback.networks.convolve import channels_last, convolve
from pullback.networks.encoder_decoder import (
    Add,
    Concatenate,
    Convolutions,
    Decoder,
    Encoder,
    Strided,
    Transposed,
    linear_up,
    max_pooling,
    mean_pooling,
    nearest_up,
)
from pullback.networks.features import FeatureNet
from pullback.networks.graph import EdgeConvolution, GraphFeatures
from pullback.networks.heads import EmbeddingHead, FieldHead, PoseHead, together
from pullback.networks.network import Network
from pullback.networks.pad import padded
from pullback.networks.points import HeatmapHead, PointPrediction, RegressionHead, SparseAlignment
from pullback.networks.repeated import Repeated
from pullback.networks.residual import ResidualNet
from pullback.networks.segmenter import SegmentationUNet, Segmenter
from pullback.networks.swin import Swin
from pullback.networks.trunk import Backbone, Trunk
from pullback.networks.unet import UNet, convolution
from pullback.networks.up import Convolved, Up, batch_norm_relu, instance_norm_leaky, instance_norm_relu

__all__ = [
    "AcrossPhases",
    "Add",
    "Backbone",
    "Concatenate",
    "Convolutions",
    "Convolved",
    "Decoder",
    "EdgeConvolution",
    "EmbeddingHead",
    "Encoder",
    "FeatureNet",
    "FieldHead",
    "GraphFeatures",
    "HeatmapHead",
    "Network",
    "PointPrediction",
    "PoseHead",
    "RegressionHead",
    "Repeated",
    "ResidualNet",
    "SegmentationUNet",
    "Segmenter",
    "SparseAlignment",
    "Strided",
    "Swin",
    "Transposed",
    "Trunk",
    "UNet",
    "Up",
    "batch_norm_relu",
    "channels_last",
    "convolution",
    "convolve",
    "instance_norm_leaky",
    "instance_norm_relu",
    "linear_up",
    "max_pooling",
    "mean_pooling",
    "nearest_up",
    "padded",
    "together",
]
