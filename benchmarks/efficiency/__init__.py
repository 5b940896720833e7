"""Who learns most from the same compute? `run.py` runs a tier, `page.py` writes its section."""
