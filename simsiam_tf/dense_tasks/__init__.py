"""Object detection and semantic segmentation on a pre-trained backbone (Table 5)."""
