"""What can be seen from outside: metrics, traces, logs."""
