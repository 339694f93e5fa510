"""3×3 convolutions by Winograd's minimal filtering F(4×4, 3×3), in float32.

A tile of 4×4 outputs takes 36 products where a direct sum takes 144 (Lavin & Gray, arXiv
1509.09308), d being 6×6 inputs and g the kernel, for every pair of channels:

    Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A

Over all tiles and channels, ⊙ is 36 matrix products. Both gradients are the transpose of these
steps. The matrices are those of the points 0, ±2/3, ±3/2, ∞, whose rounding errors are 1.8 times
a direct sum's; the customary points 0, ±1, ±2, ∞ have 4.5 times.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

TILE, KERNEL = 4, 3
WINDOW = TILE + KERNEL - 1  # inputs that a row of a tile sees
POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)  # and infinity


def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Aᵀ [4, 6], G [6, 3] and Bᵀ [6, 6] of the points, by Toom and Cook, transposed."""
    points, infinity = np.array(POINTS), np.eye(WINDOW)[-1]
    others = [np.delete(points, i) for i in range(len(points))]
    scale = np.array([np.prod(a - b) for a, b in zip(points, others, strict=True)])
    powers = points[:, None] ** np.arange(TILE)
    a = np.vstack([powers, infinity[-TILE:]])
    g = np.vstack([powers[:, :KERNEL] / scale[:, None], infinity[-KERNEL:]])
    roots = [*others, points]  # of the polynomials whose coefficients are the rows of Bᵀ
    b = [np.pad(np.poly(r)[::-1], (0, WINDOW - 1 - len(r))) for r in roots]
    return a.T, g, np.vstack(b)


class Tiles:
    """matrix · d · matrixᵀ for every tile d of images, and the transpose; one pass an axis.

    matrix: [6, s]. Tiles are 4 pixels apart; those of s = 6 pixels begin one pixel earlier.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix, self.size = matrix, matrix.shape[1]
        self.early = (self.size - TILE) // 2

    def spread(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] → [6, 6, B, h, w, C] with h = ⌈H/4⌉, w = ⌈W/4⌉"""
        return self._cut(self._cut(x, axis=1, new=0), axis=3, new=1)

    def gather(self, tiles: tf.Tensor, height: int, width: int) -> tf.Tensor:
        """The transpose of `spread`: [6, 6, B, h, w, C] → [B, H, W, C]"""
        return self._sew(self._sew(tiles, axis=2, pixels=height), axis=2, pixels=width)

    @tf.function(jit_compile=True)
    def _cut(self, x: tf.Tensor, axis: int, new: int) -> tf.Tensor:
        """Replaces the pixels of an axis by tiles, and puts their 6 mixtures on a new axis."""
        end = -(-x.shape[axis] // TILE) * TILE
        x = _padded(x, axis, self.early, end - x.shape[axis] + self.early)
        parts = [_sliced(x, axis, i, i + end - TILE + 1, TILE) for i in range(self.size)]
        return _mix(self.matrix, parts, new)

    @tf.function(jit_compile=True)
    def _sew(self, m: tf.Tensor, axis: int, pixels: int) -> tf.Tensor:
        """Mixes along axis 0, and puts the result for the tiles of an axis into its pixels."""
        parts = tf.unstack(m, axis=0)
        out = self.matrix.T
        y = _mix(out[:TILE], parts, axis + 1)  # […, h, 4, …]
        if self.early:  # what reaches into the tile behind
            beyond = np.pad(out[TILE:], ((0, 2 * TILE - self.size), (0, 0)))
            y = _padded(y, axis, 0, 1) + _mix(beyond, [_padded(p, axis, 1, 0) for p in parts], axis + 1)
        shape = [-1 if n is None else n for n in y.shape]
        y = tf.reshape(y, [*shape[:axis], shape[axis] * TILE, *shape[axis + 2 :]])
        return _sliced(y, axis, self.early, self.early + pixels)


def _mix(matrix: np.ndarray, parts: list[tf.Tensor], axis: int) -> tf.Tensor:
    """Σ matrix[:, i] · parts[i], the rows of the matrix along a new axis."""
    shape = [-1 if i == axis else 1 for i in range(len(parts[0].shape) + 1)]
    terms = [
        tf.constant(column.reshape(shape), part.dtype) * tf.expand_dims(part, axis)
        for column, part in zip(matrix.T, parts, strict=True)
    ]
    return sum(terms[1:], terms[0])


def _padded(x: tf.Tensor, axis: int, before: int, after: int) -> tf.Tensor:
    return tf.pad(x, [[before, after] if i == axis else [0, 0] for i in range(len(x.shape))])


def _sliced(x: tf.Tensor, axis: int, begin: int, end: int, step: int = 1) -> tf.Tensor:
    return x[(*(slice(None),) * axis, slice(begin, end, step))]


AT, G, BT = matrices()
INPUTS, OUTPUTS = Tiles(BT), Tiles(AT.T)
GG = np.kron(G, G).astype(np.float32)  # [36, 9]: G g Gᵀ as one product


@tf.custom_gradient
def conv(x: tf.Tensor, kernel: tf.Tensor):  # noqa: ANN201
    """tf.nn.conv2d(x, kernel, 1, "SAME") to within rounding.

    x: [B, H, W, I] with static H, W; kernel: [3, 3, I, O]; float32.
    """
    height, width = x.shape[1:3]

    def transformed() -> tf.Tensor:
        u = tf.matmul(GG, tf.reshape(kernel, [KERNEL**2, -1]))
        return tf.reshape(u, [WINDOW**2, *kernel.shape[2:]])

    y = OUTPUTS.gather(_products(INPUTS.spread(x), transformed()), height, width)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # The tiles of x are made again: kept, those of all layers would take 2.25 times the
        # memory of the activations.
        with tf.control_dependencies([upstream]):
            v = INPUTS.spread(tf.identity(x))
            u = transformed()
        m = OUTPUTS.spread(upstream)
        to_u = tf.matmul(_flat(v), _flat(m), transpose_a=True)
        to_kernel = tf.matmul(GG, tf.reshape(to_u, [WINDOW**2, -1]), transpose_a=True)
        with tf.control_dependencies([to_kernel]):  # before the tiles of the next layer
            to_x = INPUTS.gather(_products(tf.identity(m), u, transpose_b=True), height, width)
        return to_x, tf.reshape(to_kernel, kernel.shape)

    return y, gradient


def _flat(tiles: tf.Tensor) -> tf.Tensor:
    return tf.reshape(tiles, [WINDOW**2, -1, tiles.shape[-1]])


def _products(tiles: tf.Tensor, u: tf.Tensor, transpose_b: bool = False) -> tf.Tensor:
    """[6, 6, B, h, w, I] · [36, I, O] → [6, 6, B, h, w, O]"""
    y = tf.matmul(_flat(tiles), u, transpose_b=transpose_b)
    shape = [WINDOW, WINDOW, -1, *tiles.shape[3:5], y.shape[-1]]
    return tf.reshape(y, shape)
