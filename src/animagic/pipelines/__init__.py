"""What the pipelines of all systems share: their options, how a request is carried out, devices."""
