"""Classifiers of scikit-learn, LightGBM and XGBoost: operators of the domain ai.onnx.ml.

One such operator computes scores, an activation and class labels, and its weights are attributes.
While a model is open, `split` replaces it by one node for each step, whose weights are constants.
`join` makes the operator again when the model is run or written. A cut file therefore contains the
same operators as the original.
"""
