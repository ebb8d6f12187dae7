"""A case on disk, and every reader that makes one."""
