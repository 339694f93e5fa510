"""Pre-trained backbones: their files and cards, the Hugging Face Hub, conversion from and to PyTorch."""
