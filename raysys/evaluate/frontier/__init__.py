"""`raysys index --frontier`: bytes and latency of shorter vectors and codes against quality."""
