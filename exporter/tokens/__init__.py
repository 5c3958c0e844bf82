"""The files of a tokenizer, and configuration files with token ids, for fewer tokens."""
