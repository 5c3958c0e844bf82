"""Keras to ONNX and TFLite, and Keras models at arm's length: a child process holds TensorFlow.

`process.Child` starts and watches the child, `remote` shows its models like any other, `child` is
what runs there, and `to_onnx` and `to_tflite` are the routes. Only the last three, and the steps of
the routes beside them, need TensorFlow.
"""
