"""Browser sessions in a real Chromium."""
