"""What users do: kept before it is acknowledged, then folded into their states."""
