"""How good a prior is: on images it has not seen, on what it draws, and by whom it is judged."""
