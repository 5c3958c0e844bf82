"""Convert Keras models and SavedModels to ONNX and TFLite in a child process.

`process.Child` starts and watches the child; `remote` gives access to the models in it. The modules
that need TensorFlow run only in the child: `child` itself, `to_onnx`, `to_tflite` and their steps.
"""
