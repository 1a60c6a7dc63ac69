"""The operations worth a fast path: one file each, a plain-torch reference first, and the choice between candidates."""
