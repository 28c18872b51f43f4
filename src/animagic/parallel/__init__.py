"""Work that is spread over several processes, one a GPU, started by torchrun."""
