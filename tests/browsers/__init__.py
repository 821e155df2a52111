"""One table of scenes for Chromium, Firefox and WebKit."""
