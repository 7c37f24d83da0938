"""The public architecture with so few and narrow blocks that a test can run it; weights are random."""

from gsemsplat_ros.network.config import NetworkConfig

TINY = NetworkConfig(
    enc_dim=32,
    enc_depth=2,
    enc_heads=2,
    dec_dim=32,
    dec_depth=4,
    dec_heads=2,
    layer_dims=(8, 8, 8, 8),
    dpt_dim=8,
    last_dim=8,
)
