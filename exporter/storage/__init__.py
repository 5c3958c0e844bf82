"""Files by URL: read through a cache, and written whole or not at all."""
