"""Pairs: scan, selection, confirmation, score, floor; hedge ratio and spread."""
