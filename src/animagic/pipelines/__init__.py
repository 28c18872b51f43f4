"""The parts that the pipelines of all systems share: options, jobs, one base class, memory, devices."""
