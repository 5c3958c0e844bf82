"""Compare a pruned, converted or quantized model with its original."""
