"""What lets a text prior draw by pictures (MV-RAG): pictures to features, features to tokens, tokens to attention."""
