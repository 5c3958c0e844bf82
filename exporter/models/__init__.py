"""The kinds of model: each draws itself as a neutral graph, applies plans, runs, and is written."""
