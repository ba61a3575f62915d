"""The pipeline transforms, one a file; ``mmsniper.datasets`` has their names."""
