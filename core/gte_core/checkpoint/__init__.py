"""A name -> the checked files of a model: configuration, weights, and how its vectors are made."""
