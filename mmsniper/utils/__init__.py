"""What every floor may use: files that appear whole, and what the stack below needs."""
