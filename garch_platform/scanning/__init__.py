"""A pair scan of any bar file, without an asset graph."""
