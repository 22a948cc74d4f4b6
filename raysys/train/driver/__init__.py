"""The driver's side of a run: is there room, what is heard of it, and what a person sees."""
