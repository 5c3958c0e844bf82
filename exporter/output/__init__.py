"""Write files and folders atomically: they appear complete, or do not appear."""
