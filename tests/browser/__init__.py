"""What the pixel script does in a real browser."""
