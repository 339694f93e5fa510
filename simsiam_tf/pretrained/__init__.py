"""Pre-trained backbones: files, cards, weights of PyTorch."""
