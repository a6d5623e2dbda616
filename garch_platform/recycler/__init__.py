"""The recycler: stored bars replayed as Alpaca's market-data stream, for when the market is closed."""
