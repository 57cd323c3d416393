"""Run -> artefacts for other programs, each loaded again by its own runtime and compared with the model.

One row here and one file make a new format: the file's FORMAT says how it is written, loaded and used.
"""

FORMATS = {
    "keras": "dlcli.export.keras_archive:FORMAT",
    "saved_model": "dlcli.export.saved_model:FORMAT",
    "onnx": "dlcli.export.onnx_graph:FORMAT",
    "litert": "dlcli.export.litert:FORMAT",
    "openvino": "dlcli.export.openvino_ir:FORMAT",
    "weights": "dlcli.export.weights:FORMAT",
}
