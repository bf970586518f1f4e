"""From a name to a folder that may be loaded; files for engines are probed in a child process first."""
