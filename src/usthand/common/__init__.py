"""What every package uses: the user's error, files written whole, progress, devices and safe pickles."""
