"""Many assets in one call: prompt lists, workers, a summary and a gallery page."""
