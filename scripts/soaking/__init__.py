"""Hours of mixed load with faults, where every byte that was read is compared with what it has to be."""
