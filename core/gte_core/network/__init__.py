"""What is computed: the network and its heads, and the kernels that compute them."""
