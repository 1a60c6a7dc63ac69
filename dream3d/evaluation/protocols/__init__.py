"""How a prior is measured: which views are drawn, what they are compared with, and the tables of the results."""
