"""Many cuts in one plan: cells, workers, an index (docs/batch.md)."""
