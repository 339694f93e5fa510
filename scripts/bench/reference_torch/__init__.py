"""Independent implementations to compare with; nothing in simsiam_tf imports them."""

import sys

# PyTorch's CUDA build, which pip installs by default on Linux, loads triton as soon as an
# optimizer or torch.compile is used. Its LLVM and TensorFlow's crash a process that has both. The
# comparisons run on CPUs, which need no triton: torch does without when it cannot be imported.
sys.modules.setdefault("triton", None)
