"""Model folders written by hand: configurations without weights, all that a plan looks at."""

import json

from bertshrink.files.atomic import seal

CLASSES = {"id2label": {"0": "negative", "1": "positive"}}
SIZES = {
    "num_hidden_layers": 4,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 100,
    "max_position_embeddings": 64,
}


def model_folder(folder, family="bert", head="ForSequenceClassification", **more):
    """A folder with a config.json; `more` are further keys, None leaves one out."""
    folder.mkdir(parents=True, exist_ok=True)
    config = SIZES | CLASSES | {"model_type": family, "architectures": [f"Some{head}"]} | more
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def artifact_folder(folder, **more):
    """An artifact folder as bertshrink seals one, whose graph is empty."""
    folder.mkdir(parents=True, exist_ok=True)
    card = {
        "schema_id": "bertshrink.artifact/1",
        "format": "onnx",
        "engine": "onnxruntime",
        "file": "onnx/model.onnx",
        "task": "classification",
        "family": "bert",
        "precision": "float32",
        "labels": ["negative", "positive"],
        "inputs": ["input_ids", "attention_mask"],
        "outputs": ["logits"],
        "max_length": 64,
        "vocab_size": 100,
    }
    (folder / "artifact.json").write_text(json.dumps(card | more))
    (folder / "vocab.txt").write_text("[PAD]\n")
    (folder / "onnx").mkdir(exist_ok=True)
    (folder / "onnx" / "model.onnx").write_bytes(b"")
    seal(folder)
    return folder
