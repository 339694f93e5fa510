"""Independent implementations in PyTorch to compare with; nothing in simsiam_tf imports them."""

import sys

# PyTorch's CUDA build, which pip installs by default on Linux, loads triton as soon as an
# optimizer or torch.compile is used. Its LLVM and TensorFlow's crash a process that has both. Only
# torch.compile on a GPU needs triton: torch works where it cannot be imported. A process that needs it, and
# has no TensorFlow, imports it first.
sys.modules.setdefault("triton", None)
