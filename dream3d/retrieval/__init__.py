"""Named pictures to draw by: corpora, their search, and what of it a prompt may use (MV-RAG; docs/corpus.md)."""
