import keras
import numpy as np
import pytest

from simsiam_tf.model_export.onnx_file import write_onnx

keras_hub = pytest.importorskip("keras_hub")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")


@pytest.mark.slow
def test_a_transformer_is_written_with_one_input_and_its_features(tmp_path):
    """Its GELU computes Erfc, and its embedding of positions holds a constant that is no variable."""
    vit = keras_hub.models.ViTBackbone((32, 32, 3), 8, 1, 2, 16, 32)
    images = keras.Input((32, 32, 3), name="images")
    model = keras.Model(images, vit(images)[:, 0])
    # Weights large enough for the ends of GELU's curve.
    model.set_weights([10 * w for w in model.get_weights()])
    write_onnx(model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert [i.name for i in session.get_inputs()] == ["images"]
    for count in (1, 5):
        batch = np.random.default_rng(count).normal(size=(count, 32, 32, 3)).astype(np.float32)
        expected = model(batch).numpy()
        (features,) = session.run(["features"], {"images": batch})
        np.testing.assert_allclose(features, expected, atol=1e-5 * np.abs(expected).max())
