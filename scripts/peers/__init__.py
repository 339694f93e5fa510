"""Independent implementations to compare with; nothing in simsiam_tf imports them."""
