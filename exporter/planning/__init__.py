"""Plan a cut: trace the model, select the units, resolve the options, list the edits."""
