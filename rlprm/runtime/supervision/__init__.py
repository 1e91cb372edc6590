"""What keeps watch over a long run: signals from outside, and processes that no longer answer."""
