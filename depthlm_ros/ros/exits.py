"""With which codes the process of the node ends; who starts it reads them."""

PARAMETERS_REFUSED = 2
"""A parameter is unknown or does not fit. Whoever starts the process again with the same ones gets this again."""
