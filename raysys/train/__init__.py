"""`raysys train`: fine-tune SigLIP with the sigmoid loss over the global batch, on Ray Train."""
