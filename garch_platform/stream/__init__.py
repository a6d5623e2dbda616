"""The stream client: live bars, from Alpaca or from the recycler, into the table ``market_data``."""
