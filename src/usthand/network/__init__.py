"""The network, one stage a file: backbone -> views (2D) -> flow -> lift (3D cloud) -> points (STPT) -> hand_head.

One legend of shapes for all: B clips, T frames, V views, J = 21 joints, K hypotheses, N points, D features, S crop side.
Crop coordinates run over [-1, 1] across the crop's outer edges, as `grid_sample(align_corners=False)` has them.
"""
