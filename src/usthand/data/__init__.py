"""From captures and labels to batches: one hand as a right one, crops around it, and clips with augmentation.

`prepare` gives rig, labels and fit of one hand; `crops` places and cuts crops; `crop_cache` keeps them on disk;
`footage` joins them; `batches` assembles clips, varied by `augmentation`.
"""
