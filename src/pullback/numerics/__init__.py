"""Tensors in, tensors out: the arithmetic under every floor. Fields are `(B, d, *spatial)` in voxels."""
