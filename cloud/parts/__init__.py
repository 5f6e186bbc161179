"""What a run is put together from: network and method, tasks in batches, scores; see `base.Parts`."""
