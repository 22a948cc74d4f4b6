"""`raysys bench`: speed and memory, compared with a baseline and an upper bound. One module per benchmark."""
