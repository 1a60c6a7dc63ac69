"""What a model file may ask of this machine, checked before it is loaded."""
