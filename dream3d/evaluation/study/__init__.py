"""A user study as a kit: a blind page of questions about pairs, answers as files, and who is preferred."""
