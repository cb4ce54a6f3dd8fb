"""2D pseudo-labels: detected or imported, told apart over the views, stored and measured."""
