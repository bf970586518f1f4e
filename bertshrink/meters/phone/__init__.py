"""What can be said of phones without one."""
