"""The control stages, unaware of one another: data, features, training, registry, release."""
