"""What a server that runs for months needs around `GitServer`: signals, logs, a pid file."""
