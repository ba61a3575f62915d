"""What the benchmarks and the demo share: trainings on equal pixels, and what is made of them."""
