"""3×3 convolutions by Winograd's minimal filtering F(m×m, 3×3), in float32.

A tile of 4×4 outputs takes 36 products instead of a direct sum's 144 (Lavin & Gray, arXiv 1509.09308). With
d the (m + 2)² inputs of a tile of m×m and g the kernel:

    Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A

Over all tiles and channels, ⊙ is (m + 2)² matrix products. Both gradients are the transpose of
these steps. The matrices are those of the points 0, ±2/3, ±3/2, ∞, whose rounding errors are 1.9
times a direct convolution's; the customary points 0, ±1, ±2, ∞ have 4.2 times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from simsiam_tf.nets.cpu.static_shape import static_shape

KERNEL = 3
POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)  # without ∞; one more than a tile has rows


def matrices(points: Sequence[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Aᵀ [m, n], G [n, 3] and Bᵀ [n, n] with n = m + 2: Toom and Cook's algorithm, transposed.

    points: m + 1 numbers; ∞ is added.
    """
    n, tile = len(points) + 1, len(points) - 1
    infinity = np.eye(n)[-1]
    others = [np.delete(points, i) for i in range(n - 1)]
    scale = np.array([np.prod(a - b) for a, b in zip(points, others, strict=True)])
    powers = np.array(points)[:, None] ** np.arange(n)
    a = np.vstack([powers[:, :tile], infinity[-tile:]])
    g = np.vstack([powers[:, :KERNEL] / scale[:, None], infinity[-KERNEL:]])
    roots = [*others, points]  # of the polynomials whose coefficients are the rows of Bᵀ
    b = [np.pad(np.poly(r)[::-1], (0, n - 1 - len(r))) for r in roots]
    return a.T, g, np.vstack(b)


class Tiles:
    """Computes matrix · d · matrixᵀ for every tile d of images, and the transpose; one pass per axis.

    matrix: [n, s], for tiles of s×s pixels: s = m = n − 2, side by side, or s = n, which overlap. Either way
    a tile begins every m pixels, the first at pixel 0 (s = m) or −1 (s = n).
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix, self.size = matrix, matrix.shape[1]
        self.spacing = len(matrix) + 1 - KERNEL
        self.margin = (self.size - self.spacing) // 2

    def spread(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] → [n, n, B, h, w, C] with h = ⌈H/m⌉, w = ⌈W/m⌉"""
        return self._cut(self._cut(x, axis=1, new=0), axis=3, new=1)

    def gather(self, tiles: tf.Tensor, height: int, width: int) -> tf.Tensor:
        """The transpose of `spread`: [n, n, B, h, w, C] → [B, H, W, C]"""
        return self._sew(self._sew(tiles, axis=2, pixels=height), axis=2, pixels=width)

    @tf.function(jit_compile=True, autograph=False)
    def _cut(self, x: tf.Tensor, axis: int, new: int) -> tf.Tensor:
        """Cuts an axis into tiles, and puts the n rows of matrix · tile on a new axis."""
        length = static_shape(x)[axis]
        end = -(-length // self.spacing) * self.spacing
        x = _padded(x, axis, self.margin, end - length + self.margin)
        pixels = [_sliced(x, axis, i, i + end - self.spacing + 1, self.spacing) for i in range(self.size)]
        return _mix(self.matrix, pixels, new)

    @tf.function(jit_compile=True, autograph=False)
    def _sew(self, m: tf.Tensor, axis: int, pixels: int) -> tf.Tensor:
        """The transpose of `_cut`: multiplies along axis 0, and adds the tiles of an axis into its pixels."""
        rows = tf.unstack(m, axis=0)
        out = self.matrix.T
        y = _mix(out[: self.spacing], rows, axis + 1)  # […, h, m, …]
        if self.margin:  # the pixels that overlap with the next tile
            beyond = np.pad(out[self.spacing :], ((0, 2 * self.spacing - self.size), (0, 0)))
            y = _padded(y, axis, 0, 1) + _mix(beyond, [_padded(p, axis, 1, 0) for p in rows], axis + 1)
        shape = [-1 if n is None else n for n in y.shape]
        y = tf.reshape(y, [*shape[:axis], shape[axis] * self.spacing, *shape[axis + 2 :]])
        return _sliced(y, axis, self.margin, self.margin + pixels)


def _mix(matrix: np.ndarray, values: list[tf.Tensor], axis: int) -> tf.Tensor:
    """Σ matrix[:, i] · values[i], the rows of the matrix along a new axis."""
    shape = [-1 if i == axis else 1 for i in range(len(values[0].shape) + 1)]
    terms = [
        tf.constant(column.reshape(shape), value.dtype) * tf.expand_dims(value, axis)
        for column, value in zip(matrix.T, values, strict=True)
    ]
    return sum(terms[1:], terms[0])


def _padded(x: tf.Tensor, axis: int, before: int, after: int) -> tf.Tensor:
    return tf.pad(x, [[before, after] if i == axis else [0, 0] for i in range(len(x.shape))])


def _sliced(x: tf.Tensor, axis: int, begin: int, end: int, step: int = 1) -> tf.Tensor:
    return x[(*(slice(None),) * axis, slice(begin, end, step))]


class Winograd:
    """F(m×m, 3×3): `conv` is tf.nn.conv2d(x, kernel, 1, "SAME") to within rounding."""

    def __init__(self, points: Sequence[float]) -> None:
        at, g, bt = matrices(points)
        self.inputs, self.outputs = Tiles(bt), Tiles(at.T)
        self.kernels = np.kron(g, g).astype(np.float32)  # [n², 9]: G g Gᵀ as one product

    def conv(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """x: [B, H, W, I] with static H, W; kernel: [3, 3, I, O]; float32."""
        return tf.custom_gradient(self._conv)(x, kernel)

    def _conv(self, x: tf.Tensor, kernel: tf.Tensor) -> Any:
        _, height, width, _ = static_shape(x)
        u = self._transform_kernel(kernel)
        y = self.outputs.gather(_products(self.inputs.spread(x), u), height, width)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # The tiles of x are computed again. To keep those of all layers would take 2.25 times the
            # memory of the activations.
            with tf.control_dependencies([upstream]):
                v = self.inputs.spread(tf.identity(x))
                u = self._transform_kernel(tf.identity(kernel))
            m = self.outputs.spread(upstream)
            to_u = tf.matmul(_flat(v), _flat(m), transpose_a=True)
            to_kernel = tf.matmul(self.kernels, tf.reshape(to_u, [len(self.kernels), -1]), transpose_a=True)
            with tf.control_dependencies([to_kernel]):  # frees v before another layer's tiles are made
                to_x = self.inputs.gather(_products(tf.identity(m), u, True), height, width)
            return to_x, tf.reshape(to_kernel, kernel.shape)

        return y, gradient

    def _transform_kernel(self, kernel: tf.Tensor) -> tf.Tensor:
        """[3, 3, I, O] → [n², I, O]"""
        u = tf.matmul(self.kernels, tf.reshape(kernel, [KERNEL**2, -1]))
        return tf.reshape(u, [-1, *kernel.shape[2:]])


def _flat(tiles: tf.Tensor) -> tf.Tensor:
    n, *_, channels = static_shape(tiles)
    return tf.reshape(tiles, [n * n, -1, channels])


def _products(tiles: tf.Tensor, u: tf.Tensor, transpose_b: bool = False) -> tf.Tensor:
    """[n, n, B, h, w, I] · [n², I, O] → [n, n, B, h, w, O]; transpose_b: u is [n², O, I]"""
    y = tf.matmul(_flat(tiles), u, transpose_b=transpose_b)
    n = tiles.shape[0]
    return tf.reshape(y, [n, n, -1, *tiles.shape[3:5], y.shape[-1]])


conv = Winograd(POINTS).conv
