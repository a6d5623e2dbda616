"""What a person reads: text tables, the gates of a selection, self-contained HTML pages."""
