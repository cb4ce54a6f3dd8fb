"""The network, one stage a file, in the order of the paper (Han et al., CVPR 2026).

| stage | file |
|---|---|
| 1. backbone; heatmaps and confidence | `backbone`, `heatmaps` |
| 2. joint features and the adaptive graph convolution | `joint_graph` |
| 3. confidence-aware attention across views (CASA) | `confidence_attention` |
| 1 to 3 together: what the views see | `views` |
| 4. conditional normalising flow, whose samples are the hypotheses | `flow` |
| 5. triangulation of the hypotheses: anchor cloud and query cloud | `point_cloud` |
| 6. projection fusion: features for 3D points | `projection_fusion` |
| 7. spatiotemporal point transformer (STPT) | `point_transformer` |
| 8. hand model: pose, shape, translation | `hand_head` |
| all | `model`, with the sizes in `config` |

Shapes: B clips, T frames, V views, J = 21 joints, K hypotheses, N points, D features, S side of the crop, h side of a
heatmap. Crop coordinates run over [-1, 1] across the crop's outer edges, as in `grid_sample(align_corners=False)`.
"""
