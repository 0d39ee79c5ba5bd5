"""What the model costs: scripts that measure, and the arithmetic that figures are held against."""
