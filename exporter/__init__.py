"""Cut the output units a device does not need out of a trained network, and prove the result."""
