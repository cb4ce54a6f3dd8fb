"""Which detection of which view is which hand, in every frame."""
