"""How good results are: against truth, against labels of a camera that was left out, and by themselves."""
