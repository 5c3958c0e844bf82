"""SavedModel folders, which TensorFlow and Keras export: a graph with its weights."""
