"""The command line: one file per command. Importing it never imports torch, numpy or a model library."""
