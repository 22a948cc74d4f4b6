"""What runs on every training worker, where Ray Train is near: the loop, and what it leans on."""
