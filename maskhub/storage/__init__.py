"""Where bytes come from and go: files here, on remotes, on the Hub; tensors in them; digests of them."""
